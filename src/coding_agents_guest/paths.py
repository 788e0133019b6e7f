"""Where things are inside the container. Fixed: the host plans its mounts accordingly."""

from __future__ import annotations

from pathlib import Path

WORKSPACE = Path("/workspace")
HOME = Path("/home/agentuser")
SOCKETS = Path("/run/coding-agents")

AGENT_UID = 1000

MODEL_PORT = 8099
MCP_PORT = 8098
REGISTRY_PORT = 8097
"""Ports on the container's own 127.0.0.1: the model, MCP servers at an address that wants a secret, package indexes."""

WATERMARK_FAMILY = 0x5EC0
"""A family of sockets that no kernel has: how a seccomp profile answers for it tells which one it is."""
