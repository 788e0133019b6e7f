"""Where things are inside the container. Fixed: the host plans its mounts accordingly."""

from __future__ import annotations

from pathlib import Path

WORKSPACE = Path("/workspace")
HOME = Path("/home/agentuser")
SOCKETS = Path("/run/coding-agents")
