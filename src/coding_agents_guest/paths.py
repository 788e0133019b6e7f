"""Where things are inside the container. Fixed: the host plans its mounts accordingly."""

from __future__ import annotations

from pathlib import Path

WORKSPACE = Path("/workspace")
HOME = Path("/home/agentuser")
PROGRAM = Path("/opt/coding-agents/guest.pyz")
SOCKETS = Path("/run/coding-agents")
EVENTS_SOCKET = SOCKETS / "events.sock"
RELAY_SOCKET = SOCKETS / "relay.sock"
