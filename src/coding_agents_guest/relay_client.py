"""`git-relay`: git's `core.gitProxy` program, which carries git's connection to the relay.

git runs it instead of opening a TCP connection for `git://coding-agents/…` and appends host and port, which mean
nothing here. It starts anew with every fetch and push: `socket`, `threading` and `contextlib` take twice as long to
load as all the rest, so it does with what they are made of.
"""

from __future__ import annotations

import _socket
import _thread
import os
import sys

_RELAY_SOCKET = "/run/coding-agents/relay.sock"
_CHUNK = 64 * 1024


def main(path: str = _RELAY_SOCKET) -> int:
    """Carry bytes between our standard streams and the socket at `path` until the relay ends: an exit status."""
    relay = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        relay.connect(path)
    except OSError as error:
        print(f"git-relay: the relay is not reachable: {error.strerror}", file=sys.stderr)
        relay.close()
        return 1
    splice(relay, 0, 1)
    return 0


def splice(connection: _socket.socket, incoming: int, outgoing: int) -> None:
    """Carry `incoming` to `connection` and its answer to `outgoing`, until the other end of it has no more.

    The end of `incoming` is passed on as a half close. A reader of `outgoing` that goes away ends it too.
    """
    # Nobody waits for this thread: when the relay has ended, nobody wants what may still come in, and reads cannot
    # be broken off.
    _thread.start_new_thread(_send, (incoming, connection))
    try:
        while data := connection.recv(_CHUNK):
            _write_all(outgoing, data)
    except ConnectionError:
        pass


def _send(incoming: int, connection: _socket.socket) -> None:
    try:
        while data := os.read(incoming, _CHUNK):
            connection.sendall(data)
        connection.shutdown(_socket.SHUT_WR)
    except OSError:
        pass  # the relay's end is seen and told by the other direction


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
