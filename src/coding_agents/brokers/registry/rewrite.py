"""Replace texts in a stream of bytes, across the pieces in which it comes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping


class Rewriter:
    """Passes bytes on with each text of `replacements` replaced. Only an end that may begin one is held."""

    def __init__(self, replacements: Mapping[bytes, bytes]) -> None:
        self._replacements = dict(replacements)
        longest_first = sorted(self._replacements, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, longest_first))) if longest_first else None
        self._most = max(map(len, longest_first), default=1) - 1
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may go on of what is held and `data`."""
        seen, done, out = self._held + data, 0, []
        for match in self._pattern.finditer(seen) if self._pattern is not None else ():
            out += [seen[done : match.start()], self._replacements[match[0]]]
            done = match.end()
        rest = seen[done:]
        keep = self._unsure(rest)
        self._held = rest[len(rest) - keep :]
        return b"".join((*out, rest[: len(rest) - keep]))

    def finish(self) -> bytes:
        """What was held, at the end."""
        held, self._held = self._held, b""
        return held

    def _unsure(self, data: bytes) -> int:
        """The length of the longest end of `data` with which one of the texts begins."""
        ends = (data[len(data) - size :] for size in range(min(self._most, len(data)), 0, -1))
        return next((len(end) for end in ends if any(one.startswith(end) for one in self._replacements)), 0)
