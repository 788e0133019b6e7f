"""Carries bytes between two sockets inside the kernel (splice(2)), counts them, and stops when it is told to."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
from collections.abc import Callable
from contextlib import suppress

_PIECE = 256 * 1024
_PIPE_SIZE = 1031  # F_SETPIPE_SZ of fcntl.h; the module has it since Python 3.10
_FLAGS = 0x01 | 0x02  # SPLICE_F_MOVE, SPLICE_F_NONBLOCK

OnBytes = Callable[[int], None]
"""Is told how many bytes are about to go on; raises OSError to stop them."""


async def carry(source: socket.socket, target: socket.socket, on_bytes: OnBytes) -> None:
    """Carry what comes from `source` to `target` until its end, which is passed on. Raises OSError.

    Both are non-blocking stream sockets, and each may be carried the other way at the same time.
    """
    out, into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a user may have so many pages of pipes; a smaller pipe is only slower
            fcntl.fcntl(into, _PIPE_SIZE, _PIECE)
        while waiting := await _moved(source, into, readable=source):
            on_bytes(waiting)
            while waiting:
                waiting -= await _moved(out, target, writable=target, most=waiting)
        try:
            target.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
    finally:
        os.close(out)
        os.close(into)


async def _moved(
    source: socket.socket | int,
    target: socket.socket | int,
    *,
    readable: socket.socket | None = None,
    writable: socket.socket | None = None,
    most: int = _PIECE,
) -> int:
    """Move up to `most` bytes once the socket is ready; 0 at the end."""
    while True:
        try:
            return os.splice(_number(source), _number(target), most, flags=_FLAGS)
        except BlockingIOError:
            await (_ready(readable, read=True) if readable is not None else _ready(writable, read=False))


def _number(one: socket.socket | int) -> int:
    return one if isinstance(one, int) else one.fileno()


async def _ready(one: socket.socket | None, *, read: bool) -> None:
    if one is None:
        raise AssertionError("one of the two ends is a socket")
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_reader, loop.remove_reader) if read else (loop.add_writer, loop.remove_writer)
    add(one, _set, done)
    try:
        await done
    finally:
        if one.fileno() >= 0:
            remove(one)


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
