"""Requests to MCP servers at an address that wants a secret: made anew, with the secret, to exactly that address.

The guest asks a loopback address for `/NAME` and holds no secret. What it sends besides a body and a few headers of the
protocol goes nowhere. Answers stream back as they come, searched for the secret's bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from coding_agents.brokers.http.request import (
    ByteStream,
    GuestConnection,
    HttpRequest,
    RefusedRequestError,
    Room,
)
from coding_agents.brokers.http.upstream import Address, Answer, Upstream, UpstreamError, parse_address
from coding_agents.brokers.mcp.stdio import written_forms
from coding_agents.brokers.model.apis import passing
from coding_agents.brokers.model.keyscan import KeyScanner, ReflectedError
from coding_agents.model.masked import Masked

if TYPE_CHECKING:
    import ssl

_MIB = 1 << 20
_CHUNK = 64 * 1024
# MCP 2025-06-18, transports, "Streamable HTTP"; `mcp-*` are those that the protocol has or will have.
_REQUEST_HEADERS = ("accept", "content-type", "last-event-id", "mcp-*")
_METHODS = ("GET", "POST", "DELETE")
_ANSWER_HEADERS = ("content-type", "cache-control", "retry-after", "mcp-*")


class WebLimits(msgspec.Struct, frozen=True):
    """Bounds of one session: bytes and seconds. A stream of events may be silent for `silence_s`."""

    body_bytes: int = 16 * _MIB
    held_bytes: int = 32 * _MIB
    answer_bytes: int = 256 * _MIB
    body_s: float = 60.0
    idle_s: float = 120.0
    silence_s: float = 3600.0
    answer_s: float = 6 * 3600.0


class Target(Masked, frozen=True):
    """Where requests to one server go: an address, a path with its query, and the headers that a person trusted."""

    MASKED = frozenset({"path", "headers", "secrets"})

    name: str
    address: Address
    path: str
    headers: tuple[tuple[str, str], ...]
    secrets: tuple[str, ...]


class NotServedError(Exception):
    """A request that is not sent; the message is shown to the agent."""


class WebService(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker is given.

    `target` judges and records a request to a server (its name, the method, the bytes of its body) and gives where it
    goes, or raises NotServedError; `ended` is told of one that did not come to a good end (name, reason, whether the
    secret was on its way back).
    """

    target: Callable[[str, str, int], Awaitable[Target]]
    ended: Callable[[str, str, bool], Awaitable[None]]
    proxy_for: Callable[[Address], str]
    tls: Callable[[], ssl.SSLContext]
    limits: WebLimits = WebLimits()


