"""Servers that hold a secret: which of them can be run apart from the agent, and what a session was given of them.

Such a server runs as a user of its own, whom the agent cannot read. What it runs must then be out of the agent's reach,
too: the read-only copy of the repository's files, pinned packages in the image, or a program of the image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import msgspec

from coding_agents.errors import StoreError
from coding_agents.mcp.references import values
from coding_agents.model.mcp import GIVEN_FILE, McpServer
from coding_agents.store.files import read_record, write_atomic

FETCHERS = frozenset(
    {
        "npx", "npm", "pnpm", "pnpx", "yarn", "bun", "bunx", "deno", "corepack", "uvx", "uv", "pip", "pip3", "pipx",
        "dnx", "go", "cargo", "docker", "podman",
    }
)  # fmt: skip
"""Programs that fetch, or make, what they run when they start."""
STARTERS = frozenset(
    {
        "env", "xargs", "nice", "nohup", "setsid", "timeout", "stdbuf", "sudo", "su", "script", "time", "busybox",
        "ionice", "chrt", "taskset", "unshare", "nsenter", "find", "parallel", "watch", "make",
    }
)  # fmt: skip
"""Programs whose words name another program."""
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish", "ash"})
AGENT_PLACES = ("/workspace", "/home", "/tmp", "/var/tmp", "/dev/shm", "/dev/fd", "/run", "/var/run", "/proc")  # noqa: S108
"""Where the agent can put files of its own, or what leads there."""

_SHELL_WORDS = re.compile(r"-[A-Za-z]*c")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_OURS = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect",
        "accept-encoding", "content-encoding", "proxy-authorization", "proxy-connection",
    }
)  # fmt: skip


class ApartServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A server as it is run for one session: `digest` of what a person trusted, and the names of its secrets.

    The words of `server` name the copies, which lie in `directory` ("" without any); its `env` holds references.
    """

    digest: str
    server: McpServer
    needs: tuple[str, ...]
    directory: str = ""


def why_not_apart(server: McpServer, *, installed: bool = False) -> str:
    """Why `server`, its words already those that name the copies, is not run with a secret; "" when it can be. Pure.

    The program of an `installed` one is that of pinned packages in the image, whatever its name.
    """
    program = "" if installed else PurePosixPath(server.command).name
    if any("${" in word for word in server.args):
        return "it wants a secret in its args, which every process can read: give it in env"
    if program in FETCHERS:
        return (
            f"{program} fetches what it runs when it starts, so it cannot be pinned: "
            "put the program into the repository or the image, or run it by npx or uvx, whose packages are pinned"
        )
    if program in STARTERS:
        return f"{program} starts another program, which is not looked at: name that one as the command"
    if program in SHELLS and any(_SHELL_WORDS.match(word) for word in server.args):
        return f"the words of {program} -c are not looked at: put them into a file of the repository"
    if not server.command.startswith("/") and "/" in server.command:
        return f"its command {server.command!r} is no file that was copied"
    texts = (("command", server.command), *values(server))
    for key, text in texts:
        if place := next((place for place in AGENT_PLACES if _names(text, place)), ""):
            return f"its {key} names {place}, where the agent can put files of its own"
    return ""


def why_not_sent(server: McpServer) -> str:
    """Why no secret is sent to the address of `server`; "" when it can be. Pure."""
    try:
        parts = urlsplit(server.url)
        host = parts.hostname or ""
    except ValueError:
        return "its url is none"
    if parts.scheme != "https" and host not in _LOOPBACK:
        return "http would show it to everybody on the way: its url must be one of https"
    if parts.fragment:
        return "its url has a fragment, which is never sent"
    if name := next((name for name in server.headers if name.lower() in _OURS), ""):
        return f"its header {name} is one that every request has by itself"
    return ""


def write_given(directory: Path, given: Mapping[str, ApartServer]) -> None:
    """Keep in a session's directory which servers it was given to be run apart. Raises StoreError."""
    path = directory / GIVEN_FILE
    if given or path.exists():
        write_atomic(path, msgspec.json.format(msgspec.json.encode(given), indent=2) + b"\n")


def read_given(directory: Path) -> Mapping[str, ApartServer]:
    """The servers that a session was given to be run apart; none where there is no whole list."""
    try:
        return msgspec.json.decode(read_record(directory / GIVEN_FILE), type=dict[str, ApartServer])
    except (OSError, ValueError, StoreError):
        return {}


def _names(text: str, place: str) -> bool:
    """Whether `place` stands in `text` as a path, or the beginning of one."""
    found = text.find(place)
    while found >= 0:
        before, after = text[:found][-1:], text[found + len(place) :][:1]
        if not (before.isalnum() or before in ("_", "-")) and not (after.isalnum() or after in ("_", "-")):
            return True
        found = text.find(place, found + 1)
    return False
