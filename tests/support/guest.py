"""The guest's program and both ends of a channel, for tests."""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from coding_agents.channel.pyz import build_guest_pyz
from coding_agents.proc.runner import Command
from coding_agents_guest.mux import Mux, OnOpen, Stream
from coding_agents_guest.wire import PROTOCOL, Hello

HELLO = Hello(PROTOCOL, "0.1.0", {"kernel": "6.18"})
# What guest programs need to run on the host: no variable of ours, a short PATH.
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name (108 bytes, unix(7))."""
    with tempfile.TemporaryDirectory(prefix="ca-") as name:
        yield Path(name)


def guest_program(directory: Path) -> Path:
    """guest.pyz, written to `directory`."""
    program = directory / "guest.pyz"
    program.write_bytes(build_guest_pyz())
    return program


def guest_argv(program: Path, *arguments: str) -> tuple[str, ...]:
    """`arguments` run by the guest's program as in a container: isolated, without site-packages."""
    return (sys.executable, "-IS", str(program), *arguments)


def bridge_command(program: Path, sockets: Path, *more: str) -> Command:
    """The bridge, on this host, with its sockets in `sockets`."""
    return Command(guest_argv(program, "bridge", "--directory", str(sockets), *more), env=ENV)


async def refuse(stream: Stream) -> None:
    """An `on_open` for an end that nothing should open a stream to."""
    raise AssertionError(f"unexpected stream {stream.service}")


async def echo(stream: Stream) -> None:
    """An `on_open` that sends back what it gets."""
    while data := await stream.read():
        await stream.write(data)


Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def pipes() -> AsyncIterator[tuple[Pipe, Pipe]]:
    """Two connected ends of a byte stream, closed after the block."""
    left, right = socket.socketpair()
    ends = (await asyncio.open_connection(sock=left), await asyncio.open_connection(sock=right))
    try:
        yield ends
    finally:
        for _, writer in ends:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for _, writer in ends), return_exceptions=True)


@asynccontextmanager
async def mux_pair(*, on_host_open: OnOpen, on_guest_open: OnOpen = refuse) -> AsyncIterator[tuple[Mux, Mux]]:
    """A guest's and a host's mux, connected and running; both have ended after the block."""
    async with pipes() as (guest_end, host_end):
        guest = Mux(*guest_end, on_open=on_guest_open, hello=HELLO)
        host = Mux(*host_end, on_open=on_host_open)
        running = [asyncio.ensure_future(guest.run()), asyncio.ensure_future(host.run())]
        try:
            await host.hello()
            yield guest, host
        finally:
            guest.close()
            host.close()
            await asyncio.gather(*running)
