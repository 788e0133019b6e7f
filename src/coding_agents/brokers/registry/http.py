"""The registry broker of one session: reads packages of the user's indexes, with a credential that stays on the host.

A guest chooses a place, a path below its base and GET or HEAD; all else of a request is made anew. Answers stream back,
searched for the credential. In pages of an index, addresses that lead to one of its places lead to us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from coding_agents.brokers.http.request import (
    ByteStream,
    GuestConnection,
    HttpRequest,
    RefusedRequestError,
    Room,
)
from coding_agents.brokers.http.upstream import Address, Answer, Upstream, UpstreamError
from coding_agents.brokers.model.apis import passing
from coding_agents.brokers.model.keyscan import KeyScanner, ReflectedError
from coding_agents.brokers.registry.places import Place, Places, is_query, is_taken
from coding_agents.brokers.registry.rewrite import Rewriter
from coding_agents.model.masked import Masked

if TYPE_CHECKING:
    import ssl

_GIB = 1 << 30
_METHODS = ("GET", "HEAD")
_REQUEST_HEADERS = ("accept", "if-none-match", "if-modified-since")
_ANSWER_HEADERS = ("content-type", "etag", "last-modified", "cache-control", "retry-after")
_PAGES = ("text/html", "application/json", "application/vnd.pypi.simple.", "application/vnd.npm.install-")
_REDIRECTS = (301, 302, 303, 307, 308)
_BODILESS = (204, 304)


class RegistryLimits(msgspec.Struct, frozen=True):
    """Bounds of one session: bytes and seconds. `page_bytes` is the longest page, `file_bytes` the longest file."""

    page_bytes: int = 256 << 20
    file_bytes: int = 4 * _GIB
    session_bytes: int = 32 * _GIB
    session_requests: int = 100_000  # each is a record of some 500 bytes
    idle_s: float = 120.0
    silence_s: float = 60.0
    answer_s: float = 3600.0


class Access(Masked, frozen=True):
    """With what a place is asked: headers, and the secrets in all their spellings. `source` is for people."""

    MASKED = frozenset({"headers", "secrets"})

    source: str = "none"
    headers: Mapping[str, str] = {}
    secrets: tuple[str, ...] = ()


class NotServedError(Exception):
    """A request that is not sent; the message is shown to the agent."""


class RegistryService(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker is given.

    `places` are those of now; `admit` judges and records a request (place, method, path) and gives what it is asked
    with, or raises NotServedError; `refused` is told of one that leads nowhere (method, path, why), `ended` of one that
    came to no good end (place, path, why, whether the credential was on its way back).
    """

    places: Callable[[], Awaitable[Places]]
    admit: Callable[[Place, str, str], Awaitable[Access]]
    refused: Callable[[str, str, str], Awaitable[None]]
    ended: Callable[[Place, str, str, bool], Awaitable[None]]
    proxy_for: Callable[[Address], str]
    tls: Callable[[], ssl.SSLContext]
    limits: RegistryLimits = RegistryLimits()


