"""What of the user's own credentials a session may be given: how the user writes it, and what an entry covers.

An entry of `credentials.release` is `https://[USER@]HOST[:PORT]/PATH`. It covers that path and what lies below it, by
whole segments. Where the last one ends in `.git` or not makes no difference, as with forges. One of
`credentials.ssh_agent` is `SHA256:FINGERPRINT HOST[:PORT]`: that key of the user's agent, for logins at that host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

GIVEN_FILE = "credentials.json"
"""In a session's directory: what it was given (`Given`). Without anything there is none."""

FILES = ("claude", "codex", "gh", "git-credentials", "gitconfig", "github-copilot", "mcp-secrets.env")
"""What `credentials.files` may name: configurations that hold logins."""

HTTPS_PORT, SSH_PORT = 443, 22
MAX_PATH = 1000
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"({_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\])(?::([1-9][0-9]{{0,4}}))?")
# Neither what is encoded in URLs (`%`), nor what ends a part of one, nor what a line or a shell could take for its own.
_SEGMENT = re.compile(r"[A-Za-z0-9._~@+-]+")
_USER = re.compile(r"[A-Za-z0-9._+-]{1,100}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_GIT = ".git"


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place at an HTTPS host: `host` with its port unless that is 443, the segments of `path`.

    `user` is whose account is meant where the user has several there, "" for whichever the host's git takes.
    """

    host: str
    path: tuple[str, ...]
    user: str = ""

    @property
    def text(self) -> str:
        """The entry in its one spelling."""
        user = f"{self.user}@" if self.user else ""
        return f"https://{user}{self.host}/{'/'.join(self.path)}"

    def covers(self, host: str, path: tuple[str, ...]) -> bool:
        """Whether a place, as `parse_host` and `parse_path` give it, is this one or lies below it.

        >>> parse_release("https://git.example/team").covers("git.example", ("team", "one.git"))
        True
        >>> parse_release("https://git.example/team").covers("git.example", ("team-two", "one.git"))
        False
        """
        if host != self.host or len(path) < len(self.path):
            return False
        *above, last = self.path
        return list(path[: len(above)]) == above and _bare(path[len(above)]) == _bare(last)


class KeyGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key of the user's agent by its fingerprint, and the host that it may be used at, with a port unless 22."""

    fingerprint: str
    host: str

    @property
    def text(self) -> str:
        """The entry in its one spelling."""
        return f"{self.fingerprint} {self.host}"

    @property
    def known_as(self) -> str:
        """The host's name as ssh looks it up in a known_hosts file (sshd(8))."""
        name, colon, port = self.host.rpartition(":")
        if colon and not self.host.endswith("]"):
            return f"[{name.strip('[]')}]:{port}"
        return self.host.strip("[]")


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a session was given at its launch or latest start: entries in their one spelling, and names of `FILES`."""

    release: tuple[str, ...] = ()
    ssh_agent: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.release or self.ssh_agent or self.files)


def parse_release(text: str) -> Release:
    """The entry that `text` spells. Raises ValueError, whose message repeats no word that may hold a password."""
    scheme, separator, rest = text.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    if not separator or scheme != "https":
        raise ValueError("a credential is released for https://HOST/PATH, and for no other scheme")
    if at and not _USER.fullmatch(user):
        raise ValueError("before the @ stands the name of an account, and never a password")
    if not slash or not path.strip("/"):
        raise ValueError(
            "name at least the first part of the path: https://HOST alone would release it for everything there"
        )
    return Release(parse_host(host), parse_path(path.removesuffix("/")), user)


def parse_key_grant(text: str) -> KeyGrant:
    """The entry that `text` spells. Raises ValueError."""
    words = text.split()
    if len(words) != 2 or not _FINGERPRINT.fullmatch(words[0]):
        raise ValueError("a key of the agent is named as SHA256:… HOST: `ssh-add -l` prints fingerprints")
    return KeyGrant(words[0], parse_host(words[1], usual_port=SSH_PORT))


def parse_host(text: str, *, usual_port: int = HTTPS_PORT) -> str:
    """A host with its port, in its one spelling: without the port that is usual. Raises ValueError."""
    match = _HOST.fullmatch(text) if len(text) <= 300 else None
    if match is None:
        raise ValueError("a host is written in lower case, as HOST or HOST:PORT")
    port = int(match[2] or usual_port)
    if port > 65535:
        raise ValueError("a port is at most 65535")
    return match[1] if port == usual_port else f"{match[1]}:{port}"


def parse_path(text: str) -> tuple[str, ...]:
    """The segments of a path without a slash at its ends. Raises ValueError for what has two readings."""
    segments = tuple(text.split("/"))
    if len(text) > MAX_PATH or any(one in (".", "..") or not _SEGMENT.fullmatch(one) for one in segments):
        raise ValueError("a path has plain segments, without %, ?, #, spaces, empty ones, `.` and `..`")
    return segments


def covering(entries: Iterable[Release], host: str, path: tuple[str, ...]) -> Release | None:
    """The entry that covers a place, the most exact first; None where it is released by none."""
    found = [one for one in entries if one.covers(host, path)]
    return max(found, key=lambda one: len(one.path), default=None)


def _bare(segment: str) -> str:
    return segment.removesuffix(_GIT) or segment
