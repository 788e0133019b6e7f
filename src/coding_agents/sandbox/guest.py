"""How the guest's program runs in a container: from a shared volume, and only when it is the program we mean.

The command itself compares the file with the SHA-256 it was made for, so no start of whatever kind (ours, a
restart by somebody else, the bridge of a new supervisor) runs a program that was changed in the volume.
"""

from __future__ import annotations

PYTHON = "/usr/bin/python3"
GUEST_DIRECTORY = "/opt/coding-agents"
CONFIG_DIRECTORY = "/opt/coding-agents-config"
"""Where a session's configuration volume is mounted: lists of MCP servers and copies of their files, read-only."""
DOOR_DIRECTORY = "/opt/coding-agents-door"
"""Where a session's proxy is handed the socket on which it listens in the agent's container."""
GUEST_ZIPAPP = f"{GUEST_DIRECTORY}/guest.pyz"

NOT_OURS = "coding-agents: the guest program is not ours"
"""The line with which a container ends whose program was changed, before anything of it runs."""

# The interpreter's own SHA-256 (hashlib would load OpenSSL: 4 ms); its module has another name since 3.12.
_LOADER = f"""\
import sys
try:
    from _sha2 import sha256
except ImportError:
    from _sha256 import sha256
path, wanted, *arguments = sys.argv[1:]
try:
    with open(path, "rb") as program:
        found = sha256(program.read()).hexdigest()
except OSError as error:
    found = error.strerror
if found != wanted:
    sys.exit("{NOT_OURS}: wanted SHA-256 " + wanted + ", found " + found)
sys.path.insert(0, path)
from coding_agents_guest.__main__ import main
sys.exit(main(arguments))
"""


def guest_argv(digest: str, command: str, *options: str) -> tuple[str, ...]:
    """The words that run `command` of the guest's program, whose SHA-256 is `digest` (64 hex digits).

    -IS: no user site, no environment, nothing from the current directory.
    """
    return (PYTHON, "-IS", "-c", _LOADER, GUEST_ZIPAPP, digest, command, *options)


def guest_volume_name(digest: str) -> str:
    """The volume in which the guest's program with this SHA-256 travels."""
    return f"coding-agents-guest-{digest[:12]}"
