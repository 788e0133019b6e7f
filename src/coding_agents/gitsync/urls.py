"""Git URLs: which ones we accept, how they are shown, and where their clones lie (pure).

Accepted are the transports that only move objects (gitremote-helpers(7) lists others that run commands).
A user name with password or token never reaches a file, an argument list or a message.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit

from coding_agents.errors import CloneError
from coding_agents.model.masked import Masked

EMPTY = "empty"
"""The folder below `repos/` for sessions that start from nothing; a host of this name must not reach it."""

_SCHEMES = frozenset({"https", "http", "ssh", "git", "file"})
_FORM = "Write it like https://host/path/name.git, ssh://user@host/path or user@host:path."
_HELPER = re.compile(r"[A-Za-z0-9+.-]+::")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# scp-like: no slash before the colon; one letter alone is a Windows drive (git-clone(1), "GIT URLS").
_SCP = re.compile(r"(?:([^/:@\s]+)@(?=.)|(?=[^:]{2}))([^/:@\s]+):(\S.*)", re.DOTALL)


class GitUrl(Masked, frozen=True):
    """A URL to clone. `full` may hold a password and is only for git; `shown` is safe to show and to keep."""

    MASKED = frozenset({"full"})

    full: str
    shown: str
    host: str
    path: str

    @property
    def name(self) -> str:
        """The repository's name: the last part of the path."""
        return PurePosixPath(self.path.rstrip("/")).name.removesuffix(".git") or self.host

    @property
    def directory(self) -> PurePosixPath:
        """Where the clone lies below `repos/`: two URLs that are shown differently never share it."""
        raw = [part for part in self.path.removesuffix("/").removesuffix(".git").split("/") if part]
        parts = [self.host.lower() or "localhost", *raw]
        safe = [re.sub(r"[^A-Za-z0-9._-]", "-", part).lstrip(".-") or "x" for part in parts]
        safe = [part.removesuffix(".git") + "-git" if part.endswith(".git") else part for part in safe]
        if safe != parts or len(parts) == 1 or safe[0] == EMPTY:
            safe[-1] = f"{safe[-1][:80]}-{hashlib.sha256(self.shown.encode()).hexdigest()[:8]}"
        return PurePosixPath(*safe[:-1], f"{safe[-1]}.git")


def parse_url(raw: str) -> GitUrl | None:
    """The git URL that `raw` is, or None when it is a path.

    Raises CloneError for what looks like an option, names a remote helper (`ext::…`) or an unknown
    scheme, or holds control characters, literally or percent-encoded.
    """
    if raw.startswith("-"):
        raise CloneError(
            f"{raw[:80]!r} looks like an option, not like a repository",
            hint="Name a git repository, or a git URL.",
        )
    if _HELPER.match(raw):
        raise CloneError(
            f"the transport of {raw.partition('::')[0]}:: is not allowed",
            hint="Use an https://, ssh:// or git@host:path URL.",
        )
    scheme = _SCHEME.match(raw)
    if scheme is not None:
        return _parse_scheme(raw, scheme[1].lower())
    scp = _SCP.fullmatch(raw)
    if scp is None:
        return None
    user, host, path = scp[1] or "", scp[2], scp[3]
    _require_plain(raw, host, user)
    return GitUrl(raw, raw, host, path)


def strip_userinfo(url: str) -> str:
    """`url` without password or token; an ssh user name stays, because it is part of the address."""
    if _SCHEME.match(url) is None:
        return url
    parts = urlsplit(url)
    userinfo, separator, host = parts.netloc.rpartition("@")
    user = userinfo.partition(":")[0] if parts.scheme.lower() == "ssh" else ""
    return urlunsplit(parts._replace(netloc=f"{user}@{host}" if separator and user else host))


def _parse_scheme(raw: str, scheme: str) -> GitUrl:
    if scheme not in _SCHEMES:
        raise CloneError(
            f"the transport {scheme}:// is not allowed", hint="Use an https://, ssh:// or git@host:path URL."
        )
    try:
        parts = urlsplit(raw)
        host = parts.hostname or ""
        port = f"-{parts.port}" if parts.port else ""
    except ValueError as error:
        raise _malformed() from error
    if (scheme != "file" and not host) or not parts.path.strip("/") or parts.query or parts.fragment:
        raise CloneError(f"the URL {strip_userinfo(raw)[:200]!r} does not name a repository", hint=_FORM)
    _require_plain(raw, host, parts.username or "")
    return GitUrl(raw, strip_userinfo(raw), host + port, parts.path)


def _require_plain(raw: str, host: str, user: str) -> None:
    printable = raw.isprintable() and unquote(raw).isprintable()
    if not printable or " " in host or host.startswith("-") or user.startswith("-"):
        raise _malformed()


def _malformed() -> CloneError:
    return CloneError("the repository's URL is malformed", hint=_FORM)
