"""The host's side of a session's network: resolvers and the guard of the holder's namespace."""
