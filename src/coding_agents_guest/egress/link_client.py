"""Run in the proxy's container by the host: carries the host's lines to the proxy and the proxy's to the host."""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from collections.abc import Sequence

from coding_agents_guest.egress.paths import LINK

_CHUNK = 64 * 1024
_INPUT, _OUTPUT = 0, 1
_STARTS_S, _AGAIN_S = 5.0, 0.01


def main(_arguments: Sequence[str]) -> int:
    """Until either end is closed; 1 with a line on standard error when there is no proxy."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as proxy:
            _connect(proxy)
            _carry(proxy)
    except OSError as error:
        print(f"link: {error}", file=sys.stderr)
        return 1
    return 0


def _connect(proxy: socket.socket) -> None:
    """The proxy of a container that was just started is not there yet. Raises OSError."""
    deadline = time.monotonic() + _STARTS_S
    while True:
        try:
            proxy.connect(str(LINK))
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_S)
        else:
            return


def _carry(proxy: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(_INPUT, selectors.EVENT_READ)
        selector.register(proxy, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is proxy:
                    if not (data := proxy.recv(_CHUNK)):
                        return
                    _write_all(data)
                else:
                    if not (data := os.read(_INPUT, _CHUNK)):
                        return
                    proxy.sendall(data)


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(_OUTPUT, view) :]