def target_of(name: str, url: str, headers: dict[str, str], token: str, secrets: tuple[str, ...]) -> Target:
    """Where a server's requests go, all secrets in place. Raises NotServedError, whose message holds no value."""
    parts = urlsplit(url)
    address = parse_address(f"{parts.scheme}://{parts.netloc}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if address is None or not path.isascii() or not path.isprintable() or " " in path or parts.fragment:
        raise NotServedError("with its secrets in place its url is none")
    fixed = {key.lower(): value for key, value in headers.items()}
    fixed |= {"authorization": f"Bearer {token}"} if token else {}
    if not all(
        value.isascii() and value.isprintable() and value == value.strip() for value in fixed.values()
    ):
        raise NotServedError("with its secrets in place a header of it is none")
    return Target(name, address, path, tuple(fixed.items()), secrets)


class WebBroker:
    """Serves the connections of one session's guest."""

    def __init__(self, service: WebService) -> None:
        self._service = service
        self._room = Room(service.limits.held_bytes)
        self._upstreams: dict[Address, Upstream] = {}

    async def serve(self, stream: ByteStream) -> None:
        """Serve one connection to its end. Raises nothing for what the guest sends or leaves out."""
        limits = self._service.limits
        watched = _Watched(stream)
        guest = GuestConnection(
            watched, self._room, body_bytes=limits.body_bytes, body_s=limits.body_s, methods=_METHODS
        )
        try:
            while await self._serve_one(guest, watched):
                pass
        except OSError:
            stream.reset("the connection broke off")
        except (ReflectedError, UpstreamError) as error:  # in the middle of an answer
            stream.reset(str(error) or "the answer was stopped")
        finally:
            guest.forget_body()
            await watched.close()

    async def close(self) -> None:
        """Close the connections to the servers."""
        for upstream in self._upstreams.values():
            await upstream.close()

    async def _serve_one(self, guest: GuestConnection, watched: _Watched) -> bool:
        """One request and its answer; False at the end of the connection."""
        try:
            request = await guest.next_request(self._service.limits.idle_s)
        except RefusedRequestError as error:
            await _answer_error(guest, error.status, error.reason)
            return False
        if request is None:
            return False
        name = request.path.removeprefix("/")
        if request.query or "/" in name:
            await _answer_error(guest, 404, "only the server itself is here")
            return True
        if request.method == "DELETE" and not request.header("mcp-session-id"):
            await _answer_error(guest, 400, "a DELETE ends a session of the protocol: it names one")
            return True
        try:
            target = await self._service.target(name, request.method, len(request.body))
        except NotServedError as error:
            await _answer_error(guest, 403, str(error))
            return True
        await watched.while_there(self._carry_out(guest, request, target))
        return True

    async def _carry_out(self, guest: GuestConnection, request: HttpRequest, target: Target) -> None:
        limits = self._service.limits
        fresh = {
            "user-agent": "coding-agents",
            **dict(passing(_REQUEST_HEADERS, request.headers)),
            **dict(target.headers),
        }
        headers = [*fresh.items(), ("accept-encoding", "identity")]
        begun = False
        try:
            async with (
                asyncio.timeout(limits.answer_s),
                self._upstream(target.address).exchange(
                    request.method, target.path, headers, request.body, silence_s=limits.silence_s
                ) as answer,
            ):
                scanner = KeyScanner(form for secret in target.secrets for form in written_forms(secret))
                kept = _checked(answer, scanner)
                begun = True
                guest.forget_body()
                await guest.begin_answer(answer.status, kept)
                await self._pass_on(guest, answer, scanner)
        except (UpstreamError, ReflectedError, TimeoutError) as error:
            reflected = isinstance(error, ReflectedError)
            reason = (
                "the answer held the secret; it was ended" if reflected else str(error) or "it took too long"
            )
            await self._service.ended(target.name, reason, reflected)
            if begun:
                raise UpstreamError(reason) from None
            await _answer_error(guest, 502, reason)

    async def _pass_on(self, guest: GuestConnection, answer: Answer, scanner: KeyScanner) -> None:
        received = 0
        async for data in answer.body:
            received += len(data)
            if received > self._service.limits.answer_bytes:
                raise UpstreamError("the answer is too long")
            if passed := scanner.feed(data):
                await guest.write(passed)
        if rest := scanner.finish():
            await guest.write(rest)
        await guest.end_answer()

    def _upstream(self, address: Address) -> Upstream:
        if address not in self._upstreams:
            proxy = self._service.proxy_for(address)
            self._upstreams[address] = Upstream(address, proxy=proxy, context=self._service.tls)
        return self._upstreams[address]


class _Watched:
    """A guest's stream whose end is also seen while nobody reads: a stream of events may be silent for hours."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._ahead: asyncio.Task[bytes] | None = None

    async def read(self, limit: int = _CHUNK) -> bytes:
        """As the stream's own. What one wait that was given up had begun to read is given to the next."""
        self._ahead = self._ahead or asyncio.ensure_future(self._stream.read(limit))
        data = await asyncio.shield(self._ahead)
        self._ahead = None
        return data

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    def reset(self, reason: str) -> None:
        self._stream.reset(reason)

    async def while_there(self, work: Coroutine[None, None, None]) -> None:
        """Do `work` unless the guest closes its end before; that raises ConnectionResetError."""
        self._ahead = self._ahead or asyncio.ensure_future(self._stream.read(_CHUNK))
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self._ahead), return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and self._ahead.exception() is None and self._ahead.result():
                await asyncio.wait((task,))  # its next request is there already
            if not task.done():
                raise ConnectionResetError("the guest has gone")
            task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)


def _checked(answer: Answer, scanner: KeyScanner) -> list[tuple[str, str]]:
    """The headers of an answer that may be passed on. Raises UpstreamError, ReflectedError."""
    if 300 <= answer.status < 400:
        raise UpstreamError(f"the server redirects ({answer.status}), which is not followed")
    if dict(answer.headers).get("content-encoding", "identity").lower() != "identity":
        raise UpstreamError("the server compresses its answer, which is then not searched")
    kept = passing(_ANSWER_HEADERS, answer.headers)
    for _, value in kept:
        scanner.feed(value.encode("latin-1") + b"\n")
    return kept


async def _answer_error(guest: GuestConnection, status: int, reason: str) -> None:
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": f"coding-agents: {reason}"}}
    await guest.answer(status, msgspec.json.encode(body))
