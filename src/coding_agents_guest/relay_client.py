"""`git-relay`: git's `core.gitProxy` program, which carries git's connection to the relay.

git runs it instead of opening a TCP connection for `git://coding-agents/…` and appends host and port, which
mean nothing here. No asyncio: it starts anew with every fetch and push.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

# Not from `paths`: pathlib alone takes as long to load as all of this.
_RELAY_SOCKET = "/run/coding-agents/relay.sock"
_CHUNK = 64 * 1024


def main(_arguments: Sequence[str]) -> int:
    """Carry bytes until the relay ends. Returns an exit status."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as relay:
        try:
            relay.connect(_RELAY_SOCKET)
        except OSError as error:
            print(f"git-relay: the relay is not reachable: {error.strerror}", file=sys.stderr)
            return 1
        splice(relay, 0, 1)
    return 0


def splice(connection: socket.socket, incoming: int, outgoing: int) -> None:
    """Carry `incoming` to `connection` and its answer to `outgoing`, until the other end of it has no more.

    The end of `incoming` is passed on as a half close. A reader of `outgoing` that goes away ends it too.
    """
    # A daemon: when the relay has ended, nobody wants what may still come in, and reads cannot be broken off.
    threading.Thread(target=_send, args=(incoming, connection), daemon=True).start()
    with suppress(ConnectionError):
        while data := connection.recv(_CHUNK):
            _write_all(outgoing, data)


def _send(incoming: int, connection: socket.socket) -> None:
    with suppress(OSError):  # the relay's end is seen and told by the other direction
        while data := os.read(incoming, _CHUNK):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
