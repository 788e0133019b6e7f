"""The channel over a real process: the bridge itself, and processes that are no guest at all."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from coding_agents.channel import exec_channel
from coding_agents.channel.api import Channel, OnStream
from coding_agents.channel.exec_channel import open_channel
from coding_agents.errors import ChannelError, ProgramNotFoundError
from coding_agents.proc.runner import Command
from coding_agents_guest import __version__
from coding_agents_guest.mux import Stream
from coding_agents_guest.wire import WINDOW, encode
from support.guest import ENV, HELLO, bridge_command, echo, guest_program, refuse, short_directory

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


@asynccontextmanager
async def channel_to_bridge(program: Path, sockets: Path, on_stream: OnStream) -> AsyncIterator[Channel]:
    channel = await open_channel(bridge_command(program, sockets), on_stream=on_stream)
    try:
        yield channel
    finally:
        await channel.close()


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


def python(code: str) -> Command:
    return Command((sys.executable, "-c", code), env=ENV)


def fake_guest(code: str, *, before: str = "pass") -> Command:
    """A process that runs `before`, says hello and then runs `code`."""
    hello = f"sys.stdout.buffer.write({encode(HELLO)!r}); sys.stdout.flush()"
    return python(f"import os, sys, time; {before}; {hello}; {code}")


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def pid_in(path: Path) -> int:
    return int(path.read_text())


def pid_of_bridge(sockets: Path) -> int:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                if os.fsencode(sockets) in (process / "cmdline").read_bytes():
                    return int(process.name)
    raise AssertionError("no bridge runs")


def test_hello_tells_version_and_facts(tmp_path: Path, sockets: Path) -> None:
    async def scenario() -> None:
        async with channel_to_bridge(guest_program(tmp_path), sockets, refuse) as channel:
            assert channel.hello.version == __version__
            assert channel.hello.facts["kernel"] == platform.release()
            assert names_in(sockets) == ["events.sock", "relay.sock", "tools.sock"]

    run(scenario)


def test_a_connection_becomes_a_stream_with_its_service_and_user(tmp_path: Path, sockets: Path) -> None:
    seen: list[tuple[str, int]] = []

    async def serve(stream: Stream) -> None:
        seen.append((stream.service, stream.peer_uid))
        await echo(stream)

    async def scenario() -> None:
        async with channel_to_bridge(guest_program(tmp_path), sockets, serve):
            for service in ("relay", "events"):
                async with connected(sockets / f"{service}.sock") as (reader, writer):
                    writer.write(b"hello")
                    writer.write_eof()
                    assert await reader.read() == b"hello"
        assert seen == [("relay", os.getuid()), ("events", os.getuid())]

    run(scenario)


def test_much_data_passes_while_both_sides_write(tmp_path: Path, sockets: Path) -> None:
    sent = os.urandom(1 << 20) * 4

    async def scenario() -> None:
        async with (
            channel_to_bridge(guest_program(tmp_path), sockets, echo),
            connected(sockets / "relay.sock") as (reader, writer),
        ):
            reading = asyncio.ensure_future(reader.read(-1))
            writer.write(sent)
            await writer.drain()
            writer.write_eof()
            assert await reading == sent

    run(scenario)


def test_what_the_host_says_last_arrives_and_the_connection_ends(tmp_path: Path, sockets: Path) -> None:
    async def serve(stream: Stream) -> None:
        await stream.read()
        await stream.write(bytes(WINDOW) + b"the end")

    async def scenario() -> None:
        async with (
            channel_to_bridge(guest_program(tmp_path), sockets, serve),
            connected(sockets / "relay.sock") as (reader, writer),
        ):
            writer.write(b"go")
            assert (await reader.read()).endswith(b"the end")

    run(scenario)


def test_a_second_channel_replaces_the_stale_sockets_of_the_first(tmp_path: Path, sockets: Path) -> None:
    async def scenario() -> None:
        program = guest_program(tmp_path)
        async with channel_to_bridge(program, sockets, refuse):
            pass
        assert (sockets / "relay.sock").is_socket()
        async with (
            channel_to_bridge(program, sockets, echo),
            connected(sockets / "relay.sock") as (reader, writer),
        ):
            writer.write(b"again")
            assert await reader.read(5) == b"again"

    run(scenario)


def test_the_end_of_the_guest_is_seen_and_close_is_idempotent(tmp_path: Path) -> None:
    async def scenario() -> None:
        dying = fake_guest("pass")
        channel = await open_channel(dying, on_stream=refuse)
        await channel.wait_closed()
        await channel.close()
        await channel.close()

    run(scenario)


def test_a_guest_that_breaks_the_protocol_later_is_reported(tmp_path: Path) -> None:
    async def scenario() -> None:
        liar = fake_guest("time.sleep(0.2); sys.stdout.buffer.write(bytes(9)); sys.stdout.flush(); input()")
        channel = await open_channel(liar, on_stream=refuse)
        with pytest.raises(ChannelError, match="unknown frame type 0"):
            await channel.wait_closed()

    run(scenario)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('no such container')", "without a hello"),
        ("print('OCI runtime exec failed: some text on standard output')", "unknown frame type 79"),
        ("import sys; sys.stdout.buffer.write(b'\\x04\\0\\0\\0\\1\\0\\0\\0\\0')", "not a hello"),
    ],
)
def test_what_is_no_guest_is_an_error(code: str, message: str) -> None:
    async def scenario() -> None:
        with pytest.raises(ChannelError, match=message):
            await open_channel(python(code), on_stream=refuse)

    run(scenario)


def test_standard_error_is_in_the_details_without_control_characters() -> None:
    async def scenario() -> None:
        code = r"import sys; sys.exit('x' * 99999 + '\n\x1b[31mno\x07 such container')"
        with pytest.raises(ChannelError) as caught:
            await open_channel(python(code), on_stream=refuse)
        assert caught.value.details.endswith(
            "\n\N{REPLACEMENT CHARACTER}[31mno\N{REPLACEMENT CHARACTER} such container"
        )
        assert "\x1b" not in caught.value.details
        assert len(caught.value.details) < 20_000

    run(scenario)


def test_a_guest_that_stays_silent_is_ended_at_the_timeout(tmp_path: Path) -> None:
    async def scenario() -> None:
        pid_file = tmp_path / "pid"
        code = f"import os, sys; open({str(pid_file)!r}, 'w').write(str(os.getpid())); sys.stdin.read()"
        with pytest.raises(ChannelError, match=r"did not answer within 1 s"):
            await open_channel(python(code), on_stream=refuse, hello_timeout_s=1)
        with pytest.raises(ProcessLookupError):
            os.kill(pid_in(pid_file), 0)

    run(scenario)


def test_a_guest_that_ignores_the_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exec_channel, "_END_TIMEOUT_S", 0.2)

    async def scenario() -> None:
        before = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
        channel = await open_channel(fake_guest("time.sleep(60)", before=before), on_stream=refuse)
        await channel.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid_in(tmp_path / "pid"), 0)

    run(scenario)


def test_the_bridge_killed_ends_the_channel_and_its_servings(tmp_path: Path, sockets: Path) -> None:
    ended = asyncio.Event()

    async def serve(stream: Stream) -> None:
        try:
            pid = int(await stream.read())
            os.kill(pid, signal.SIGKILL)
            await stream.read()
        finally:
            ended.set()

    async def scenario() -> None:
        async with (
            channel_to_bridge(guest_program(tmp_path), sockets, serve) as channel,
            connected(sockets / "relay.sock") as (reader, writer),
        ):
            writer.write(str(pid_of_bridge(sockets)).encode())
            assert await reader.read() == b""
            await channel.wait_closed()
            await ended.wait()

    run(scenario)


def test_a_missing_engine_is_told_as_such() -> None:
    async def scenario() -> None:
        with pytest.raises(ProgramNotFoundError):
            await open_channel(Command(("no-such-engine", "exec"), env=ENV), on_stream=refuse)

    run(scenario)
