"""Which keys a host has, as far as the user has accepted them: their own known_hosts and the machine's."""

from __future__ import annotations

from pathlib import Path

from coding_agents.brokers.sshagent.known import host_keys
from coding_agents.config.environ import HostEnvironment

_MAX_FILE = 4 << 20
_MACHINES = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))


def known_keys(env: HostEnvironment, name: str) -> tuple[bytes, ...]:
    """The public keys of the host `name` (`HOST` or `[HOST]:PORT`); a file that cannot be read knows of none."""
    files = (env.home / ".ssh/known_hosts", env.home / ".ssh/known_hosts2", *_MACHINES)
    return host_keys("\n".join(map(_text, files)), name)


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(_MAX_FILE).decode("utf-8", "replace")
    except OSError:
        return ""
