"""Who is at work in a relay: any number of conversations, or one who must be alone. No IO."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Door:
    """Conversations pass through it; whoever must be alone shuts it, and one that comes then waits outside."""

    def __init__(self) -> None:
        self._inside = 0
        self._open, self._empty = asyncio.Event(), asyncio.Event()
        self._open.set()
        self._empty.set()

    @asynccontextmanager
    async def inside(self) -> AsyncIterator[None]:
        """For the time of one conversation."""
        while not self._open.is_set():  # it may be shut again before whom it was opened for had a turn
            await self._open.wait()
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def alone(self, patience_s: float) -> AsyncIterator[None]:
        """Wait until nobody is inside, and keep all others outside. Raises TimeoutError when `patience_s` is over."""
        self._open.clear()
        try:
            async with asyncio.timeout(patience_s):
                await self._empty.wait()
            yield
        finally:
            self._open.set()
