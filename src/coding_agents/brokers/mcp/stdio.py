"""One run of an MCP server that holds a secret: a process of the engine's client on one side, the guest on the other.

Both are hostile to some degree: the guest sends what it likes as fast as it likes, and the server may be made to give
its secret away. Nothing is held but one piece in each direction; what is not taken stops who sends it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from coding_agents.brokers.model.keyscan import KeyScanner, ReflectedError
from coding_agents.proc.runner import Command, kill_group, start

_CHUNK = 64 * 1024
_MIB = 1 << 20
_MAX_ANSWER = 1024
STARTED = "started"
"""The guest's first line when the server runs; any other says why it does not."""


class ByteStream(Protocol):
    """The guest's end, as `coding_agents_guest.mux.Stream`."""

    async def read(self, limit: int = ..., /) -> bytes: ...
    async def write(self, data: bytes, /) -> None: ...
    def write_eof(self) -> None: ...
    def reset(self, reason: str, /) -> None: ...


class StdioLimits(msgspec.Struct, frozen=True):
    """Bounds of one run: bytes to and from the server, seconds until it is started, and for its end."""

    in_bytes: int = 256 * _MIB
    out_bytes: int = 1024 * _MIB
    start_s: float = 30.0
    end_s: float = 8.0


class NotStartedError(Exception):
    """The server was not started; the message is the guest's own program's."""


class BrokenOffError(Exception):
    """The run was ended by neither side; the message says why."""


class SecretBackError(BrokenOffError):
    """The bytes of a secret were on their way to the guest."""


class StdioRun:
    """A started server. Made by `start_server`; `carry` is called once, and `close` in any case."""

    def __init__(
        self, process: asyncio.subprocess.Process, secrets: Iterable[str], limits: StdioLimits
    ) -> None:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("started with pipes")
        self._process, self._in, self._out = process, process.stdin, process.stdout
        self._scanner = KeyScanner(form for secret in secrets for form in written_forms(secret))
        self._limits = limits
        self.received = self.sent = 0

    @property
    def status(self) -> int | None:
        """The exit status of the server, once it has ended."""
        return self._process.returncode

    async def order(self, argv: Sequence[str], env: Mapping[str, str], directory: str) -> None:
        """Say what to run and wait until it does. Raises NotStartedError."""
        body = json.dumps({"argv": list(argv), "env": dict(env), "directory": directory}).encode()
        try:
            async with asyncio.timeout(self._limits.start_s):
                with suppress(OSError):  # who refuses it may not read it, and says why
                    self._in.write(len(body).to_bytes(4, "big") + body)
                    await self._in.drain()
                answer = await self._out.readuntil(b"\n")
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise NotStartedError("the container did not start it") from None
        text = answer[:_MAX_ANSWER].decode("utf-8", "replace").strip()
        if text != STARTED:
            raise NotStartedError(text)

    async def carry(self, stream: ByteStream) -> None:
        """Carry both ways until one side has ended. Raises BrokenOffError when neither of them ended it."""
        inwards = asyncio.ensure_future(self._to_server(stream))
        outwards = asyncio.ensure_future(self._to_guest(stream))
        try:
            await asyncio.wait((inwards, outwards), return_when=asyncio.FIRST_COMPLETED)
            if inwards.done() and inwards.exception() is None:  # the server may still have its last words
                await asyncio.wait((outwards,), timeout=self._limits.end_s)
        finally:
            for way in (inwards, outwards):
                way.cancel()
            ended = await asyncio.gather(inwards, outwards, return_exceptions=True)
        for one in ended:
            if isinstance(one, Exception) and not isinstance(one, ConnectionError):
                raise one

    async def close(self) -> None:
        """End the server and wait for that, for a bounded time: in the container it ends with its input."""
        if self._in.transport.get_write_buffer_size():
            self._in.transport.abort()  # what a deaf server has not taken must not keep its input open
        self._in.close()
        try:
            async with asyncio.timeout(self._limits.end_s):
                while await self._out.read(_CHUNK):
                    pass
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            if self._process.returncode is None:
                kill_group(self._process.pid)
                while await self._out.read(_CHUNK):
                    pass
                await self._process.wait()

    async def _to_server(self, stream: ByteStream) -> None:
        while data := await stream.read(_CHUNK):
            self.received += len(data)
            if self.received > self._limits.in_bytes:
                raise BrokenOffError(f"the agent sent more than {self._limits.in_bytes} bytes")
            try:
                self._in.write(data)
                await self._in.drain()
            except OSError:  # it listens no more; what it still says is carried
                return
        self._in.close()

    async def _to_guest(self, stream: ByteStream) -> None:
        while data := await self._out.read(_CHUNK):
            self.sent += len(data)
            if self.sent > self._limits.out_bytes:
                raise BrokenOffError(f"the server sent more than {self._limits.out_bytes} bytes")
            try:
                passing = self._scanner.feed(data)
            except ReflectedError:
                raise SecretBackError("the server was about to send its secret") from None
            if passing:
                await stream.write(passing)
        if rest := self._scanner.finish():
            await stream.write(rest)
        stream.write_eof()


async def start_server(command: Command, secrets: Iterable[str], limits: StdioLimits) -> StdioRun:
    """Start the engine's client by `command`; the run waits for its order. Raises ProgramNotFoundError."""
    return StdioRun(await start(command, pipe_stderr=False), secrets, limits)


def written_forms(secret: str) -> set[str]:
    """`secret` as it is, and as JSON writes it in a text."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    }
