"""Where the parts of the proxy find each other. Fixed: the host plans mounts and environment accordingly."""

from __future__ import annotations

from pathlib import Path

from coding_agents_guest.paths import SOCKETS

PROXY_PORT = 3128
"""The proxy on the agent's own 127.0.0.1."""

SQUID_PORT, EXIT_PORT, LOG_PORT = 3129, 3130, 3131
"""On the proxy's own 127.0.0.1: squid, where it sends what it has understood, and where it sends its own log."""

EXPLAIN = b"EXPLAIN "
"""Begins the one request to the proxy that is not HTTP: a URL as JSON, or "" for all rules; JSON is the answer."""

DOOR_DIRECTORY = Path("/opt/coding-agents-door")
"""A volume of the session that both containers mount; the agent's read-only."""

DOOR = DOOR_DIRECTORY / "door.sock"
LINK = SOCKETS / "link.sock"
