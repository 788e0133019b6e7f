"""How the proxy comes to listen where the agent is: what it takes from whom hands something over, and when anew."""

from __future__ import annotations

import array
import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from coding_agents_guest.egress import door, program, serving
from coding_agents_guest.egress.door import Doorkeeper, receive_listener
from support.egress import uid_of
from support.guest import short_directory


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Short: sockets stand in it, whose paths have 107 bytes."""
    with short_directory() as directory:
        yield directory


@pytest.fixture(autouse=True)
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A free one in the place of the fixed one."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        free: int = one.getsockname()[1]
    monkeypatch.setattr(door, "PROXY_PORT", free)
    monkeypatch.setattr(serving, "peer_uid", uid_of)
    return free


def listening(port: int, address: str = "127.0.0.1") -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((address, port))
    one.listen()
    return one


def handed(*numbers: int, data: bytes = b"1") -> socket.socket | None:
    """What is taken of these descriptors; whatever else arrived must be closed again."""
    here, there = socket.socketpair()
    with here, there:
        before = descriptors()
        if numbers or data:
            there.sendmsg(
                [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))] if numbers else []
            )
        there.shutdown(socket.SHUT_WR)
        found = receive_listener(here)
        assert len(descriptors()) == len(before) + (found is not None)
    return found


def descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_a_listening_socket_at_the_one_address_is_taken(port: int) -> None:
    with listening(port) as one, handed(one.fileno()) or pytest.fail("refused") as taken:
        assert taken.getsockname() == ("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)):
            taken.accept()[0].close()


@pytest.fixture
def wrong(port: int, tmp_path: Path) -> Iterator[dict[str, int]]:
    """Descriptors of other kinds."""
    with ExitStack() as stack:
        out, into = os.pipe()
        stack.callback(os.close, out)
        stack.callback(os.close, into)
        file = stack.enter_context((tmp_path / "x").open("wb"))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        bound = stack.enter_context(socket.socket())
        bound.bind(("127.0.0.1", 0))
        other = stack.enter_context(listening(0))
        everywhere = stack.enter_context(listening(port, "0.0.0.0"))
        six = stack.enter_context(socket.socket(socket.AF_INET6))
        six.bind(("::1", port))
        six.listen()
        datagrams = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        datagrams.bind(("127.0.0.1", port))
        connected = stack.enter_context(socket.create_connection(other.getsockname()))
        yield {
            "pipe": out, "file": file.fileno(), "unix": unix.fileno(), "bound": bound.fileno(),
            "other port": other.fileno(),
            "all addresses": everywhere.fileno(), "IPv6": six.fileno(), "UDP": datagrams.fileno(),
            "connected": connected.fileno(),
        }  # fmt: skip


def test_anything_else_is_closed(wrong: dict[str, int]) -> None:
    for kind, number in wrong.items():
        assert handed(number) is None, kind
    some = [wrong[kind] for kind in ("pipe", "UDP", "file")]
    assert handed(*some) is None
    assert handed() is None, "no descriptor at all"
    assert handed(data=b"") is None, "a visitor who leaves at once"


def test_of_several_one_is_taken(port: int, tmp_path: Path) -> None:
    with listening(port) as one, (tmp_path / "x").open("wb") as file:
        taken = handed(file.fileno(), one.fileno(), one.fileno())
        assert taken is not None
        taken.close()
        many = handed(*[one.fileno()] * 40)
        assert many is not None
        many.close()


class Front:
    """Stands for the proxy behind the door: tells what it is to serve, and from when on it may not."""

    def __init__(self) -> None:
        self.served: list[socket.socket] = []

    async def serve_front(self, listener: socket.socket) -> None:
        self.served.append(listener)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            listener.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - there is nothing to wait for
            await asyncio.sleep(0.01)


def keeping(path: Path, front: Any) -> asyncio.Task[None]:
    return asyncio.ensure_future(serving._keep_door(program._unix(path), front))


def test_the_agents_side_hands_it_over_again_to_a_proxy_that_starts_anew(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "US", os.geteuid())
    monkeypatch.setattr(door, "_PAUSE_S", 0.02)

    async def scene() -> None:
        path = tmp_path / "door.sock"
        keeper = asyncio.ensure_future(Doorkeeper(path).keep())
        await asyncio.sleep(0.1)  # there is no proxy yet
        for _ in range(2):
            front = Front()
            proxy = keeping(path, front)
            await until(lambda front=front: front.served)
            assert front.served[0].getsockname() == ("127.0.0.1", port)
            proxy.cancel()
            await asyncio.gather(proxy, return_exceptions=True)
            for one in front.served:
                one.close()
            path.unlink()
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        with listening(port):
            pass  # nothing of it is left

    asyncio.run(scene())


def test_who_asks_before_the_proxy_is_there_waits_for_it(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch does not wait for the proxy's front; its first request would be refused."""
    monkeypatch.setattr(serving, "US", os.geteuid())

    async def scene() -> None:
        keeper = asyncio.ensure_future(Doorkeeper(tmp_path / "door.sock").keep())
        await asyncio.sleep(0.1)
        with socket.create_connection(("127.0.0.1", port), 1) as early:
            front = Front()
            proxy = keeping(tmp_path / "door.sock", front)
            await until(lambda: front.served)
            taken, address = front.served[0].accept()
            taken.close()
            assert address == early.getsockname()
        for one in (proxy, keeper):
            one.cancel()
        await asyncio.gather(proxy, keeper, return_exceptions=True)
        front.served[0].close()

    asyncio.run(scene())


