"""Many streams over one pair of byte streams, for both ends of the channel (asyncio).

`Mux.run` reads until the other side ends. It never waits for a slow stream, because each stream has a window
of credit, and never for the other side to read. A violation of the protocol ends the whole mux. Every task
that a mux starts has ended when `run` returns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from coding_agents_guest.wire import (
    MAX_REASON,
    MAX_STREAM_ID,
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

# Small enough that streams take turns, and that the first bytes are under way while the rest is written.
_CHUNK = 32 * 1024
_READ_SIZE = 256 * 1024
# Data waits for the other side to read; refusals and credit do not. Whoever leaves this much of them unread
# is broken or hostile.
_MAX_UNREAD = 256 * 1024


class Stream:
    """One bidirectional byte stream. Reads and writes raise ConnectionResetError once it is broken off.

    At most one task reads and one task writes at a time.
    """

    def __init__(self, mux: Mux, number: int, service: str, peer_uid: int) -> None:
        self.service = service
        self.peer_uid = peer_uid
        self._mux = mux
        self._number = number
        self._chunks: deque[bytes] = deque()
        self._receivable = WINDOW  # what the other side may still send
        self._consumed = 0  # what we have read and not yet granted anew
        self._credit = WINDOW  # what we may still send
        self._change = asyncio.Event()
        self._received_eof = False
        self._sent_eof = False
        self._broken = ""

    async def read(self, limit: int = WINDOW) -> bytes:
        """The next 1 to `limit` bytes, b"" at the end of the stream."""
        while not self._chunks:
            if self._received_eof:
                return b""
            await self._changed()
        chunk = self._chunks.popleft()
        if len(chunk) > limit:
            self._chunks.appendleft(chunk[limit:])
            chunk = chunk[:limit]
        self._grant(len(chunk))
        return chunk

    async def write(self, data: bytes) -> None:
        """Send `data`; waits while the other side grants no credit or the carrier is full."""
        view = memoryview(data)
        while view:
            while not self._credit or self._broken:
                await self._changed()
            if self._sent_eof:
                raise ConnectionResetError("write after the end of the stream")
            size = min(len(view), self._credit, _CHUNK)
            self._credit -= size
            await self._mux._send_data(self, bytes(view[:size]))
            view = view[size:]

    def write_eof(self) -> None:
        """Say that no more data follows; the other direction stays open."""
        if not self._sent_eof and not self._broken:
            self._sent_eof = True
            self._mux._send(Eof(self._number))
            self._mux._forget_if_done(self)

    def close(self) -> None:
        """End the stream: what was written still arrives, what the other side still sends is dropped."""
        self.write_eof()
        self.reset("closed")

    def reset(self, reason: str) -> None:
        """Break the stream off in both directions, unless it has ended already."""
        if not self._broken and not self.done:
            self._mux._send(Reset(self._number, reason[:MAX_REASON]))
            self._break_off(reason)
        self._chunks.clear()

    @property
    def done(self) -> bool:
        """Whether both sides have said that no more data follows."""
        return self._received_eof and self._sent_eof

    async def _changed(self) -> None:
        if self._broken:
            raise ConnectionResetError(self._broken)
        self._change.clear()
        await self._change.wait()

    def _grant(self, size: int) -> None:
        self._consumed += size
        if self._consumed >= WINDOW // 2 and not self._received_eof and not self._broken:
            self._receivable += self._consumed
            self._mux._send(Window(self._number, self._consumed))
            self._consumed = 0

    def _break_off(self, reason: str) -> None:
        self._broken = reason or "reset by the other side"
        self._mux._forget(self)
        self._change.set()

    def _receive(self, frame: Data | Eof | Reset | Window) -> None:
        if isinstance(frame, Reset):
            self._break_off(frame.reason)
        elif isinstance(frame, Window):
            self._credit += frame.credit
            if self._credit > WINDOW:
                raise WireError(f"stream {self._number} was granted more than its window")
        elif self._received_eof:
            raise WireError(f"stream {self._number} goes on after its end")
        elif isinstance(frame, Eof):
            self._received_eof = True
            self._mux._forget_if_done(self)
        else:
            self._receivable -= len(frame.payload)
            if self._receivable < 0:
                raise WireError(f"stream {self._number} overran its window")
            self._chunks.append(frame.payload)
        self._change.set()


OnOpen = Callable[[Stream], Awaitable[None]]


class Mux:
    """One end of the channel. The end that is given a `hello` is the guest: it sends it at once.

    `on_open` serves a stream that the other side opened; the stream is closed when it returns. Beyond
    `MAX_STREAMS` streams or servings at once, further streams are refused.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        on_open: OnOpen,
        hello: Hello | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_open = on_open
        self._hello = hello
        self._peer_hello: Hello | None = None
        self._greeted = asyncio.Event()
        self._streams: dict[int, Stream] = {}
        self._servings: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Lock()
        self._next = 1 if hello else 2
        self._newest = 0 if hello else -1  # the last id that the other side opened; ids go up by two
        self._pumping: asyncio.Future[None] | None = None
        self._closed = False
        if hello is not None:
            self._send(hello)

    async def run(self) -> None:
        """Carry frames until the other side ends or `close`. Raises WireError when it breaks the protocol."""
        self._pumping = asyncio.ensure_future(self._pump())
        try:
            await self._pumping
        except asyncio.CancelledError:
            if not self._closed:
                raise
        finally:
            await self._end()

    def close(self) -> None:
        """End `run`; every stream is broken off."""
        self._closed = True
        if self._pumping is not None:
            self._pumping.cancel()

    async def hello(self) -> Hello:
        """Wait for the guest's hello. Raises WireError when the mux ends without an acceptable one."""
        await self._greeted.wait()
        if self._peer_hello is None:
            raise WireError("the guest ended without a hello")
        return self._peer_hello

    def open(self, service: str, peer_uid: int) -> Stream:
        """A new stream to `service` of the other side. Raises ConnectionError when there can be none."""
        if self._closed or len(self._streams) >= MAX_STREAMS or self._next > MAX_STREAM_ID:
            raise ConnectionRefusedError("channel closed" if self._closed else "too many streams")
        stream = Stream(self, self._next, service, peer_uid)
        self._send(Open(self._next, service, peer_uid))
        self._streams[self._next] = stream
        self._next += 2
        return stream

    async def flush(self) -> None:
        """Wait until everything sent so far has left this process."""
        self._writer.transport.set_write_buffer_limits(high=0)
        async with self._sending:
            await self._writer.drain()

    async def _pump(self) -> None:
        decoder = Decoder()
        with suppress(ConnectionError):
            while data := await self._reader.read(_READ_SIZE):
                for frame in decoder.feed(data):
                    self._receive(frame)
                if self._writer.transport.get_write_buffer_size() > _MAX_UNREAD:
                    raise WireError("the other side does not read")

    def _receive(self, frame: Frame) -> None:
        if isinstance(frame, Hello):
            self._greet(frame)
        elif self._hello is None and self._peer_hello is None:
            raise WireError("the first frame is not a hello")
        elif isinstance(frame, Open):
            self._accept(frame)
        elif stream := self._streams.get(frame.stream):
            stream._receive(frame)
        elif not self._was_open(frame.stream):
            raise WireError(f"frame for stream {frame.stream}, which was never opened")

    def _greet(self, hello: Hello) -> None:
        if self._hello is not None or self._peer_hello is not None:
            raise WireError("unexpected hello")
        if hello.protocol != PROTOCOL:
            raise WireError(f"the guest speaks protocol {hello.protocol}, this is {PROTOCOL}")
        self._peer_hello = hello
        self._greeted.set()

    def _was_open(self, number: int) -> bool:
        """Whether frames of `number` can still be under way: it was open, and we have broken it off."""
        return number < self._next if number % 2 == self._next % 2 else number <= self._newest

    def _accept(self, frame: Open) -> None:
        if frame.stream % 2 == self._next % 2 or frame.stream <= self._newest:
            raise WireError(f"stream {frame.stream} opened out of order")
        self._newest = frame.stream
        if len(self._streams) >= MAX_STREAMS or len(self._servings) >= MAX_STREAMS:
            self._send(Reset(frame.stream, "too many streams"))
            return
        stream = self._streams[frame.stream] = Stream(self, frame.stream, frame.service, frame.peer_uid)
        task = asyncio.ensure_future(self._serve(stream))
        self._servings.add(task)
        task.add_done_callback(self._servings.discard)

    async def _serve(self, stream: Stream) -> None:
        try:
            await self._on_open(stream)
        except ConnectionError:
            stream.reset("broken off")
        except Exception as error:  # noqa: BLE001 - a bug in one service is reported and must not end the others
            stream.reset("service failed")
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"service {stream.service!r} failed", "exception": error}
            )
        finally:
            stream.close()

    async def _send_data(self, stream: Stream, payload: bytes) -> None:
        async with self._sending:
            await self._writer.drain()
            if stream._broken:
                raise ConnectionResetError(stream._broken)
            self._writer.write(encode(Data(stream._number, payload)))

    def _send(self, frame: Frame) -> None:
        if not self._closed:
            self._writer.write(encode(frame))

    def _forget_if_done(self, stream: Stream) -> None:
        if stream.done:
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream._number, None)

    async def _end(self) -> None:
        self._closed = True
        self._greeted.set()
        for stream in list(self._streams.values()):
            stream._break_off("channel closed")
        for task in self._servings:
            task.cancel()
        await asyncio.gather(*self._servings, return_exceptions=True)
        self._writer.close()
