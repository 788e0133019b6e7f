"""The channel carried by the standard streams of one `ENGINE exec -i … bridge` process.

Needs no path, port or uid of the host, works with every engine that can exec, and ends with the container.
Everything that comes out of the process is the guest's: frames are bounded by the mux, standard error is kept
in part only and made printable before a person sees it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from coding_agents.channel.api import Channel, OnStream
from coding_agents.errors import ChannelError
from coding_agents.proc.runner import Command, kill_group, start
from coding_agents_guest.mux import Mux
from coding_agents_guest.wire import Hello, WireError

_STDERR_LIMIT = 16 * 1024
HELLO_S = 45.0  # a Python that starts, on a slow machine, in a container with half a processor
_END_TIMEOUT_S = 5.0


async def open_channel(command: Command, *, on_stream: OnStream, hello_timeout_s: float = HELLO_S) -> Channel:
    """Start `command` and wait for the guest's hello; `on_stream` then serves each stream the guest opens.

    The caller closes the channel. Raises ChannelError with the command's standard error when there is no
    acceptable hello in time, ProgramNotFoundError when the engine's program is missing.
    """
    channel = ExecChannel(command, await start(command), on_stream)
    try:
        await channel.greet(hello_timeout_s)
    except BaseException:
        await channel.close()
        raise
    return channel


class ExecChannel:
    """A channel over `process`; use `open_channel`."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process, on_stream: OnStream) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise AssertionError("the channel needs all three pipes")
        self._command = command
        self._process = process
        self._stdout = process.stdout
        self._mux = Mux(process.stdout, process.stdin, on_open=on_stream)
        self._stderr = bytearray()
        self._running = asyncio.ensure_future(self._mux.run())
        self._listening = asyncio.ensure_future(self._keep_stderr(process.stderr))
        self._hello: Hello | None = None

    @property
    def hello(self) -> Hello:
        """The guest's hello."""
        if self._hello is None:
            raise AssertionError("not greeted yet")
        return self._hello

    async def greet(self, timeout_s: float) -> None:
        """Wait for the hello. Raises ChannelError."""
        try:
            async with asyncio.timeout(timeout_s):
                self._hello = await self._mux.hello()
        except TimeoutError:
            raise await self._failure(f"the guest did not answer within {timeout_s:g} s") from None
        except WireError as error:
            await self.close()
            broken = self._running.exception()
            raise await self._failure(str(broken or error)) from broken

    async def wait_closed(self) -> None:
        """Return when the guest's end is gone. Raises ChannelError when it broke the protocol."""
        try:
            await asyncio.shield(self._running)
        except WireError as error:
            raise await self._failure(f"the guest broke the protocol: {error}") from error

    def cut(self) -> None:
        """Kill the process; who waits for the end of the channel sees it."""
        if self._process.returncode is None:
            kill_group(self._process.pid)

    async def close(self) -> None:
        """End the streams, the process and its reader tasks. A process that does not end is killed."""
        self._mux.close()
        try:
            with suppress(WireError):
                await self._running
            async with asyncio.timeout(_END_TIMEOUT_S):
                await self._drain()
        except TimeoutError:
            pass
        finally:
            if self._process.returncode is None:
                kill_group(self._process.pid)
                await self._drain()
            await self._listening

    async def _failure(self, message: str) -> ChannelError:
        await self.close()
        shown = _printable(self._stderr)
        return ChannelError(message, details=f"{self._command.shown()}\n{shown}".rstrip())

    async def _drain(self) -> None:
        """Wait for the end of the process; asyncio only sees it after the end of its output."""
        while await self._stdout.read(1 << 16):
            pass
        await self._process.wait()

    async def _keep_stderr(self, stderr: asyncio.StreamReader) -> None:
        while data := await stderr.read(1 << 14):
            self._stderr += data
            del self._stderr[:-_STDERR_LIMIT]


def _printable(output: bytes | bytearray) -> str:
    """`output` as text without terminal control characters."""
    text = output.decode("utf-8", "replace")
    return "".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text)
