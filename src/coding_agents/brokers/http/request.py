"""Read HTTP/1.1 requests of a guest from a stream, each whole and within bounds, and answer them.

h11 parses. What it lets through and could be read differently further on is refused here: a request goes on only as a
new one, made of what was understood.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

import h11
import msgspec

_CHUNK = 64 * 1024
_MAX_HEAD = 64 * 1024
_HEAD_S = 30.0
_CONTINUE = h11.InformationalResponse(status_code=100, headers=[])


class ByteStream(Protocol):
    """One stream of the channel (coding_agents_guest.mux.Stream); a broken one raises OSError."""

    async def read(self, limit: int = ..., /) -> bytes: ...
    async def write(self, data: bytes, /) -> None: ...
    def reset(self, reason: str, /) -> None: ...


class HttpRequest(msgspec.Struct, frozen=True):
    """A request as it was understood. Header names are in lower case."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        """The value of the only header of that name, "" when there is none."""
        return next((value for key, value in self.headers if key == name), "")


class RefusedRequestError(Exception):
    """A request that is not taken: an HTTP status, and why, for whoever sent it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Room:
    """How many bytes of bodies may be held at once, by all connections together."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, size: int) -> None:
        """Raises RefusedRequestError when there is no more."""
        if size > self._left:
            raise RefusedRequestError(503, "too many large requests at once; try again")
        self._left -= size

    def give_back(self, size: int) -> None:
        self._left += size


def is_plain(path: str) -> bool:
    """Whether there is nothing to decode and nothing to resolve in a path: all that most brokers serve."""
    return path.startswith("/") and not any(odd in path for odd in ("%", "\\", ";", "//", "/./", "/../", "#"))


class GuestConnection:
    """One connection of a guest: its requests one after the other, each with its answer.

    `body_bytes` is the largest body, `body_s` the time in which a whole one must arrive; `methods` are those that are
    served, and `path` tells which paths are.
    """

    def __init__(
        self,
        stream: ByteStream,
        room: Room,
        *,
        body_bytes: int,
        body_s: float,
        methods: tuple[str, ...] = ("GET", "POST"),
        path: Callable[[str], bool] = is_plain,
    ) -> None:
        self._stream = stream
        self._room = room
        self._methods = methods
        self._path = path
        self._held = 0
        self._body_bytes = body_bytes
        self._body_s = body_s
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)

    async def next_request(self, idle_s: float) -> HttpRequest | None:
        """The next request, None at the end of the connection or after `idle_s` without one.

        Raises RefusedRequestError, after which there is only an answer, and OSError.
        """
        self.forget_body()
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        elif self._http.our_state is not h11.IDLE:
            return None
        try:
            if not await self._begun(idle_s):
                return None
            async with asyncio.timeout(_HEAD_S):
                head = await self._event()
            if not isinstance(head, h11.Request):
                return None
            method, path, query, headers = _checked(head, self._methods, self._path)
            async with asyncio.timeout(self._body_s):
                body = await self._body()
        except h11.RemoteProtocolError as error:
            raise RefusedRequestError(error.error_status_hint, f"malformed request: {error}") from error
        except TimeoutError:
            raise RefusedRequestError(408, "the request did not arrive in time") from None
        return HttpRequest(method, path, query, headers, body)

    async def begin_answer(
        self, status: int, headers: Iterable[tuple[str, str]], *, reason: str = ""
    ) -> None:
        """Send the head of an answer, which ends the connection when the request was not read to its end.

        `reason` stands in its first line, which is all that some programs show.
        """
        fields = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        if self._http.their_state is not h11.DONE:
            fields.append((b"connection", b"close"))
        await self._send(h11.Response(status_code=status, headers=fields, reason=_line(reason)))

    async def write(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end_answer(self) -> None:
        await self._send(h11.EndOfMessage())

    async def answer(self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
        """A whole answer of JSON."""
        fields = [("content-type", "application/json"), ("content-length", str(len(body))), *headers]
        await self.begin_answer(status, fields)
        await self.write(body)
        await self.end_answer()

    def forget_body(self) -> None:
        """The last body is no longer held."""
        self._room.give_back(self._held)
        self._held = 0

    async def _begun(self, idle_s: float) -> bool:
        """Whether anything of a request arrives within `idle_s`."""
        if self._http.trailing_data[0]:
            return True
        try:
            async with asyncio.timeout(idle_s):
                data = await self._stream.read(_CHUNK)
        except TimeoutError:
            return False
        self._http.receive_data(data)
        return bool(data)

    async def _event(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                await self._send(_CONTINUE)
            self._http.receive_data(await self._stream.read(_CHUNK))

    async def _body(self) -> bytes:
        parts: list[bytes] = []
        while True:
            event = await self._event()
            if isinstance(event, h11.EndOfMessage):
                if event.headers:
                    raise RefusedRequestError(400, "a request with trailers is not taken")
                return b"".join(parts)
            if not isinstance(event, h11.Data):
                raise RefusedRequestError(400, "the request broke off")
            size = len(event.data)
            if self._held + size > self._body_bytes:
                raise RefusedRequestError(
                    413, f"a body of more than {self._body_bytes >> 20} MiB is not taken"
                )
            self._room.take(size)
            self._held += size
            parts.append(bytes(event.data))

    async def _send(self, event: h11.Event) -> None:
        with suppress(h11.LocalProtocolError):  # after a malformed request there may be nobody to answer
            if data := self._http.send(event):
                await self._stream.write(data)


def _line(text: str) -> bytes:
    return "".join(char if " " <= char <= "~" else "?" for char in text[:300]).encode()


def _checked(
    head: h11.Request, methods: tuple[str, ...], is_taken: Callable[[str], bool]
) -> tuple[str, str, str, tuple[tuple[str, str], ...]]:
    """The parts of a request's head. Raises RefusedRequestError for what others may read differently."""
    if head.http_version != b"1.1":
        raise RefusedRequestError(505, "HTTP/1.1, please")
    method, target = head.method.decode("latin-1"), head.target.decode("latin-1")
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
    names = [name for name, _ in headers]
    if "upgrade" in names:
        raise RefusedRequestError(
            426, "this is HTTP/1.1 and stays so"
        )  # Codex then leaves its WebSocket at once
    if method not in methods:
        raise RefusedRequestError(405, f"{method} is not served")
    if "transfer-encoding" in names and "content-length" in names:
        raise RefusedRequestError(400, "a request with two lengths is not taken")
    if dict(headers).get("content-encoding", "identity").lower() != "identity":
        raise RefusedRequestError(415, "a compressed body is not read; send it as it is")
    path, _, query = target.partition("?")
    if not is_taken(path):
        raise RefusedRequestError(400, f"the path {path[:200]!r} is not taken")
    return method, path, query, headers
