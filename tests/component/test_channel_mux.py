"""The multiplexer over real sockets: streams, back-pressure, half closes, and a hostile other side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from coding_agents_guest.mux import Mux, OnOpen, Stream
from coding_agents_guest.wire import (
    MAX_STREAMS,
    PROTOCOL,
    WINDOW,
    Data,
    Decoder,
    Eof,
    Frame,
    Hello,
    Open,
    Reset,
    Window,
    WireError,
    encode,
)
from support.guest import HELLO, echo, mux_pair, pipes, refuse

TIMEOUT_S = 20


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await test()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"

    asyncio.run(limited())


async def read_all(stream: Stream) -> bytes:
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)


def test_a_stream_carries_both_directions_and_knows_its_origin() -> None:
    seen: list[tuple[str, int]] = []

    async def serve(stream: Stream) -> None:
        seen.append((stream.service, stream.peer_uid))
        await echo(stream)

    async def scenario() -> None:
        async with mux_pair(on_host_open=serve) as (guest, host):
            assert await host.hello() == HELLO
            stream = guest.open("relay", 1000)
            await stream.write(b"hello")
            assert await stream.read(2) == b"he"
            assert await stream.read() == b"llo"
            stream.write_eof()
            assert await stream.read() == b""
            assert await stream.read() == b""
        assert seen == [("relay", 1000)]

    run(scenario)


def test_the_host_can_open_streams_too() -> None:
    async def scenario() -> None:
        async with mux_pair(on_host_open=refuse, on_guest_open=echo) as (_, host):
            stream = host.open("ping", 0)
            await stream.write(b"x")
            stream.write_eof()
            assert await read_all(stream) == b"x"

    run(scenario)


def test_many_windows_of_data_arrive_whole_on_many_streams_at_once() -> None:
    size = 3 * WINDOW + 17

    async def one(guest: Mux, number: int) -> None:
        stream = guest.open("relay", 1000)
        sent = bytes([number]) * size
        reading = asyncio.ensure_future(read_all(stream))
        await stream.write(sent)
        stream.write_eof()
        assert await reading == sent

    async def scenario() -> None:
        async with mux_pair(on_host_open=echo) as (guest, _):
            await asyncio.gather(*(one(guest, number) for number in range(8)))

    run(scenario)


def test_a_stream_that_nobody_reads_does_not_hold_up_another() -> None:
    async def scenario() -> None:
        released = asyncio.Event()

        async def serve(stream: Stream) -> None:
            if stream.service == "slow":
                await released.wait()
            await echo(stream)

        async with mux_pair(on_host_open=serve) as (guest, _):
            slow = guest.open("slow", 1000)
            blocked = asyncio.ensure_future(slow.write(bytes(WINDOW + 1)))
            fast = guest.open("fast", 1000)
            for _ in range(3):
                await fast.write(b"ping")
                assert await fast.read() == b"ping"
            assert not blocked.done(), "more than a window went to a stream that nobody reads"
            released.set()
            reading = asyncio.ensure_future(read_all(slow))
            await blocked
            slow.write_eof()
            assert len(await reading) == WINDOW + 1

    run(scenario)


def test_what_was_written_before_close_arrives_and_then_the_stream_is_over() -> None:
    async def serve(stream: Stream) -> None:
        await stream.write(b"last words")

    async def scenario() -> None:
        async with mux_pair(on_host_open=serve) as (guest, _):
            stream = guest.open("relay", 1000)
            assert await read_all(stream) == b"last words"
            with pytest.raises(ConnectionResetError, match="closed"):
                await stream.write(bytes(10 * WINDOW))

    run(scenario)


def test_reset_tells_the_other_side_why() -> None:
    async def serve(stream: Stream) -> None:
        stream.reset("denied by policy")

    async def scenario() -> None:
        async with mux_pair(on_host_open=serve) as (guest, _):
            stream = guest.open("relay", 1000)
            with pytest.raises(ConnectionResetError, match="denied by policy"):
                await stream.read()

    run(scenario)


def test_writing_after_eof_is_an_error() -> None:
    async def scenario() -> None:
        async with mux_pair(on_host_open=echo) as (guest, _):
            stream = guest.open("relay", 1000)
            stream.write_eof()
            with pytest.raises(ConnectionResetError):
                await stream.write(b"x")

    run(scenario)


def test_a_bug_in_one_service_is_reported_and_ends_only_its_stream() -> None:
    reported: list[dict[str, object]] = []

    async def serve(stream: Stream) -> None:
        if stream.service == "broken":
            raise RuntimeError("bug")
        await echo(stream)

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        async with mux_pair(on_host_open=serve) as (guest, _):
            broken = guest.open("broken", 1000)
            with pytest.raises(ConnectionResetError, match="service failed"):
                await broken.read()
            sound = guest.open("sound", 1000)
            await sound.write(b"x")
            assert await sound.read() == b"x"
        assert [str(context["exception"]) for context in reported] == ["bug"]

    run(scenario)


def test_too_many_streams_are_refused_on_both_sides() -> None:
    async def wait(stream: Stream) -> None:
        await stream.read()

    async def scenario() -> None:
        async with mux_pair(on_host_open=wait) as (guest, _):
            streams = [guest.open("relay", 1000) for _ in range(MAX_STREAMS)]
            with pytest.raises(ConnectionRefusedError):
                guest.open("relay", 1000)
            streams[0].write_eof()
            assert await streams[0].read() == b""
            guest.open("relay", 1000)

    run(scenario)


def test_closing_the_mux_breaks_off_every_stream_and_serving() -> None:
    cancelled = asyncio.Event()

    async def serve(stream: Stream) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def scenario() -> None:
        async with mux_pair(on_host_open=serve) as (guest, host):
            stream = guest.open("relay", 1000)
            reading = asyncio.ensure_future(stream.read())
            await asyncio.sleep(0.05)
            host.close()
            with pytest.raises(ConnectionResetError):
                await reading
            await cancelled.wait()
            guest.close()
            with pytest.raises(ConnectionRefusedError, match="channel closed"):
                guest.open("relay", 1000)

    run(scenario)


def test_flush_waits_until_everything_has_left() -> None:
    async def scenario() -> None:
        async with pipes() as ((reader, _), (host_reader, host_writer)):
            mux = Mux(host_reader, host_writer, on_open=refuse)
            stream = mux.open("bulk", 0)
            await stream.write(bytes(WINDOW))
            flushing = asyncio.ensure_future(mux.flush())
            await asyncio.sleep(0)
            assert not flushing.done()
            await reader.readexactly(WINDOW)
            await flushing
            assert host_writer.transport.get_write_buffer_size() == 0

    run(scenario)


# ---- a host against hostile frames -----------------------------------------------------------------------


async def never(stream: Stream) -> None:
    """An `on_open` that neither reads nor ends."""
    await asyncio.Event().wait()


async def host_against(frames: list[Frame], on_open: OnOpen = never) -> list[Frame]:
    """Send `frames` to a host's mux and end; returns the host's answers, raises what its run raises."""
    async with pipes() as ((reader, writer), host_end):
        mux = Mux(*host_end, on_open=on_open)
        writer.write(b"".join(encode(frame) for frame in frames))
        writer.write_eof()
        await mux.run()
        return Decoder().feed(await reader.read())


@pytest.mark.parametrize(
    "frames",
    [
        [Open(1, "relay", 0)],
        [Data(1, b"x")],
        [HELLO, HELLO],
        [Hello(PROTOCOL + 1, "9", {})],
        [HELLO, Open(2, "relay", 0)],
        [HELLO, Open(3, "relay", 0), Open(1, "relay", 0)],
        [HELLO, Open(1, "relay", 0), Open(1, "relay", 0)],
        [HELLO, Data(1, b"x")],
        [HELLO, Open(1, "relay", 0), Eof(3)],
        [HELLO, Reset(2, "")],
        [HELLO, Open(1, "relay", 0), Window(1, 1)],
        [HELLO, Open(1, "relay", 0), Eof(1), Data(1, b"x")],
        [HELLO, Open(1, "relay", 0), Eof(1), Eof(1)],
        [HELLO, Open(1, "relay", 0), *[Data(1, bytes(WINDOW // 8))] * 9],
    ],
)
def test_a_violation_ends_the_channel(frames: list[Frame]) -> None:
    async def scenario() -> None:
        with pytest.raises(WireError):
            await host_against(frames)

    run(scenario)


def test_a_guest_takes_no_hello() -> None:
    async def scenario() -> None:
        async with pipes() as ((_, writer), guest_end):
            mux = Mux(*guest_end, on_open=refuse, hello=HELLO)
            writer.write(encode(HELLO))
            with pytest.raises(WireError, match="unexpected hello"):
                await mux.run()

    run(scenario)


def test_no_hello_is_an_error_for_who_waits_for_it() -> None:
    async def scenario() -> None:
        async with pipes() as ((_, writer), host_end):
            mux = Mux(*host_end, on_open=refuse)
            writer.close()
            waiting = asyncio.ensure_future(mux.hello())
            await mux.run()
            with pytest.raises(WireError, match="without a hello"):
                await waiting

    run(scenario)


def test_frames_for_a_stream_that_we_broke_off_are_dropped() -> None:
    async def reset_at_once(stream: Stream) -> None:
        stream.reset("no")

    async def scenario() -> None:
        async with pipes() as ((reader, writer), host_end):
            mux = Mux(*host_end, on_open=reset_at_once)
            running = asyncio.ensure_future(mux.run())
            writer.write(encode(HELLO) + encode(Open(1, "relay", 0)))
            assert Decoder().feed(await reader.read(100)) == [Reset(1, "no")]
            late = (Data(1, b"late"), Window(1, 5), Eof(1), Reset(1, ""))
            writer.write(b"".join(encode(frame) for frame in late))
            writer.write_eof()
            await running

    run(scenario)


def test_open_beyond_the_limit_is_refused_and_the_channel_lives() -> None:
    async def scenario() -> None:
        opens = [Open(2 * number + 1, "relay", 0) for number in range(MAX_STREAMS + 3)]
        answers = await host_against([HELLO, *opens])
        refused = [
            frame.stream
            for frame in answers
            if isinstance(frame, Reset) and frame.reason == "too many streams"
        ]
        assert refused == [frame.stream for frame in opens[MAX_STREAMS:]]

    run(scenario)


def test_streams_reset_by_the_guest_still_count_while_they_are_served() -> None:
    """Else a guest starts any number of servings by opening and resetting."""
    servings = 0

    async def stubborn(stream: Stream) -> None:
        nonlocal servings
        servings += 1
        await never(stream)

    async def scenario() -> None:
        frames: list[Frame] = [HELLO]
        for number in range(1, 4 * MAX_STREAMS, 2):
            frames += [Open(number, "relay", 0), Reset(number, "")]
        async with pipes() as ((reader, writer), host_end):
            running = asyncio.ensure_future(Mux(*host_end, on_open=stubborn).run())
            writer.write(b"".join(encode(frame) for frame in frames))
            refusal = len(encode(Reset(1, "too many streams")))
            await reader.readexactly(refusal * MAX_STREAMS)
            writer.write_eof()
            await running
        assert servings == MAX_STREAMS

    run(scenario)


def test_a_guest_that_provokes_answers_and_never_reads_them_is_cut_off() -> None:
    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(encode(HELLO))
        for first in range(1, 2**31, 4000):
            writer.write(
                b"".join(encode(Open(number, "relay", 0)) for number in range(first, first + 4000, 2))
            )
            await writer.drain()

    async def scenario() -> None:
        async with pipes() as ((_, writer), host_end):
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport can
            flooding = asyncio.ensure_future(flood(writer))
            with pytest.raises(WireError, match="does not read"):
                await Mux(*host_end, on_open=never).run()
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)

    run(scenario)
