"""Turns: so many at once, then one at a time, in order of arrival. Pure; the caller tells the time and waits."""

from __future__ import annotations

import msgspec


class Turns(msgspec.Struct):
    """`burst` turns without waiting, and one more every `every_s` seconds; all times in seconds."""

    burst: int
    every_s: float
    _spent_until: float = 0.0

    def take(self, now: float, *, patience_s: float) -> float | None:
        """How long to wait for the turn that is taken; None, and none is taken, when that is beyond `patience_s`.

        >>> turns = Turns(burst=2, every_s=1.0)
        >>> [turns.take(100.0, patience_s=1.5) for _ in range(4)]
        [0.0, 0.0, 1.0, None]
        """
        spent_until = max(self._spent_until, now) + self.every_s
        wait_s = max(0.0, spent_until - now - self.burst * self.every_s)
        if wait_s > patience_s:
            return None
        self._spent_until = spent_until
        return wait_s
