"""Package indexes that a session reads through the host: where requests may go, what comes back, and the broker."""
