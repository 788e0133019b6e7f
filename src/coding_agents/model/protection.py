"""The names of a session's protections, in the order in which they are shown; `sandbox.protections` measures them."""

from __future__ import annotations

REQUIRED = (
    "user", "capabilities", "no-new-privileges", "seccomp", "read-only-root", "mounts", "host-paths", "network",
)  # fmt: skip
"""Without one of these nothing starts, whatever anybody asks for."""

BEST_AVAILABLE = ("memory", "swap", "cpus", "pids", "disk", "disk-read", "disk-write", "apparmor", "userns")
"""Shown when they are missing, and refused when somebody asked for them."""
