"""What a look may cost, and what it has cost so far: one account for a branch and all that is looked at beside it."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec


class Budget(msgspec.Struct, frozen=True):
    """What a whole look may cost. Beyond `blob_bytes` a file's content is not looked at, beyond the others nothing is.

    `objects` are those of earlier commits, `others` the branches and repositories beside the session's branch.
    """

    blob_bytes: int = 4 << 20
    total_bytes: int = 512 << 20
    changes: int = 200_000
    commits: int = 20_000
    objects: int = 200_000
    others: int = 200
    seconds: float = 120.0


class Account:
    """Time and bytes that are left of `budget`; the time counts from here, by `clock`."""

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self._clock = clock
        self._deadline = clock() + budget.seconds
        self._spent = 0

    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self._spent > self.budget.total_bytes or self._clock() > self._deadline

    def seconds(self) -> float:
        """What is left of the time, and never less than a moment: a process must come to an end of its own."""
        return max(self._deadline - self._clock(), 0.1)

    def spend(self, size: int) -> None:
        """Count `size` bytes that were looked into."""
        self._spent += size
