"""What the supervisor knows of a channel, whatever carries it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from coding_agents_guest.mux import Stream
from coding_agents_guest.wire import Hello

OnStream = Callable[[Stream], Awaitable[None]]


class Channel(Protocol):
    """An open connection to one session's guest; what the guest opens is served by an `OnStream`."""

    @property
    def hello(self) -> Hello:
        """The guest's version and what it read about its container."""

    async def wait_closed(self) -> None:
        """Return when the guest's end is gone. Raises ChannelError when it broke the protocol."""

    def cut(self) -> None:
        """End what carries the channel, so that it closes: its other end is gone, and nothing says so."""

    async def close(self) -> None:
        """End the channel and all that belongs to it. Idempotent; nothing the guest did makes it raise."""
