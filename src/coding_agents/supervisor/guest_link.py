"""The supervisor's end of one channel: which streams the guest may open, and what its entry point reports.

A link belongs to one start of one container. The gate is here: the guest's entry point waits for `Go`, and
`open_gate` is the only place that sends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from coding_agents.channel.api import Channel
from coding_agents.channel.exec_channel import open_channel
from coding_agents.errors import ChannelError, GuestError
from coding_agents.proc.runner import Command
from coding_agents_guest.events import (
    MAX_LINE,
    Autosave,
    Autosaved,
    Event,
    Exit,
    Failed,
    Go,
    GuestConfig,
    Order,
    Ready,
    Running,
    Salvaged,
    Saved,
    Step,
    encode_event,
    parse_event,
)
from coding_agents_guest.mux import Stream
from coding_agents_guest.wire import WireError

GUEST_UID = 1000
# The guest retries at most every 50 ms; a slow machine under load needs the rest.
_READY_TIMEOUT_S = 30.0
# A .NET preview download is the longest step of the start sequence.
_RUNNING_TIMEOUT_S = 900.0
# Commit and push of a large work tree; the same budget as the engine's stop timeout.
_SAVE_TIMEOUT_S = 120.0
# After our restart the guest looks for us every second.
_CONNECT_TIMEOUT_S = 10.0

Service = Callable[[Stream], Awaitable[None]]

_NOT_CONNECTED = "the guest's entry point is not connected"


class OnReport(Protocol):
    """Is told of every report of the guest, in order, before anybody who waits for it."""

    def __call__(self, report: Event, /) -> None: ...


class GuestLink:
    """A channel with its events. `services` are the other streams that the guest may open, by name."""

    def __init__(self, services: dict[str, Service], on_report: OnReport) -> None:
        self._services = services
        self._on_report = on_report
        self._changed = asyncio.Condition()
        self._channel: Channel | None = None
        self._events: Stream | None = None
        self._end: asyncio.Task[None] | None = None
        self.ready = False
        self.running = False
        self.failed: Failed | None = None
        self.saved: Saved | None = None
        self.autosaved: Autosaved | None = None
        self.autosaves = 0
        self.salvaged: Salvaged | None = None
        self.exit_status: int | None = None
        self.closed = False

    async def open(self, command: Command) -> dict[str, object]:
        """Open the channel by `command`; returns the facts that its bridge has read. Raises ChannelError."""
        self._channel = await open_channel(command, on_stream=self._on_stream)
        self._end = asyncio.create_task(self.until_closed())  # so that nobody waits for a guest that is gone
        return dict(self._channel.hello.facts)

    async def open_gate(self, config: GuestConfig) -> None:
        """Let the guest begin, and wait until its command runs.

        Raises ChannelError when it does not reach the gate, GuestError with the failed step.
        """
        await self._let_go(config)
        await self._until(
            lambda: self.running or self.failed is not None or self.exit_status is not None,
            _RUNNING_TIMEOUT_S,
            "the guest's start sequence did not finish",
        )
        if self.failed is not None and not self.running:
            raise GuestError(
                f"the start sequence failed in the container at step {self.failed.step!r}",
                details=self.failed.message,
                hint="Run the launch with --trace, and see `coding-agents logs`.",
            )

    async def autosave(self, *, branch: bool = False) -> Autosaved:
        """Ask the guest to save without moving anything, once it is connected; returns what it says.

        `branch` asks for its commits on the session's branch, too. One at a time.
        """
        await self._until(lambda: self._events is not None, _CONNECT_TIMEOUT_S, _NOT_CONNECTED)
        before = self.autosaves
        await self._send(Autosave(branch))
        await self._until(
            lambda: self.autosaves > before, _SAVE_TIMEOUT_S, "the guest did not answer an automatic save"
        )
        if self.autosaved is None:
            raise AssertionError("a counted save without its report")
        return self.autosaved

    async def until_salvaged(self, config: GuestConfig, timeout_s: float) -> Salvaged:
        """Start a salvage container's work and wait for its result."""
        await self._let_go(config)
        await self._until(
            lambda: self.salvaged is not None or self.failed is not None,
            timeout_s,
            "the salvage did not finish",
        )
        if self.salvaged is None:
            raise GuestError("the salvage failed", details=self.failed.message if self.failed else "")
        return self.salvaged

    async def until_closed(self) -> None:
        """Wait for the end of the channel, which is the end of the container (or of the exec)."""
        if self._channel is not None:
            await self._channel.wait_closed()
        await self._set_closed()

    def cut(self) -> None:
        """Let the channel close whose container has ended without its noticing."""
        if self._channel is not None:
            self._channel.cut()

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
        if self._end is not None:
            await self._end
        await self._set_closed()

    async def _set_closed(self) -> None:
        async with self._changed:
            self.closed = True
            self._changed.notify_all()

    async def _let_go(self, config: GuestConfig) -> None:
        await self._until(lambda: self.ready, _READY_TIMEOUT_S, "the guest did not reach the gate")
        await self._send(Go(config))

    async def _send(self, order: Order) -> None:
        if self._events is None or self.closed:
            raise ChannelError(_NOT_CONNECTED)
        try:
            await self._events.write(encode_event(order))
        except (ConnectionError, WireError) as error:
            raise ChannelError("the guest's entry point went away", details=str(error)) from error

    async def _until(self, condition: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        def done() -> bool:
            return condition() or self.closed

        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(done)
        except TimeoutError:
            raise ChannelError(otherwise, details=f"waited {timeout_s:.0f} s") from None
        if not condition():
            raise ChannelError(otherwise, details="the container ended")

    async def _on_stream(self, stream: Stream) -> None:
        if stream.service == "events":
            await self._read_events(stream)
        elif stream.service in self._services:
            await self._services[stream.service](stream)
        else:
            stream.reset("no such service")

    async def _read_events(self, stream: Stream) -> None:
        if self._events is not None or stream.peer_uid != GUEST_UID:
            stream.reset("events belong to the entry point")
            return
        self._events = stream
        try:
            async with self._changed:
                self._changed.notify_all()
            async for line in lines(stream, MAX_LINE):
                await self._take(parse_event(line))
        except (ConnectionError, WireError):
            stream.reset("malformed event")
        finally:
            self._events = None

    async def _take(self, report: Event) -> None:
        self._on_report(report)
        async with self._changed:
            match report:
                case Ready():
                    self.ready = True
                case Running():
                    self.ready = self.running = True
                case Failed():
                    self.failed = report
                case Saved():
                    self.saved = report
                case Autosaved():
                    self.autosaved = report
                    self.autosaves += 1
                case Salvaged():
                    self.salvaged = report
                case Exit(status=status):
                    self.exit_status = status
                case Step():
                    pass
                case Go() | Autosave():
                    raise WireError("an order from the guest")
            self._changed.notify_all()


async def lines(stream: Stream, limit: int) -> AsyncIterator[bytes]:
    """The lines of a stream as they come, without their ends. Raises WireError for one of more than `limit` bytes."""
    buffer = bytearray()
    while chunk := await stream.read():
        buffer += chunk
        while (end := buffer.find(b"\n")) >= 0:
            yield bytes(buffer[:end])
            del buffer[: end + 1]
        if len(buffer) > limit:
            raise WireError("line too long")
