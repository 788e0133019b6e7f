"""What decides, piece by piece, whether a guest's bytes go on to git (`splice` asks)."""

from __future__ import annotations

import asyncio

from coding_agents.gitsync.pack_scan import MalformedPackError, PackBounds, PackScanner, PackTooLargeError
from coding_agents.gitsync.relay_limits import RelayLimits, Usage, too_large, too_long
from coding_agents.policy.decide import Deny
from coding_agents.policy.matrix import Tier

BUDGET = "relay-budget"
PROTOCOL = "git-protocol"
"""The rule ids of what exceeds a budget, and of what is not git's protocol."""

_INLINE = 4096  # inflates to four megabytes at most, which takes as long as handing it to a thread ten times


class FetchGate:
    """Lets `most` bytes through: what a client says of a fetch is short."""

    patience_s = None

    def __init__(self, most: int) -> None:
        self._left = most

    async def check(self, data: bytes) -> Deny | None:
        """Why `data` may not go on, or None."""
        self._left -= len(data)
        return Deny(PROTOCOL, Tier.ASK, "the guest's request is too long") if self._left < 0 else None


class PackGate:
    """Holds the pack of one push against what is left of the relay's budgets, before git sees it."""

    def __init__(self, limits: RelayLimits, usage: Usage, *, hash_bytes: int) -> None:
        left = max(0, limits.unpacked_bytes - usage.unpacked_bytes)
        bounds = PackBounds(limits.object_bytes, left, limits.objects)
        self._scanner = PackScanner(bounds, hash_bytes=hash_bytes)
        self._limits = limits
        self._usage = usage
        self._received = 0

    @property
    def patience_s(self) -> float | None:
        """How long the guest may be silent; for ever once its pack is complete, as git is at work then."""
        return None if self._scanner.complete else self._limits.idle_s

    @property
    def unpacked(self) -> int | None:
        """What the pack measures unpacked, once it is complete."""
        return self._scanner.unpacked if self._scanner.complete else None

    async def check(self, data: bytes) -> Deny | None:
        """Why `data` may not go on, or None."""
        self._received += len(data)
        if reason := too_long(self._received, self._usage, self._limits):
            return Deny(BUDGET, Tier.ASK, reason)
        try:
            if len(data) <= _INLINE:
                self._scanner.feed(data)
            else:
                await asyncio.to_thread(self._scanner.feed, data)
        except PackTooLargeError as error:
            return Deny(BUDGET, Tier.ASK, too_large(error, self._usage, self._limits))
        except MalformedPackError as error:
            return Deny(PROTOCOL, Tier.ASK, f"the pack of this push is damaged: {error}")
        return None