class RegistryBroker:
    """Serves the connections of one session's guest."""

    def __init__(self, service: RegistryService) -> None:
        self._service = service
        self._room = Room(0)
        self._upstreams: dict[Address, Upstream] = {}
        self._received = 0
        self._requests = 0

    async def serve(self, stream: ByteStream) -> None:
        """Serve one connection to its end. Raises nothing for what the guest sends or leaves out."""
        guest = GuestConnection(
            stream, self._room, body_bytes=0, body_s=30.0, methods=_METHODS, path=is_taken
        )
        try:
            while await self._serve_one(guest):
                pass
        except OSError:
            stream.reset("the connection broke off")
        except (ReflectedError, UpstreamError) as error:  # in the middle of an answer
            stream.reset(str(error) or "the answer was stopped")

    async def close(self) -> None:
        """Close the connections to the indexes."""
        for upstream in self._upstreams.values():
            await upstream.close()

    async def _serve_one(self, guest: GuestConnection) -> bool:
        """One request and its answer; False at the end of the connection."""
        limits = self._service.limits
        try:
            request = await guest.next_request(limits.idle_s)
        except RefusedRequestError as error:
            await self._service.refused("", "", error.reason)
            await _say(guest, error.status, error.reason)
            return False
        if request is None:
            return False
        try:
            places = await self._service.places()
            asked = places.asked(request.path) if is_query(request.query) else None
            if asked is None:
                reason = "no package index of this session is there, or the path leads out of it"
                await self._service.refused(request.method, request.path, reason)
                raise NotServedError(reason)
            if self._received >= limits.session_bytes or self._requests >= limits.session_requests:
                raise NotServedError("the session has read as much of package indexes as it may")
            self._requests += 1
            access = await self._service.admit(asked[0], request.method, asked[1])
        except NotServedError as error:
            await _say(guest, 403, str(error), head=request.method == "HEAD")
            return True
        await self._carry_out(guest, request, places, *asked, access)
        return True

    async def _carry_out(
        self,
        guest: GuestConnection,
        request: HttpRequest,
        places: Places,
        place: Place,
        path: str,
        access: Access,
    ) -> None:
        limits, begun, head = self._service.limits, False, request.method == "HEAD"
        headers = {
            "user-agent": "coding-agents",
            **dict(passing(_REQUEST_HEADERS, request.headers)),
            **access.headers,
        }
        target = path + (f"?{request.query}" if request.query else "")
        try:
            async with (
                asyncio.timeout(limits.answer_s),
                self._upstream(place.address).exchange(
                    request.method,
                    target,
                    [*headers.items(), ("accept-encoding", "identity")],
                    b"",
                    silence_s=limits.silence_s,
                ) as answer,
            ):
                scanner = KeyScanner(access.secrets)
                kept = _checked(answer, scanner)
                if answer.status in _REDIRECTS:
                    kept.append(("location", _inward(places, place, path, answer)))
                page = dict(kept).get("content-type", "").lower().startswith(_PAGES)
                if not page and "content-length" in dict(answer.headers):
                    kept.append(("content-length", dict(answer.headers)["content-length"]))
                begun = True
                await guest.begin_answer(answer.status, kept)
                if not head and answer.status not in _BODILESS:
                    rewriter = Rewriter(places.replacements(place) if page else {})
                    await self._pass_on(
                        guest, answer, scanner, rewriter, limits.page_bytes if page else limits.file_bytes
                    )
                await guest.end_answer()
        except (UpstreamError, ReflectedError, TimeoutError) as error:
            reflected = isinstance(error, ReflectedError)
            reason = (
                "the answer held the credential; it was ended"
                if reflected
                else str(error) or "it took too long"
            )
            await self._service.ended(place, path, reason, reflected)
            if begun:
                raise UpstreamError(reason) from None
            await _say(guest, 502, reason, head=head)

    async def _pass_on(
        self, guest: GuestConnection, answer: Answer, scanner: KeyScanner, rewriter: Rewriter, most: int
    ) -> None:
        received = 0
        async for data in answer.body:
            received += len(data)
            self._received += len(data)
            if received > most or self._received > self._service.limits.session_bytes:
                raise UpstreamError("the answer is too long")
            if passed := rewriter.feed(scanner.feed(data)):
                await guest.write(passed)
        if rest := rewriter.feed(scanner.finish()) + rewriter.finish():
            await guest.write(rest)

    def _upstream(self, address: Address) -> Upstream:
        if address not in self._upstreams:
            proxy = self._service.proxy_for(address)
            self._upstreams[address] = Upstream(address, proxy=proxy, context=self._service.tls)
        return self._upstreams[address]


def _checked(answer: Answer, scanner: KeyScanner) -> list[tuple[str, str]]:
    """The headers of an answer that may be passed on. Raises UpstreamError, ReflectedError."""
    headers = dict(answer.headers)
    if answer.status in (401, 403, 407):
        raise UpstreamError(f"the index refuses the host's credential, or that it has none ({answer.status})")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UpstreamError("the index compresses its answer, which is then not searched")
    kept = passing(_ANSWER_HEADERS, answer.headers)
    for value in (*(value for _, value in kept), headers.get("location", "")):
        scanner.feed(value.encode("latin-1") + b"\n")
    return kept


def _inward(places: Places, place: Place, path: str, answer: Answer) -> str:
    """Where a redirect leads the guest: through us again, to a place. Raises UpstreamError."""
    location = places.inward(dict(answer.headers).get("location", ""), seen_from=place, at=path)
    if not location:
        reason = f"the index redirects ({answer.status}) to a place that is none of its own"
        raise UpstreamError(f"{reason}: the setting registry.{place.registry.kind} can name it as files=URL")
    return location


async def _say(guest: GuestConnection, status: int, reason: str, *, head: bool = False) -> None:
    """Why there is no package, in words that pip and npm show."""
    body = msgspec.json.encode({"error": f"coding-agents: {reason}"})
    fields = [("content-type", "application/json"), ("content-length", str(len(body)))]
    await guest.begin_answer(status, fields, reason=f"coding-agents: {reason}")
    if not head:
        await guest.write(body)
    await guest.end_answer()
