"""How much of the log the guest may fill: a rate and a total, so that a flood costs only its own records."""

from __future__ import annotations

import msgspec

RATE_PER_S = 100
# What is refused or fails comes one by one from somebody at work, and one a second tells as much of a flood.
REFUSALS_PER_S = 1
REFUSALS_AT_ONCE = 200
# Hooks tell of tools one by one; a burst is what several agents at work in one session make.
TOOL_CALLS_PER_S = 10
TOOL_CALLS_AT_ONCE = 200
TOTAL_BYTES = 16 << 20
_COST = 1000  # one record in thousandths, so that the arithmetic stays in whole milliseconds


class GuestBudget(msgspec.Struct):
    """A token bucket of `at_once` records, and a total in bytes over the life of the log."""

    used_bytes: int = 0
    per_second: int = RATE_PER_S
    at_once: int = RATE_PER_S
    total_bytes: int = TOTAL_BYTES
    _tokens: int = -1
    _last_ms: int = 0

    def admits(self, size: int, *, now_ms: int) -> bool:
        """Whether a record of `size` bytes may be written now; if so it is charged."""
        full = self.at_once * _COST
        if self._tokens < 0:
            self._tokens = full
        elapsed_ms = max(0, now_ms - self._last_ms)  # a clock set back earns nothing
        self._tokens = min(full, self._tokens + elapsed_ms * self.per_second)
        self._last_ms = now_ms
        if self._tokens < _COST or self.used_bytes + size > self.total_bytes:
            return False
        self._tokens -= _COST
        self.used_bytes += size
        return True