def test_a_newer_listener_takes_the_place_of_an_older_which_is_closed(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "US", os.geteuid())
    monkeypatch.setattr(serving, "_VISIT_S", 0.2)

    async def scene() -> None:
        front = Front()
        proxy = keeping(tmp_path / "door.sock", front)
        visitors = []
        with listening(port) as one:
            for count in (1, 2):
                visitor = socket.socket(socket.AF_UNIX)
                visitors.append(visitor)
                visitor.connect(str(tmp_path / "door.sock"))
                socket.send_fds(visitor, [b"1"], [one.fileno()])
                await until(lambda count=count: len(front.served) == count)
            await until(lambda: front.served[0].fileno() < 0)
            assert front.served[1].fileno() >= 0
            silent = socket.socket(socket.AF_UNIX)  # says nothing, and holds nobody up for long
            visitors.append(silent)
            silent.connect(str(tmp_path / "door.sock"))
            late = socket.socket(socket.AF_UNIX)
            visitors.append(late)
            late.connect(str(tmp_path / "door.sock"))
            socket.send_fds(late, [b"1"], [one.fileno()])
            await until(lambda: len(front.served) == 3)
        for visitor in visitors:
            visitor.close()
        proxy.cancel()
        await asyncio.gather(proxy, return_exceptions=True)
        await asyncio.sleep(0.05)

    asyncio.run(scene())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_not_listened_to(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells who it is: the agent (uid 1000) can reach the door, too."""
    monkeypatch.setattr(serving, "US", os.geteuid())
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    visit = (
        "import os, socket, sys\nos.setuid(1000)\none = socket.socket(socket.AF_UNIX)\none.connect(sys.argv[1])\n"
        "own = socket.create_server(('127.0.0.1', int(sys.argv[2])))\none.settimeout(5)\n"
        "try:\n    socket.send_fds(one, [b'1'], [own.fileno()])\n    sys.exit(0 if one.recv(1) == b'' else 3)\n"
        "except (BrokenPipeError, ConnectionResetError):\n    sys.exit(0)"
    )

    async def scene() -> None:
        front = Front()
        path = tmp_path / "door.sock"
        proxy = keeping(path, front)
        await asyncio.sleep(0)
        path.chmod(0o666)
        argv = (sys.executable, "-IS", "-c", visit, str(path), str(port))
        done = await asyncio.to_thread(subprocess.run, argv, timeout=20, check=False)
        assert (done.returncode, front.served) == (0, [])
        proxy.cancel()
        await asyncio.gather(proxy, return_exceptions=True)

    asyncio.run(scene())
