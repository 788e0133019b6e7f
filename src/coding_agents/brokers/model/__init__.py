"""The model broker: one provider's API, with the user's credential, for requests that were read and judged."""
