"""Join a stream of the channel with a git process, within bounds, and never longer than either lives."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import msgspec

from coding_agents.gitsync.pktline import PktlineError, Splitter, error_packet
from coding_agents.policy.decide import Deny
from coding_agents.policy.matrix import Tier
from coding_agents.proc.runner import Command, start

CHUNK = 64 * 1024
_DRAIN_BYTES = 64 << 20
_DRAIN_S = 30.0


class ByteStream(Protocol):
    """One stream of the channel (coding_agents_guest.mux.Stream); a broken one raises OSError."""

    async def read(self, limit: int = ..., /) -> bytes: ...
    async def write(self, data: bytes, /) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def reset(self, reason: str, /) -> None: ...


class GitProcess(msgspec.Struct, frozen=True):
    """A running git service and its pipes."""

    pid: int
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader

    def kill(self) -> None:
        """End it at once, with all that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


@asynccontextmanager
async def running(command: Command) -> AsyncIterator[GitProcess]:
    """A git service; its whole process group is gone when the block is left."""
    process = await start(command, pipe_stderr=False)
    if process.stdin is None or process.stdout is None:
        raise AssertionError("a service needs pipes")
    service = GitProcess(process.pid, process.stdin, process.stdout)
    try:
        yield service
    finally:
        if process.returncode is None:
            service.kill()
        while await process.stdout.read(CHUNK):
            pass  # asyncio's wait() never ends while a full pipe is left unread
        await process.wait()


async def forward_advertisement(process: GitProcess, stream: ByteStream, *, most: int) -> None:
    """Pass on receive-pack's list of refs, of at most `most` bytes, up to its flush packet: there it waits for us.

    Raises PktlineError.
    """
    splitter = Splitter(limit=most)
    while data := await process.stdout.read(CHUNK):
        await stream.write(data)
        splitter.add(data)
        while (packet := splitter.take())[0]:
            if packet[1] is None:
                return
    raise PktlineError("the relay is not available")


class Gate(Protocol):
    """Decides whether bytes of the guest go on to the process (see `gates`)."""

    @property
    def patience_s(self) -> float | None: ...
    async def check(self, data: bytes, /) -> Deny | None: ...


async def splice(stream: ByteStream, process: GitProcess, gate: Gate, *, first: bytes) -> Deny | None:
    """Join stream and process until the process ends: the answer of a `gate` that ended it, else None.

    A guest that is silent for longer than the gate's patience ends it as well.
    """
    async with asyncio.TaskGroup() as group:
        inbound = group.create_task(_inbound(stream, process, gate, first=first))
        await _outbound(process, stream)
        if not inbound.done():
            inbound.cancel()
    return None if inbound.cancelled() else inbound.result()


async def _inbound(stream: ByteStream, process: GitProcess, gate: Gate, *, first: bytes) -> Deny | None:
    data = first
    try:
        while True:
            if refused := await gate.check(data):
                process.kill()
                return refused
            process.stdin.write(data)
            await process.stdin.drain()
            async with asyncio.timeout(gate.patience_s):
                data = await stream.read(CHUNK)
            if not data:
                process.stdin.close()
                return None
    except TimeoutError:  # an OSError, too
        process.kill()
        return Deny("git-protocol", Tier.ASK, f"nothing came for {gate.patience_s:g} s; the work stays here")
    except OSError:  # the process is done with its input, or the guest is gone
        process.stdin.close()
        return None


async def _outbound(process: GitProcess, stream: ByteStream) -> None:
    broken = False
    while data := await process.stdout.read(CHUNK):
        if broken:
            continue  # the guest is gone; what it pushed completely is still carried out
        try:
            await stream.write(data)
        except OSError:
            broken = True


async def refuse_conversation(stream: ByteStream, reason: str) -> None:
    """Answer with git's error packet and end the stream."""
    with suppress(OSError):
        await stream.write(error_packet(reason))
        await finish_reading(stream)
    stream.close()


async def finish_reading(stream: ByteStream, *, most: int = _DRAIN_BYTES) -> None:
    """Let the client send what it is sending, `most` bytes of it, so that it gets to read our answer."""
    stream.write_eof()
    left = most
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            while left > 0 and (data := await stream.read(CHUNK)):
                left -= len(data)
