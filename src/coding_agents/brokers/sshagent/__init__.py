"""The user's ssh-agent, filtered for a session: its protocol (wire), known_hosts, and what is let through (filter)."""
