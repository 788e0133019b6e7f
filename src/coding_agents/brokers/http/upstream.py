"""One upstream: a fixed scheme, host, port and prefix, reached directly or through the host's proxy.

Nothing of a request chooses where it goes. Connections are kept for the next request, and redirects are not followed.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

import h11
import msgspec

if TYPE_CHECKING:
    import ssl

_CHUNK = 64 * 1024
_MAX_HEAD = 256 * 1024
_CONNECT_S = 30.0
_IDLE_S = 60.0
_KEPT = 4
_PORTS = {"https": 443, "http": 80}


class UpstreamError(Exception):
    """The upstream was not reached, or broke off; the message is for people."""


class Address(msgspec.Struct, frozen=True):
    """Where an upstream is. `prefix` goes before each path, without a slash at its end."""

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def authority(self) -> str:
        """What its Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse_address(url: str) -> Address | None:
    """The address in `http[s]://HOST[:PORT][/PREFIX]`; None for anything else."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    odd = parts.username or parts.password or parts.query or parts.fragment or ".." in parts.path
    if (
        parts.scheme not in _PORTS
        or not host
        or odd
        or not url.isascii()
        or not url.isprintable()
        or " " in url
    ):
        return None
    return Address(parts.scheme, host, port or _PORTS[parts.scheme], parts.path.rstrip("/"))


def proxy_for(address: Address, environ: Mapping[str, str]) -> str:
    """The host's proxy to `address`, "" for none: HTTPS_PROXY or HTTP_PROXY, and NO_PROXY, as curl(1) reads them."""
    for pattern in (environ.get("NO_PROXY") or environ.get("no_proxy") or "").split(","):
        name = pattern.strip().lstrip(".").lower()
        if name == "*" or (name and (address.host == name or address.host.endswith(f".{name}"))):
            return ""
    names = ("HTTPS_PROXY", "https_proxy") if address.scheme == "https" else ("http_proxy",)
    return next((environ[name] for name in (*names, "ALL_PROXY", "all_proxy") if environ.get(name)), "")


class _Bytes(Protocol):
    async def read(self, limit: int = ..., /) -> bytes: ...
    async def write(self, data: bytes, /) -> None: ...
    def close(self) -> None: ...


class _Plain:
    """asyncio's two streams as one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, limit: int = _CHUNK) -> bytes:
        return await self._reader.read(limit)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


class _Connection(msgspec.Struct):
    """`spoke` tells whether anything of an answer to the latest request has arrived."""

    link: _Bytes
    http: h11.Connection
    used_at: float = 0.0
    spoke: bool = False


class Answer(msgspec.Struct):
    """The head of an answer; `body` gives the rest as it comes, and raises UpstreamError when it breaks off."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: AsyncIterator[bytes]


