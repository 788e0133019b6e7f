"""The runtimes that a session can be asked to run in, by the names under which engines know them."""

from __future__ import annotations

AUTO = "auto"
"""The engine's own choice."""

GVISOR = "runsc"
RUNTIMES = ("runc", "crun", GVISOR)


def is_gvisor(runtime: str) -> bool:
    """Whether containers of this runtime run on gVisor's kernel (runsc), and not on the host's."""
    return runtime == GVISOR
