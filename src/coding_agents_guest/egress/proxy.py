"""The proxy itself: judges each request, carries what may go out, and tells of all.

Tunnels are carried by us: the TLS client must name the very host that the tunnel leads to. Anything else goes to
squid, which reads HTTP as a whole program for that does, and comes back to `serve_exit` as a request that is judged as
squid has understood it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from coding_agents_guest.egress.clienthello import (
    MAX_HELLO,
    ClientFlight,
    HelloError,
    read_hello,
    require_host,
)
from coding_agents_guest.egress.entry import Entry
from coding_agents_guest.egress.explain import explain
from coding_agents_guest.egress.flows import both, carry_watched, first_bytes, say_last, uncounted, whole_head
from coding_agents_guest.egress.heads import HeadError, parse_connect, parse_plain, refusal
from coding_agents_guest.egress.ledger import Account, Ledger, Limits, SpentError
from coding_agents_guest.egress.names import Connector, OutError
from coding_agents_guest.egress.orders import Orders
from coding_agents_guest.egress.outbox import Outbox
from coding_agents_guest.egress.paths import EXPLAIN, SQUID_PORT
from coding_agents_guest.egress.pump import carry
from coding_agents_guest.egress.rules import Request, Rules
from coding_agents_guest.records import asdict

_HELLO_S = 5.0
_CONNECT = b"CONNECT "
_CHUNK = 64 * 1024
_TOLD_AFTER_S = 1.5  # what takes longer is told of before it ends, too
_MOST_CONNECTIONS = 512
_MAX_QUESTION = 8192
_SQUID_S = 15.0
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_ACCESS_DENIED = (
    b"\x15\x03\x03\x00\x02\x02\x31"  # a fatal alert (RFC 8446 §6.2), so that a TLS client can say why
)
_STATUS = {
    "malformed": 400,
    "busy": 429,
    "unresolved": 502,
    "unreachable": 502,
    "unrecorded": 503,
    "not-ready": 503,
}

Handler = Callable[[socket.socket, Entry], Awaitable[None]]


class Refused(Exception):
    """A request that is not carried out; `reason` is a word of `rules.REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Proxy:
    """One session's. Without rules (`use`) it refuses everything."""

    def __init__(self, connector: Connector, outbox: Outbox) -> None:
        self._connector = connector
        self._outbox = outbox
        self._orders: Orders | None = None
        self._ledger = Ledger(Limits())

    def use(self, orders: Orders) -> None:
        """From now on these decide. What is under way goes on."""
        self._orders = orders
        self._ledger.limits = orders.limits

    async def serve_front(self, listener: socket.socket) -> None:
        """Take the agent's connections until cancelled."""
        await self._serve(listener, self._front)

    async def serve_exit(self, listener: socket.socket) -> None:
        """Take what squid has understood, until cancelled."""

        async def handle(squid: socket.socket) -> None:
            if data := await first_bytes(squid):  # squid also looks whether we are there
                await self._told(squid, lambda one, entry: self._plain(one, entry, data))

        await self._serve(listener, handle)

    async def _serve(
        self, listener: socket.socket, handle: Callable[[socket.socket], Awaitable[None]]
    ) -> None:
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()  # a front that is full must not keep squid from its exit
        with listener:
            while True:
                while len(tasks) >= _MOST_CONNECTIONS:  # who comes waits in the backlog
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError:  # too many files
                    await asyncio.sleep(0.1)
                    continue
                task = asyncio.ensure_future(_closing(connection, handle))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    async def _front(self, agent: socket.socket) -> None:
        data = await first_bytes(agent)
        if data.startswith(_CONNECT):
            await self._told(agent, lambda one, entry: self._tunnel(one, entry, data))
        elif data.startswith(EXPLAIN):
            await say_last(agent, await self._explained(agent, data))
        elif data:
            with await _to_squid() as squid:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(squid, data)
                await both(carry(agent, squid, uncounted), carry(squid, agent, uncounted))

    async def _explained(self, agent: socket.socket, data: bytes) -> bytes:
        """The answer to who asks what would be decided, or for the rules; the agent may know them."""
        loop = asyncio.get_running_loop()
        while b"\n" not in data and len(data) < _MAX_QUESTION:
            more = await asyncio.wait_for(loop.sock_recv(agent, _MAX_QUESTION), _HELLO_S)
            if not more:
                break
            data += more
        rules = self._orders.rules if self._orders is not None else Rules()
        try:
            url = str(json.loads(data[len(EXPLAIN) :]))
            told = asdict(explain(rules, url)) if url else _listed(rules)
        except (ValueError, RecursionError) as error:
            told = {"error": f"not a URL: {error}"[:300]}
        return json.dumps(told).encode() + b"\n"

    async def _told(self, near: socket.socket, handle: Handler) -> None:
        """Handle one request of `near`, tell of it however it ends, and say why when it is refused."""
        entry = Entry(self._outbox)
        answer = b""
        try:
            await handle(near, entry)
        except (Refused, OutError, HeadError, HelloError) as error:
            reason = getattr(error, "reason", "malformed")
            entry.address = entry.address or getattr(error, "address", "")
            entry.refused(reason, note=str(error))
            answer = _answer(reason, entry)
        except SpentError:
            entry.refused("budget")
        except (OSError, TimeoutError) as error:
            entry.failed("broken", note=str(error))
        finally:
            entry.end()
        if answer:
            await say_last(near, answer)

    async def _tunnel(self, agent: socket.socket, entry: Entry, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        head, rest = await whole_head(agent, data)
        request = entry.of(parse_connect(head).request)
        with self._admitted(request, entry) as orders:
            target, entry.address = await self._connector.connect(request, orders)
            with target:
                entry.status = 200
                await loop.sock_sendall(agent, _ESTABLISHED)
                hello = await self._hello(agent, rest, request, entry, allow_ech=orders.allow_ech)
                flight = ClientFlight(request.host.lower(), allow_ech=orders.allow_ech)
                flight.feed(hello)
                entry.account.sent(len(hello))
                await loop.sock_sendall(target, hello)
                await _carried(entry, carry_watched(agent, target, entry.account.sent, flight), target, agent)

    async def _plain(self, squid: socket.socket, entry: Entry, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        head, rest = await whole_head(squid, data)
        plain = parse_plain(head)
        request = entry.of(plain.request)
        with self._admitted(request, entry) as orders:
            target, entry.address = await self._connector.connect(request, orders)
            with target:
                by = orders.host_proxy if entry.address.startswith("by ") else None
                onward = (plain.onward() if by is None else plain.onward_by(by.authorization)) + rest
                entry.account.sent(len(onward))
                await loop.sock_sendall(target, onward)
                await _carried(entry, carry(squid, target, entry.account.sent), target, squid)

    @contextmanager
    def _admitted(self, request: Request, entry: Entry) -> Iterator[Orders]:
        """Judge the request by the orders that it gives; within the block it is under way. Raises Refused."""
        orders = self._orders
        if orders is None:
            raise Refused("not-ready")
        if self._outbox.full:
            raise Refused("unrecorded")
        decision = orders.rules.decide(request)
        entry.rule = decision.rule
        if not decision.allowed:
            raise Refused(decision.reason)
        if self._ledger.spent:
            raise Refused("budget")
        if not self._ledger.begin(time.monotonic()):
            raise Refused("busy")
        entry.account = Account(self._ledger)
        try:
            yield orders
        finally:
            self._ledger.end()

    async def _hello(
        self, agent: socket.socket, data: bytes, request: Request, entry: Entry, *, allow_ech: bool
    ) -> bytes:
        """The first flight of a TLS client that names the tunnel's host, and no other. Raises HelloError, OSError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_HELLO_S):
                while (hello := read_hello(data)) is None:
                    more = await loop.sock_recv(agent, MAX_HELLO)
                    if not more:
                        raise HelloError("not-tls", "the tunnel was closed before a ClientHello")
                    data += more
        except TimeoutError:
            raise HelloError("not-tls", "no ClientHello arrived in time") from None
        entry.sni = hello.host
        require_host(hello, request.host.lower(), allow_ech=allow_ech)
        return data


async def _closing(connection: socket.socket, handle: Callable[[socket.socket], Awaitable[None]]) -> None:
    with connection:
        connection.setblocking(False)
        with suppress(OSError, TimeoutError):  # it broke off before there was a request
            await handle(connection)


async def _carried(
    entry: Entry, upwards: Coroutine[Any, Any, None], far: socket.socket, near: socket.socket
) -> None:
    told = asyncio.get_running_loop().call_later(_TOLD_AFTER_S, entry.tell_of_begin)
    try:
        await both(upwards, carry(far, near, entry.account.received))
    finally:
        told.cancel()


async def _to_squid() -> socket.socket:
    """A connection to squid, which may still be starting: no launch waits for it. Raises OSError."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _SQUID_S
    while True:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await loop.sock_connect(one, ("127.0.0.1", SQUID_PORT))
        except ConnectionRefusedError:
            one.close()
            if loop.time() > deadline:
                raise
            await asyncio.sleep(0.05)
        except BaseException:
            one.close()
            raise
        else:
            return one


def _listed(rules: Rules) -> dict[str, object]:
    return {
        "opened": [(rule.source, rule.text) for rule in rules.opened],
        "closed": [(rule.source, rule.text) for rule in rules.closed],
    }


def _answer(reason: str, entry: Entry) -> bytes:
    if entry.status == 200:  # the tunnel stands: only TLS can say something now
        return _ACCESS_DENIED
    return refusal(reason, entry.request, rule=entry.rule, status=_STATUS.get(reason, 403))
