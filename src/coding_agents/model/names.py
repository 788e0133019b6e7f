"""Names of sessions and of the engine objects that belong to them.

A session's name is its container's name; the other names are made from it by a fixed suffix, so it must
leave room for them in every namespace (a network interface excluded: engines name those themselves).
"""

from __future__ import annotations

import hashlib
import re

from coding_agents.errors import NameFormatError
from coding_agents.model.refs import Branch

MAX_NAME = 63
"""Longest session name: one DNS label (RFC 1035), because engines use it as a host name."""

_GIVEN = re.compile(r"[a-z0-9][a-z0-9.-]{0,47}")
_OTHER = re.compile(r"[^a-z0-9.]+")


def session_name(agent: str, repo_name: str, branch: Branch) -> str:
    """`<agent>-<repo>-<branch>`: lower case, everything but letters, digits, '.' and '-' becomes '-'."""
    return _fitted("-".join((agent, repo_name, branch.short.removeprefix(f"{agent}/"))))


def named_session(agent: str, name: str) -> str:
    """`<agent>-<name>` for `--name NAME`."""
    return _fitted(f"{agent}-{name}")


def with_suffix(name: str, repo_id: str) -> str:
    """`name` made different for another repository of the same name: 4 digits of its id at the end."""
    tail = f"-{repo_id[:4]}"
    return f"{name[: MAX_NAME - len(tail)].rstrip('-.')}{tail}"


def parse_name(raw: str) -> str:
    """The value of `--name`. Raises NameFormatError."""
    if _GIVEN.fullmatch(raw) is None or raw.endswith(("-", ".")) or ".." in raw:
        raise NameFormatError(
            f"invalid session name {raw[:80]!r}",
            hint="Use up to 48 lower-case letters, digits, '-' and '.'; a letter or digit at both ends.",
        )
    return raw


def _fitted(text: str) -> str:
    """`text` as a valid container name; what is cut off is replaced by a hash of the whole."""
    parts = (re.sub(r"\.+", ".", part).strip(".") for part in _OTHER.split(text.lower()))
    slug = "-".join(part for part in parts if part) or "session"
    if len(slug) <= MAX_NAME:
        return slug
    tail = f"-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
    return f"{slug[: MAX_NAME - len(tail)].rstrip('-.')}{tail}"
