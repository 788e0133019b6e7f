"""Where the guest's programs find things in the container."""

from __future__ import annotations

from pathlib import Path

from coding_agents_guest.paths import HOME, SOCKETS, WORKSPACE
from coding_agents_guest.records import dataclass

BRIDGE_UID = 1002


@dataclass(frozen=True)
class Place:
    """The paths and names that our images and launches agree on. Tests put others in their place."""

    workspace: Path = WORKSPACE
    home: Path = HOME
    sockets: Path = SOCKETS
    relay: str = "git://coding-agents/workspace"
    bridge_uid: int = BRIDGE_UID
    path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    @property
    def events(self) -> Path:
        """The socket of the `events` service."""
        return self.sockets / "events.sock"

    def environment(self) -> dict[str, str]:
        """What every process that we start has in its environment."""
        return {
            "PATH": self.path,
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "USER": "agentuser",
            "SHELL": "/bin/bash",
        }
