"""Reading heads from sockets, and carrying bytes both ways, with bounds of time and size."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

from coding_agents_guest.egress.clienthello import ClientFlight
from coding_agents_guest.egress.heads import HeadError, end_of_head
from coding_agents_guest.egress.pump import OnBytes, carry

_CHUNK = 64 * 1024
_HEAD_S = 30.0
_LINGER_S = 1.0


async def first_bytes(one: socket.socket) -> bytes:
    """What comes first, as many bytes as tell a CONNECT; b"" at the end. Raises OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    data = b""
    async with asyncio.timeout(_HEAD_S):
        while len(data) < 8:
            more = await loop.sock_recv(one, _CHUNK)
            if not more:
                return data
            data += more
    return data


async def whole_head(one: socket.socket, data: bytes) -> tuple[bytes, bytes]:
    """The head that begins with `data`, and what came after it. Raises HeadError, OSError."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_HEAD_S):
            while not (end := end_of_head(data)):
                more = await loop.sock_recv(one, _CHUNK)
                if not more:
                    raise HeadError("the request broke off")
                data += more
    except TimeoutError:
        raise HeadError("the request did not arrive in time") from None
    return data[:end], data[end:]


async def carry_watched(
    source: socket.socket, target: socket.socket, on_bytes: OnBytes, flight: ClientFlight
) -> None:
    """`carry`, of which the part that a TLS client does not encrypt is read first. Raises HelloError, OSError."""
    loop = asyncio.get_running_loop()
    while not flight.over:
        data = await loop.sock_recv(source, _CHUNK)
        if not data:
            break  # its end is passed on by `carry`
        flight.feed(data)
        on_bytes(len(data))
        await loop.sock_sendall(target, data)
    await carry(source, target, on_bytes)


async def both(one: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> None:
    """Both ways of a connection, until each has ended. When one fails so does the other. Raises its OSError."""
    tasks = [asyncio.ensure_future(way) for way in (one, other)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def say_last(one: socket.socket, answer: bytes) -> None:
    """Send a last answer and close our half; what was not read yet would turn it into a reset."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LINGER_S):
            await loop.sock_sendall(one, answer)
            one.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(one, _CHUNK):
                pass
    except (OSError, TimeoutError):
        pass


def uncounted(_size: int) -> None:
    """For bytes that are counted elsewhere."""
