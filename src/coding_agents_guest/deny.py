"""Which files we never commit unless git already tracks them: the host's deny-list, by name alone."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WILD = {"*": "[^/]*", "?": "[^/]"}


class DenyList:
    """Glob patterns, as the host's workspace/deny.toml explains them; those that begin with `!` win.

    >>> DenyList(["*.pem", ".aws/", "!*.example.pem"]).denies("a/b.PEM")
    True
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = [pattern.lower() for pattern in patterns]
        self._denied = _any_of(pattern for pattern in patterns if not pattern.startswith("!"))
        self._allowed = _any_of(pattern[1:] for pattern in patterns if pattern.startswith("!"))

    def denies(self, path: str) -> bool:
        """Whether `path`, from the top of the work tree, must not be committed."""
        path = path.lower()
        return self._denied.fullmatch(path) is not None and self._allowed.fullmatch(path) is None


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    # A pattern matches at every depth. An empty alternation would match the empty path only, which none is.
    return re.compile("(?:.*/)?(?:" + "|".join(map(_translate, patterns)) + ")", re.DOTALL)


def _translate(pattern: str) -> str:
    body = "".join(_WILD.get(char) or re.escape(char) for char in pattern)
    return f"{body}.+" if pattern.endswith("/") else body
