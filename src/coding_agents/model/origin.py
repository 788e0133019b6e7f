"""What a session calls origin: addresses, what of them it may fetch, and which branches it may not push to. No IO."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

FETCHED = ("refs/heads/*", "refs/tags/*")
PROTECTED = ("main", "master", "production", "release/*")
"""The defaults of the settings origin.fetch and origin.protected."""

FILE = "origin.json"
"""In a session's directory: what it was given, as a list of `Origin`."""

MOST_PLACES = 16

_REFS = re.compile(r"refs/(?:heads|tags)/(?:[A-Za-z0-9_][A-Za-z0-9._-]*/)*(?:\*|[A-Za-z0-9_][A-Za-z0-9._-]*)")
_HOST = r"[A-Za-z0-9][A-Za-z0-9.-]*"
_PATH = r"[A-Za-z0-9._~%+/-]+"
_ADDRESS = re.compile(
    rf"https?://{_HOST}(?::\d+)?/{_PATH}|ssh://(?:\w[\w.-]*@)?{_HOST}(?::\d+)?/{_PATH}|\w[\w.-]*@{_HOST}:{_PATH}",
    re.ASCII,
)
_BRANCHES = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*/)*(?:\*|[A-Za-z0-9_][A-Za-z0-9._-]*)")


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One address that the host reaches for a session, under the `place` of a request line.

    `fetch` and `push` are resolved addresses without password or token; `push` is "" where nothing may be pushed, and
    `no_push` says why. `rewritten` are addresses that git in the session is to take for it, beside `fetch`.
    """

    place: str
    fetch: str
    push: str = ""
    no_push: str = ""
    rewritten: tuple[str, ...] = ()


class OriginRules(msgspec.Struct, frozen=True):
    """What the settings say of it. `refs` are fetched and served, `protected` are patterns of branches."""

    refs: tuple[str, ...] = FETCHED
    protected: tuple[str, ...] = PROTECTED
    wait_s: int = 120

    def is_protected(self, branch: str, default: str) -> bool:
        """Whether nothing may be pushed to `branch`: it is listed, or the `default` one while any is listed.

        Letter case does not count: there are servers where it does not.
        """
        name = branch.lower()
        return any(_matches(pattern.lower(), name) for pattern in self.protected) or (
            bool(self.protected) and name == default.lower()
        )


def parse_refs(text: str) -> str:
    """A pattern of refs to fetch. Raises ValueError."""
    if len(text) > 200 or ".." in text or text.endswith(".lock") or _REFS.fullmatch(text) is None:
        raise ValueError(
            f"{text[:80]!r} is not of the form refs/heads/NAME, refs/heads/PREFIX/* or refs/tags/…"
        )
    return text


def parse_branches(text: str) -> str:
    """A pattern of branches. Raises ValueError."""
    if len(text) > 200 or ".." in text or _BRANCHES.fullmatch(text) is None:
        raise ValueError(f"{text[:80]!r} is not a branch, nor PREFIX/* for all below one")
    return text


def parse_address(text: str) -> str:
    """An address to fetch from, without a password or token. Raises ValueError."""
    if len(text) > 400 or _ADDRESS.fullmatch(text) is None or "/../" in text:
        raise ValueError(
            f"{text[:80]!r} is not of the form https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH"
        )
    return text


def refspecs(patterns: Sequence[str]) -> tuple[str, ...]:
    """For `git fetch`: each ref under its own name, whatever it was before."""
    return tuple(f"+{pattern}:{pattern}" for pattern in patterns)


def is_fetched(ref: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns has `ref`."""
    return any(_matches(pattern, ref) for pattern in patterns)


def shown_refs(patterns: Sequence[str]) -> tuple[str, ...]:
    """The same for git's `transfer.hideRefs`, where a name stands for all below it, too."""
    return tuple(pattern.removesuffix("/*") for pattern in patterns)


def _matches(pattern: str, name: str) -> bool:
    if pattern == "*":
        return True
    if pattern.endswith("/*"):
        return name.startswith(pattern[:-1])
    return name == pattern
