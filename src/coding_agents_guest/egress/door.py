"""How the proxy comes to listen where the agent is, who has no interface but loopback.

A listening socket belongs to the network namespace in which it was made, whoever accepts from it. The agent's side of
the channel (user 1002) makes one on 127.0.0.1 and hands it over through a Unix socket in a volume that both containers
mount; the proxy accepts from it, and from nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.egress.paths import PROXY_PORT

_VISIT = b"1"
_PAUSE_S = 0.5


def receive_listener(visitor: socket.socket) -> socket.socket | None:
    """The listening socket that a visitor hands over, None when there is no such thing. Raises OSError.

    Whatever else is handed over is closed.
    """
    _, handed, _, _ = socket.recv_fds(visitor, 1, 4)
    fit: socket.socket | None = None
    for number in handed:
        one = _as_socket(number)
        if one is not None and fit is None and _is_listener(one):
            fit = one
        elif one is not None:
            one.close()
    return fit


def _as_socket(number: int) -> socket.socket | None:
    """The socket that a descriptor is; one that is none is closed."""
    try:
        return socket.socket(fileno=number)
    except OSError:
        os.close(number)
        return None


def _is_listener(one: socket.socket) -> bool:
    with suppress(OSError):
        return (
            one.family == socket.AF_INET
            and one.type == socket.SOCK_STREAM
            and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            and one.getsockname() == ("127.0.0.1", PROXY_PORT)
        )
    return False


class Doorkeeper:
    """The agent's side: sees to it that the proxy has the listening socket, also one that was started anew."""

    def __init__(self, door: Path) -> None:
        self._door = door
        self._listener: socket.socket | None = None

    async def keep(self) -> None:
        """Until cancelled. Who asks before the proxy is there waits for it, and is not refused."""
        try:
            with suppress(OSError):
                self._listen()
            while True:
                with suppress(OSError):
                    await self._visit()
                await asyncio.sleep(_PAUSE_S)
        finally:
            if self._listener is not None:
                self._listener.close()

    async def _visit(self) -> None:
        """Hand the socket over, and stay for as long as the proxy is there."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as proxy:
            proxy.setblocking(False)
            await loop.sock_connect(proxy, os.fspath(self._door))
            listener = self._listen()
            handed = [] if listener is None else [listener.fileno()]
            socket.send_fds(proxy, [_VISIT], handed)
            await loop.sock_recv(proxy, 1)  # its end

    def _listen(self) -> socket.socket | None:
        """Our listening socket; None when the port is taken, as by the one that the proxy has from before us."""
        if self._listener is None:
            one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind(("127.0.0.1", PROXY_PORT))
                one.listen(256)
            except OSError as error:
                one.close()
                if error.errno != errno.EADDRINUSE:
                    raise
                return None
            self._listener = one
        return self._listener
