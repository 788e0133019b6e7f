"""The browser's way back to a login in a container, with the guest's own program and a real listener inside of it."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from coding_agents.app.callback import forwarding
from coding_agents.errors import UsageError
from coding_agents.proc.runner import Command
from support.product import ROOT

REQUEST = b"GET /callback?code=abc HTTP/1.1\r\nhost: localhost\r\n\r\n"


@contextmanager
def listening(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A login's server: takes connections, keeps what each sends first, answers, closes."""
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    got.append(connection.recv(65536))
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], got
        server.shutdown(socket.SHUT_RDWR)


def dialling(port: int) -> Command:
    argv = (sys.executable, "-m", "coding_agents_guest", "dial", str(port))
    return Command(argv, {"PYTHONPATH": str(ROOT / "src"), "PATH": os.environ["PATH"]})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def asked(port: int, *, half_close: bool = False) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as browser:
        browser.sendall(REQUEST)
        if half_close:
            browser.shutdown(socket.SHUT_WR)
        data = b""
        while piece := browser.recv(65536):
            data += piece
    return data


def test_request_and_answer_pass_whichever_end_closes_first() -> None:
    port = free_port()
    with (
        listening(b"HTTP/1.1 200 OK\r\n\r\nwelcome") as (inside, got),
        forwarding(port, lambda: dialling(inside)),
    ):
        assert asked(port) == b"HTTP/1.1 200 OK\r\n\r\nwelcome"
        assert asked(port, half_close=True).endswith(b"welcome")
    assert got == [REQUEST, REQUEST]


def test_a_guest_that_floods_is_cut_off() -> None:
    port = free_port()
    with listening(b"x" * (3 << 20)) as (inside, _), forwarding(port, lambda: dialling(inside)):
        assert len(asked(port)) == 1 << 20


def test_it_ends_with_the_login_even_when_a_browser_stays() -> None:
    port = free_port()
    with listening(b"") as (inside, _):
        with forwarding(port, lambda: dialling(inside)):
            browser = socket.create_connection(("127.0.0.1", port))
            began = time.monotonic()
        assert time.monotonic() - began < 5
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        browser.close()


def test_no_more_than_a_few_connections_at_once() -> None:
    port = free_port()
    with listening(b"") as (inside, _), forwarding(port, lambda: dialling(inside)):
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
        with socket.create_connection(("127.0.0.1", port), timeout=20) as one_more:
            assert one_more.recv(1) == b""
        for one in idle:
            one.close()


def test_it_listens_on_the_loopback_alone_and_says_when_the_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(UsageError, match=f"port {port} of this host is taken"),
            forwarding(port, lambda: dialling(1)),
        ):
            pass
    port = free_port()
    with forwarding(port, lambda: dialling(1)), socket.create_server(("127.0.0.2", port)):
        pass  # every other address of this host is free, so nobody but this host is served
