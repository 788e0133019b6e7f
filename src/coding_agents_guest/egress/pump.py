"""Carries bytes between two sockets, many inside the kernel (splice(2)), counts them, stops when it is told to."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
from collections.abc import Callable
from contextlib import suppress

_SMALL = 16 * 1024
_PIECE = 256 * 1024
_PAGE = 4096  # the smallest pipe holds so much
_PIPE_SIZE = 1031  # F_SETPIPE_SZ of fcntl.h; the module has it since Python 3.10
_FLAGS = 0x01 | 0x02  # SPLICE_F_MOVE, SPLICE_F_NONBLOCK

OnBytes = Callable[[int], None]
"""Is told how many bytes are about to go on; raises OSError to stop them."""


async def carry(source: socket.socket, target: socket.socket, on_bytes: OnBytes) -> None:
    """Carry what comes from `source` to `target` until its end, which is passed on. Raises OSError.

    Both are non-blocking stream sockets, and each may be carried the other way at the same time. What comes in small
    pieces, as most does, goes through our hands: that takes less time than to make a pipe.
    """
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _SMALL):
        on_bytes(len(data))
        await loop.sock_sendall(target, data)
        if len(data) == _SMALL:
            await _carry_much(source, target, on_bytes)
            break
    try:
        target.shutdown(socket.SHUT_WR)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise


async def _carry_much(source: socket.socket, target: socket.socket, on_bytes: OnBytes) -> None:
    out, into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a user may have so many pages of pipes; a smaller pipe is only slower
            fcntl.fcntl(into, _PIPE_SIZE, _PIECE)
        while waiting := await _filled(source, into):
            on_bytes(waiting)
            while waiting:
                waiting -= await _emptied(out, target, waiting)
    finally:
        os.close(out)
        os.close(into)


async def _filled(source: socket.socket, into: int) -> int:
    """Move what has come from `source` into the empty pipe; 0 at the end."""
    while True:
        with suppress(BlockingIOError):
            return os.splice(source.fileno(), into, _PIECE, flags=_FLAGS)
        await _ready(source, read=True)
        with suppress(BlockingIOError):
            return os.splice(source.fileno(), into, _PIECE, flags=_FLAGS)
        # TCP's urgent mark: tcp_read_sock of the kernel stops in front of it for ever, recv(2) goes past it
        with suppress(BlockingIOError):
            return os.write(into, piece) if (piece := source.recv(_PAGE)) else 0


async def _emptied(out: int, target: socket.socket, most: int) -> int:
    """Move up to `most` bytes out of the pipe to `target`."""
    while True:
        with suppress(BlockingIOError):
            return os.splice(out, target.fileno(), most, flags=_FLAGS)
        await _ready(target, read=False)


async def _ready(one: socket.socket, *, read: bool) -> None:
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
