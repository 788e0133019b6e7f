"""The browser's way back to a login in a container: a port of the host's loopback that leads to the same one inside.

Only while the login runs, only for connections from this machine, a few of them, and little on each: what comes is
one redirect of a browser (RFC 8252, 7.3), and the other end is a guest that could send anything.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from msgspec.structs import replace

from coding_agents.errors import UsageError
from coding_agents.proc.runner import Command, streaming

_AT_ONCE = 6  # as many as browsers open to one host
_IN_ALL = 64
_BYTES = 1 << 20  # in each direction of a connection
_CONNECTION_S = 60.0
_CHUNK = 65536


@contextmanager
def forwarding(port: int, dial: Callable[[], Command]) -> Iterator[None]:
    """While the block runs, 127.0.0.1:`port` of the host leads to the standard streams of `dial`'s command.

    Raises UsageError when the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(
                f"port {port} of this host is taken, and the login's answer would come there: {error.strerror}",
                hint="End what listens there (a login that was begun elsewhere?), and try again.",
            ) from error
        listener.listen(_AT_ONCE)
        server = threading.Thread(target=_serve, args=(listener, dial), daemon=True)
        server.start()
        try:
            yield
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            server.join()


def _serve(listener: socket.socket, dial: Callable[[], Command]) -> None:
    free = threading.Semaphore(_AT_ONCE)
    for _ in range(_IN_ALL):
        try:
            connection, _peer = listener.accept()
        except OSError:  # the login has ended
            return
        if not free.acquire(blocking=False):
            connection.close()
            continue
        threading.Thread(target=_carry, args=(connection, dial, free), daemon=True).start()


def _carry(connection: socket.socket, dial: Callable[[], Command], free: threading.Semaphore) -> None:
    try:
        with (
            connection,
            suppress(OSError),
            streaming(replace(dial(), timeout_s=_CONNECTION_S)) as inside,
        ):
            connection.settimeout(_CONNECTION_S)
            asking = threading.Thread(target=_ask, args=(connection, inside.stdin), daemon=True)
            asking.start()
            _answer(inside.stdout, connection)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # ends what waits for more of the browser
            asking.join()
    finally:
        free.release()


def _ask(connection: socket.socket, inside: IO[bytes]) -> None:
    left = _BYTES
    with suppress(OSError):
        while left > 0 and (data := connection.recv(min(_CHUNK, left))):
            left -= len(data)
            inside.write(data)
            inside.flush()


def _answer(inside: IO[bytes], connection: socket.socket) -> None:
    left = _BYTES
    with suppress(OSError):
        while left > 0 and (data := os.read(inside.fileno(), min(_CHUNK, left))):
            left -= len(data)
            connection.sendall(data)
