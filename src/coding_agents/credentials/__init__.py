"""The user's credentials on the host: where they are kept, and who a session's requests are from."""