class Upstream:
    """Requests to one address. `context` makes what TLS trusts, `proxy` is a URL or ""."""

    def __init__(self, address: Address, *, proxy: str, context: Callable[[], ssl.SSLContext]) -> None:
        self.address = address
        self._proxy = proxy
        self._make_context = context
        self._context: ssl.SSLContext | None = None
        self._kept: list[_Connection] = []

    @asynccontextmanager
    async def exchange(
        self, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes, *, silence_s: float
    ) -> AsyncIterator[Answer]:
        """Send one request and give its answer, in whose time no read may take longer than `silence_s`.

        Raises UpstreamError until the head of the answer is there.
        """
        head = h11.Request(
            method=method,
            target=f"{self.address.prefix}{target}",
            headers=[("host", self.address.authority), ("content-length", str(len(body))), *headers],
        )
        connection, response = await self._asked(head, body, silence_s)
        try:
            fields = tuple(
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers
            )
            yield Answer(response.status_code, fields, _body(connection, silence_s))
        finally:
            self._keep(connection)

    async def close(self) -> None:
        """Close what is kept for the next request."""
        for connection in self._kept:
            connection.link.close()
        self._kept.clear()

    async def _asked(
        self, head: h11.Request, body: bytes, silence_s: float
    ) -> tuple[_Connection, h11.Response]:
        """A connection that took the request, and the head of the answer.

        One that was kept may have been closed meanwhile: when it says nothing at all, a new one is asked.
        """
        kept = self._take_kept()
        if kept is not None:
            with suppress(UpstreamError):
                return kept, await _ask(kept, head, body, silence_s)
            kept.link.close()
            if kept.spoke:
                raise UpstreamError("the service broke off")
        new = await self._connect()
        try:
            return new, await _ask(new, head, body, silence_s)
        except BaseException:
            new.link.close()
            raise

    def _take_kept(self) -> _Connection | None:
        now = asyncio.get_running_loop().time()
        while self._kept:
            connection = self._kept.pop()
            if now - connection.used_at < _IDLE_S:
                return connection
            connection.link.close()
        return None

    def _keep(self, connection: _Connection) -> None:
        http = connection.http
        if http.our_state is h11.DONE and http.their_state is h11.DONE and len(self._kept) < _KEPT:
            http.start_next_cycle()
            connection.used_at = asyncio.get_running_loop().time()
            self._kept.append(connection)
        else:
            connection.link.close()

    async def _connect(self) -> _Connection:
        where = self.address
        try:
            async with asyncio.timeout(_CONNECT_S):
                link = await self._reached()
        except (OSError, TimeoutError, h11.RemoteProtocolError) as error:
            way = f" through the proxy {_without_user(self._proxy)}" if self._proxy else ""
            raise UpstreamError(
                f"{where.authority} is not reached{way}: {str(error) or 'it does not answer'}"
            ) from error
        return _Connection(link, h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD))

    async def _reached(self) -> _Bytes:
        where, proxy = self.address, parse_address(_without_user(self._proxy)) if self._proxy else None
        if self._proxy and (proxy is None or proxy.scheme != "http"):
            raise OSError("only proxies of the form http://HOST:PORT are known")
        through = proxy or where
        reader, writer = await asyncio.open_connection(through.host, through.port)
        try:
            if proxy is not None:
                await _tunnel(reader, writer, where, self._proxy)
            if where.scheme == "http":
                return _Plain(reader, writer)
            from coding_agents.brokers.http.tls import TlsStream

            if self._context is None:
                self._context = self._make_context()
            tls = TlsStream(reader, writer, self._context, where.host)
            await tls.handshake()
        except BaseException:
            writer.close()
            raise
        return tls


async def _ask(connection: _Connection, head: h11.Request, body: bytes, silence_s: float) -> h11.Response:
    http, connection.spoke = connection.http, False
    events: tuple[h11.Event, ...] = (head, h11.Data(data=body), h11.EndOfMessage())
    try:
        async with asyncio.timeout(silence_s):
            with suppress(ConnectionError):  # it may have answered before it had read everything
                await connection.link.write(b"".join(http.send(event) or b"" for event in events))
            while True:
                event = await _next_event(connection, silence_s)
                if isinstance(event, h11.Response):
                    return event
                if not isinstance(event, h11.InformationalResponse):
                    raise UpstreamError("the service broke off before it answered")
    except TimeoutError:
        raise UpstreamError(f"the service has not answered for {silence_s:.0f} s") from None


async def _body(connection: _Connection, silence_s: float) -> AsyncIterator[bytes]:
    while True:
        event = await _next_event(connection, silence_s)
        if isinstance(event, h11.Data):
            yield bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return
        else:
            raise UpstreamError("the service broke off")


async def _next_event(connection: _Connection, silence_s: float) -> object:
    try:
        while True:
            event = connection.http.next_event()
            if event is not h11.NEED_DATA:
                return event
            async with asyncio.timeout(silence_s):
                data = await connection.link.read(_CHUNK)
            connection.spoke = connection.spoke or bool(data)
            connection.http.receive_data(data)
    except TimeoutError:
        raise UpstreamError(f"the service was silent for {silence_s:.0f} s") from None
    except (OSError, h11.RemoteProtocolError) as error:
        raise UpstreamError(f"the service broke off: {error}") from error


async def _tunnel(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: Address, proxy: str
) -> None:
    """Ask a proxy for a connection to `where` (RFC 9110, 9.3.6). Raises OSError when it gives none."""
    http = h11.Connection(h11.CLIENT)
    target = f"{where.host}:{where.port}"
    headers = [("host", target)]
    parts = urlsplit(proxy)
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers.append(("proxy-authorization", f"Basic {base64.b64encode(pair).decode()}"))
    writer.write(http.send(h11.Request(method="CONNECT", target=target, headers=headers)) or b"")
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Response):
            if 200 <= event.status_code < 300:
                return
            raise OSError(f"the proxy answers {event.status_code}")
        elif not isinstance(event, h11.InformationalResponse):
            raise OSError("the proxy broke off")


def _without_user(url: str) -> str:
    """A proxy's URL without its user and password."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"
