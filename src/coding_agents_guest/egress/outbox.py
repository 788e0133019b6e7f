"""What the host has still to record: kept until it says that it has, and bounded: nothing goes out unrecorded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

Event = Mapping[str, object]

_MOST = 4096


class Outbox:
    """Numbered events in order. What is asked for while it is full is refused (`full`)."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._events: deque[tuple[int, Event]] = deque()
        self._number = 0
        self._news = asyncio.Event()

    @property
    def full(self) -> bool:
        """A quarter is kept for the ends of what has begun."""
        return len(self._events) >= self._most * 3 // 4

    def put(self, event: Event, *, passed: bool = True) -> None:
        """Keep `event`, which tells of something that has `passed`, or was only asked for: then not while it is full.

        What is not kept leaves a gap in the numbers. More can pass than there is room for only against our own bounds
        of what is under way; then the oldest goes.
        """
        self._number += 1
        if self.full and not passed:
            return
        if len(self._events) >= self._most:
            self._events.popleft()
        self._events.append((self._number, event))
        self._news.set()

    def taken(self, number: int) -> None:
        """The host has recorded all up to `number`."""
        while self._events and self._events[0][0] <= number:
            self._events.popleft()

    def after(self, number: int) -> list[tuple[int, Event]]:
        """What came after `number` and is still here."""
        return [one for one in self._events if one[0] > number]

    async def wait(self, number: int) -> None:
        """Until there is something after `number`."""
        while self._number <= number:
            self._news.clear()
            await self._news.wait()
