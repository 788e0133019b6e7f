"""Object ids and branch names, parsed once at the edge."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from coding_agents.errors import BranchError, GitError

MAX_BRANCH_BYTES = 200
"""Longest short name: with `-archived-<time>` and `.lock` it still fits the 255 bytes of a file name."""

_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# The rules of git-check-ref-format(1): 3 and 4 (`..`, control characters, space ~ ^ : ? * [ \),
# 8 (`@{`); the rules about components are below.
_FORBIDDEN = re.compile(r"\.\.|@\{|[\x00-\x20\x7f~^:?*\[\\]")
# Names that git or a person would take for something else.
_RESERVED = frozenset({"HEAD", "@"})


class Oid(str):
    """A full object id: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits."""

    __slots__ = ()

    @classmethod
    def parse(cls, raw: str) -> Oid:
        """Raises GitError when `raw` is not a full object id, or is the null id."""
        if _OID.fullmatch(raw) is None or not raw.strip("0"):
            raise GitError(f"not an object id: {raw[:80]!r}")
        return cls(raw)


class RefUpdate(msgspec.Struct, frozen=True):
    """One ref that a push wants to change. `old` is None for a new ref, `new` None for a deletion.

    `ref` comes from the pusher: any text, undecodable bytes kept as surrogates.
    """

    old: Oid | None
    new: Oid | None
    ref: str

    @property
    def shown(self) -> str:
        """`ref` as valid text, for records."""
        return self.ref.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Branch(msgspec.Struct, frozen=True):
    """A session's branch. `short` is `<agent>/<rest>`; it is safe as an argument and as a ref name."""

    short: str

    @classmethod
    def parse(cls, raw: str, *, agent: str) -> Branch:
        """`-b X` becomes `<agent>/X`; a leading `<agent>/` is not doubled. Raises BranchError."""
        short = raw if raw.startswith(f"{agent}/") else f"{agent}/{raw}"
        problem = _problem(raw) or _problem(short)
        if problem:
            raise BranchError(
                f"invalid branch name {raw[:80]!r}: {problem}",
                hint="Use letters, digits, '-', '_', '.' and '/', such as fix-login.",
            )
        return cls(short)

    @property
    def ref(self) -> str:
        """The full ref name."""
        return f"refs/heads/{self.short}"


def next_session_branch(agent: str, taken: Iterable[str]) -> Branch:
    """`<agent>/session-N` with the smallest N whose name no short name in `taken` uses or collides with.

    A taken `<agent>/session-1/x` occupies `<agent>/session-1` too, and so does another letter case.
    """
    used = {name.lower() for name in taken}
    parents = {
        "/".join(parts[:depth])
        for name in used
        for parts in [name.split("/")]
        for depth in range(1, len(parts))
    }
    number = 1
    while (short := f"{agent}/session-{number}").lower() in used | parents:
        number += 1
    return Branch.parse(short, agent=agent)


def _problem(name: str) -> str:
    """Why git (git-check-ref-format) or we refuse `name`, or an empty string."""
    if not name:
        return "it is empty"
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        return "it is not valid text"
    if len(encoded) > MAX_BRANCH_BYTES:
        return f"it is longer than {MAX_BRANCH_BYTES} bytes"
    if not name.isprintable() or _FORBIDDEN.search(name):
        return "it contains a space, a control character or one of ~ ^ : ? * [ \\ .. @{"
    if name in _RESERVED or name.endswith("."):
        return "git does not allow this name"
    for part in name.split("/"):
        if not part:
            return "it has an empty part between slashes"
        if part.startswith((".", "-")) or part.endswith(".lock"):
            return f"the part {part!r} starts with '.' or '-', or ends with '.lock'"
        if part in _RESERVED:
            return f"the part {part!r} has a meaning of its own"
    return ""
