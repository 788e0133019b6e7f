"""What a session may still do: bytes in all and for each request, requests at once and in a time. Pure."""

from __future__ import annotations

from coding_agents_guest.records import dataclass

_BURST = 400


class SpentError(OSError):
    """A budget is used up: what is under way is broken off. An OSError, as a connection that breaks off is."""


@dataclass(frozen=True)
class Limits:
    """Of one session. Bytes that it sends (`up`) and receives (`down`), for each request likewise; 0: no limit.

    `at_once` requests may be under way, `per_second` begin in the long run.
    """

    up: int = 0
    down: int = 0
    request_up: int = 0
    request_down: int = 0
    at_once: int = 256
    per_second: int = 50


class Ledger:
    """Counts for one session. `now` is a clock in seconds that never goes back."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.up = self.down = 0
        self.under_way = 0
        self._tokens, self._at = float(_BURST), 0.0

    @property
    def spent(self) -> bool:
        return self._over(self.up, self.limits.up) or self._over(self.down, self.limits.down)

    def begin(self, now: float) -> bool:
        """Whether one more request may begin; then it is under way until `end`."""
        self._tokens = min(_BURST, self._tokens + (now - self._at) * self.limits.per_second)
        self._at = now
        if self._tokens < 1 or self.under_way >= self.limits.at_once:
            return False
        self._tokens -= 1
        self.under_way += 1
        return True

    def end(self) -> None:
        self.under_way -= 1

    @staticmethod
    def _over(used: int, limit: int) -> bool:
        return 0 < limit < used


class Account:
    """The bytes of one request."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.up = self.down = 0

    def sent(self, size: int) -> None:
        """`size` bytes are about to go out. Raises SpentError instead when they may not."""
        self.up += size
        self._ledger.up += size
        self._require()

    def received(self, size: int) -> None:
        """`size` bytes are about to come in. Raises SpentError instead when they may not."""
        self.down += size
        self._ledger.down += size
        self._require()

    def _require(self) -> None:
        limits = self._ledger.limits
        request = 0 < limits.request_up < self.up or 0 < limits.request_down < self.down
        if request or self._ledger.spent:
            raise SpentError("a budget of bytes is used up")
