"""The bridge's sockets: who may have made them, who connects, and floods."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import stat
import subprocess
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from coding_agents.channel.exec_channel import open_channel
from coding_agents.proc.runner import run as run_command
from coding_agents_guest import peer
from coding_agents_guest.gitconfig import MAX_TEXT, unpack, write_settings
from coding_agents_guest.mux import Stream
from coding_agents_guest.paths import AGENT_UID
from coding_agents_guest.peer import UNKNOWN_UID, UNTOLD_UID
from coding_agents_guest.sockets import (
    Gateway,
    UnsafeDirectoryError,
    bind_loopback,
    bind_unix,
    carried_as,
    check_directory,
)
from support.guest import bridge_command, echo, guest_program, mux_pair, short_directory

TIMEOUT_S = 30


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await test()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"

    asyncio.run(limited())


@pytest.fixture
def sockets() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o1777, 0o1775])
def test_a_directory_where_only_we_can_replace_our_files_is_accepted(sockets: Path, mode: int) -> None:
    sockets.chmod(mode)
    check_directory(sockets, owner_uid=os.geteuid())


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_directory_where_others_can_replace_them_is_refused(sockets: Path, mode: int) -> None:
    sockets.chmod(mode)
    with pytest.raises(UnsafeDirectoryError, match="not sticky"):
        check_directory(sockets, owner_uid=os.geteuid())


def test_a_directory_of_somebody_else_and_a_link_are_refused(sockets: Path) -> None:
    if os.geteuid() == 0:
        os.chown(sockets, 12345, 12345)
        with pytest.raises(UnsafeDirectoryError):
            check_directory(sockets, owner_uid=1002)
        os.chown(sockets, 0, 0)
    (sockets / "link").symlink_to(sockets)
    with pytest.raises(UnsafeDirectoryError):
        check_directory(sockets / "link", owner_uid=os.geteuid())


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_what_is_no_socket_of_ours_is_left_alone(sockets: Path, kind: str) -> None:
    path = sockets / "relay.sock"
    if kind == "file":
        path.write_text("mine")
    elif kind == "link":
        path.symlink_to(sockets / "target")
    else:
        path.mkdir()
    with pytest.raises(UnsafeDirectoryError, match="somebody else"):
        bind_unix(path)
    assert os.path.lexists(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket to another user")
def test_a_socket_of_another_user_is_left_alone(sockets: Path) -> None:
    path = sockets / "relay.sock"
    bind_unix(path).close()
    os.chown(path, 1000, 1000)
    with pytest.raises(UnsafeDirectoryError, match="somebody else"):
        bind_unix(path)
    assert path.stat().st_uid == 1000


def test_our_own_stale_socket_is_replaced_and_open_to_all(sockets: Path) -> None:
    path = sockets / "relay.sock"
    bind_unix(path).close()
    with bind_unix(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_the_bridge_says_why_it_refuses(tmp_path: Path, sockets: Path) -> None:
    sockets.chmod(0o777)
    outcome = run_command(bridge_command(guest_program(tmp_path), sockets))
    assert outcome.status == 1
    assert outcome.stdout == b""
    assert outcome.stderr.decode() == f"bridge: {sockets} can be written by others and is not sticky\n"


def test_a_flood_of_one_service_leaves_the_other_usable(tmp_path: Path, sockets: Path) -> None:
    async def count_open(connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> int:
        answers = await asyncio.gather(*(ping(*connection) for connection in connections))
        return sum(answers)

    async def ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            writer.write(b"x")
            return await reader.read(1) == b"x"
        except OSError:  # with a full queue asyncio takes EAGAIN for a connection; reading it is EINVAL
            return False

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            try:
                return await asyncio.open_unix_connection(sockets / "relay.sock")
            except OSError:  # the queue of a listener that is slow to accept is full
                await asyncio.sleep(0.01)

    async def scenario() -> None:
        channel = await open_channel(bridge_command(guest_program(tmp_path), sockets), on_stream=echo)
        flood = [await connect() for _ in range(300)]
        assert await count_open(flood) == 16
        event = await asyncio.open_unix_connection(sockets / "events.sock")
        assert await ping(*event)
        for _, writer in flood:
            writer.transport.abort()
        while not await ping(*(again := await connect())):
            again[1].close()
        again[1].close()
        event[1].close()
        await channel.close()
        closing = [writer.wait_closed() for _, writer in [*flood, event, again]]
        await asyncio.gather(*closing, return_exceptions=True)

    run(scenario)


def test_connections_that_break_off_do_not_disturb_the_bridge(tmp_path: Path, sockets: Path) -> None:
    async def slow_echo(stream: Stream) -> None:
        while data := await stream.read(1000):
            await stream.write(data)

    async def scenario() -> None:
        channel = await open_channel(bridge_command(guest_program(tmp_path), sockets), on_stream=slow_echo)
        for size in (0, 1, 100_000):
            _, writer = await asyncio.open_unix_connection(sockets / "relay.sock")
            writer.write(bytes(size))
            writer.transport.abort()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        reader, writer = await asyncio.open_unix_connection(sockets / "relay.sock")
        writer.write(b"alive")
        assert await reader.readexactly(5) == b"alive"
        writer.close()
        await writer.wait_closed()
        await channel.close()

    run(scenario)


def test_a_loopback_connection_has_no_known_user(sockets: Path) -> None:
    seen: list[int] = []

    async def serve(stream: Stream) -> None:
        seen.append(stream.peer_uid)
        await echo(stream)

    async def scenario() -> None:
        async with mux_pair(on_host_open=serve) as (guest, _):
            gateway = Gateway(guest)
            listener = bind_loopback(0)
            port = listener.getsockname()[1]
            await gateway.serve(listener, "model", limit=2)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            await gateway.close()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        assert seen == [UNKNOWN_UID]

    run(scenario)


def test_small_answers_of_a_model_are_sent_at_once() -> None:
    """Without TCP_NODELAY each second piece of a stream waits for the client's delayed acknowledgement, 40 ms."""

    async def main() -> int:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            link = writer.get_extra_info("socket")
            seen.set_result(link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = bind_loopback(0)
        async with await asyncio.start_server(connected, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            found = await seen
            writer.close()
        return found

    assert asyncio.run(main()) != 0


# --- a kernel that tells everybody of himself ------------------------------------------------------------------


def test_a_peer_that_names_ourselves_is_untold(sockets: Path) -> None:
    """As in gVisor: SO_PEERCRED answers there with who asks."""
    ours, others = socket.socketpair()
    with ours, others:
        assert peer.peer_uid(ours) == UNTOLD_UID
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()"
    )
    words = (sys.executable, "-c", program, sockets / "x.sock")
    with bind_unix(sockets / "x.sock") as listener, subprocess.Popen(words, stdin=subprocess.PIPE):
        connection, _ = listener.accept()
        with connection:
            assert peer.peer_uid(connection) == os.geteuid()


def test_whose_socket_it_is_then_its_file_says(sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it is the same one before and after."""
    path = sockets / "x.sock"
    with bind_unix(path):
        os.chown(path, 12345 if os.geteuid() == 0 else os.geteuid(), -1)
        owner = path.lstat().st_uid
        connection, uid = peer.connect(path, timeout_s=5)
        connection.close()
        assert uid == owner

        def replaced(_connection: socket.socket) -> int:
            path.rename(sockets / "moved")
            bind_unix(path).close()
            return UNTOLD_UID

        monkeypatch.setattr(peer, "peer_uid", replaced)
        connection, uid = peer.connect(path, timeout_s=5)
        connection.close()
        assert uid == UNKNOWN_UID


def test_who_is_untold_is_the_agent(sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else is let near our sockets there: `mcp_session` gives no program a user of its own."""
    ours, others = socket.socketpair()
    with ours, others:
        assert carried_as(ours) == AGENT_UID
    monkeypatch.setattr("coding_agents_guest.sockets.peer_uid", lambda _connection: 1001)
    assert carried_as(ours) == 1001


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def packed(text: bytes) -> str:
    return base64.b64encode(zlib.compress(text)).decode()


def test_gits_settings_come_with_the_channel_readable_by_the_agent(sockets: Path, tmp_path: Path) -> None:
    async def test() -> None:
        command = bridge_command(
            guest_program(tmp_path), sockets, "--git-config", packed(b'[x]\n\ty = "z"\n')
        )
        channel = await open_channel(command, on_stream=echo)
        assert names(sockets) == ["events.sock", "gitconfig", "relay.sock", "tools.sock"]
        await channel.close()

    run(test)
    assert (sockets / "gitconfig").read_text() == '[x]\n\ty = "z"\n'
    assert stat.S_IMODE((sockets / "gitconfig").stat().st_mode) == 0o644


def test_without_gits_settings_there_is_no_socket(sockets: Path, tmp_path: Path) -> None:
    """The entry point waits for a socket, and the agent's git for the entry point: settings come before both."""
    (sockets / "gitconfig").mkdir()
    command = bridge_command(guest_program(tmp_path), sockets, "--git-config", packed(b""))
    outcome = run_command(command)
    assert outcome.status == 1
    assert b"belongs to somebody else" in outcome.stderr
    assert names(sockets) == ["gitconfig"]


@pytest.mark.parametrize("kind", ["link", "directory", "file"])
def test_settings_in_whose_place_is_something_of_somebody_else_are_not_written(
    sockets: Path, kind: str
) -> None:
    path, target = sockets / "gitconfig", sockets / "target"
    target.write_text("old")
    if kind == "link":
        path.symlink_to(target)
    elif kind == "directory":
        path.mkdir()
    elif os.geteuid() == 0:
        path.write_text("old")
        os.chown(path, AGENT_UID, AGENT_UID)
    else:
        pytest.skip("only root can give a file to another user")
    with pytest.raises(UnsafeDirectoryError, match="somebody else"):
        write_settings(sockets, b"new")
    assert target.read_text() == "old"
    assert names(sockets) == ["gitconfig", "target"]


def test_settings_of_an_earlier_channel_are_replaced(sockets: Path) -> None:
    for text in (b"old", b"new"):
        write_settings(sockets, text)
    assert (sockets / "gitconfig").read_bytes() == b"new"
    assert names(sockets) == ["gitconfig"]


@pytest.mark.parametrize("argument", ["", "!", "eA==", packed(b"x")[:-8], packed(b"x" * (MAX_TEXT + 1)), "ä"])
def test_damaged_settings_are_refused(argument: str) -> None:
    with pytest.raises(ValueError, match=r"damaged|ascii"):
        unpack(argument)
