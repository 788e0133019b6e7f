"""Thin a relay out that grows full: let automatic saves go, and give back the space of what nothing names any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec

from coding_agents.errors import GitError
from coding_agents.gitsync.door import Door
from coding_agents.gitsync.relay_limits import Pressure, RelayLimits, Usage, pressure
from coding_agents.gitsync.relay_repo import Relay
from coding_agents.gitsync.relay_usage import RelayUsage
from coding_agents.gitsync.repack import Repack
from coding_agents.gitsync.thinning import FEWER, Attempt, Keep, is_due
from coding_agents.proc.limits import ProcessLimits

_NICENESS = 10
_PATIENCE_S = 10.0  # for conversations under way; those that come then wait for us
_LEAST_FILE = 16 << 20

LetGo = Callable[[Keep], Awaitable[bool]]


class Thinned(msgspec.Struct, frozen=True):
    """What a relay held before and after, and how near to its budgets it is now."""

    before: Usage
    after: Usage
    pressure: Pressure


class RelayThinning:
    """Thins one relay, which is served through `door`."""

    def __init__(self, relay: Relay, usage: RelayUsage, door: Door) -> None:
        self._relay = relay
        self._usage = usage
        self._door = door
        self._last: Attempt | None = None

    async def thin(
        self, limits: RelayLimits, *, let_go: LetGo, apart: AbstractAsyncContextManager[object]
    ) -> Thinned | None:
        """Thin the relay out if that is due, None if not. Raises GitError, OSError; nothing is lost then, either.

        `let_go` removes the dated saves that need not be kept, and says whether there were any. `apart` is held while
        packs are removed: nobody may then name objects of the relay by refs.
        """
        clock = asyncio.get_running_loop().time
        before, began_s = await self.measure(), clock()
        if not is_due(self._last, before, limits, began_s):
            return None
        after = None
        try:
            after = await self._thin(limits, let_go, apart)
        finally:
            in_vain = after is not None and pressure(after, limits) is not Pressure.NONE
            self._last = Attempt(began_s, clock(), after, in_vain)
        return Thinned(before, after, pressure(after, limits))

    async def measure(self) -> Usage:
        """What the relay holds. Raises GitError, OSError."""
        refs = await asyncio.to_thread(self._relay.store.refs)
        return await asyncio.to_thread(self._usage.measure, refs)

    async def _thin(
        self, limits: RelayLimits, let_go: LetGo, apart: AbstractAsyncContextManager[object]
    ) -> Usage:
        usage = await self.measure()
        for keep in FEWER:
            were_any = await let_go(keep)
            usage = await self.measure()
            in_bytes = Usage(usage.disk_bytes, usage.unpacked_bytes)
            if pressure(in_bytes, limits) is Pressure.NONE or (keep is FEWER[-1] and not were_any):
                break  # where the number of refs presses, no repack helps
            await self._repack(usage, limits, apart)
            usage = await self.measure()
            if pressure(usage, limits) is Pressure.NONE:
                break
        return usage

    async def _repack(
        self, usage: Usage, limits: RelayLimits, apart: AbstractAsyncContextManager[object]
    ) -> None:
        """Repack within the limits of one service of git; one that would need more space than is used is stopped."""
        most = max(_LEAST_FILE, min(usage.disk_bytes, limits.disk_bytes))
        kernel = ProcessLimits(limits.cpu_s, limits.memory_bytes, most, limits.open_files, _NICENESS)
        repack = Repack(self._relay, self._usage, limits=kernel, timeout_s=limits.wall_s)

        @asynccontextmanager
        async def alone() -> AsyncIterator[None]:
            async with apart, self._door.alone(_PATIENCE_S):
                yield

        try:
            await repack.run(alone)
        except TimeoutError as error:
            raise GitError("the relay is not thinned out: git is busy in it all the time") from error
