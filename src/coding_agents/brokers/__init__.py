"""Brokers: what a guest may use of the host's, request by request, without ever holding it."""
