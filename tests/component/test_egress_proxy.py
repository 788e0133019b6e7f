"""The proxy of mode `squid` on loopback, without an engine: what it lets out, carries, breaks off, and tells of it."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from coding_agents.attacks.egress import client_hello
from coding_agents_guest.egress import flows, names, proxy
from coding_agents_guest.egress.ledger import Limits
from coding_agents_guest.egress.names import Connector
from coding_agents_guest.egress.orders import Orders
from coding_agents_guest.egress.outbox import Outbox
from coding_agents_guest.egress.proxy import Proxy
from coding_agents_guest.egress.rules import Rules, parse_rule

HOST = "good.example"
HELLO = client_hello(HOST)
ALERT = b"\x15\x03\x03\x00\x02\x02\x31"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class World:
    """A proxy in this loop, and a server that every name leads to."""

    port: int
    front: tuple[str, int]
    exit: tuple[str, int]
    proxy: Proxy
    outbox: Outbox
    arrived: list[bytearray] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    clients: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [dict(event) for _, event in self.outbox.after(0)]

    def use(self, *rules: str, **more: Any) -> None:
        texts = [rule.replace("PORT", str(self.port)) for rule in rules or (f"{HOST}:PORT",)]
        self.proxy.use(Orders(Rules([parse_rule(text, "user") for text in texts]), **more))

    async def event(self, count: int = 1) -> dict[str, Any]:
        """The last of the first `count` events, once they are there."""
        await asyncio.wait_for(self.outbox.wait(count - 1), 10)
        return self.events[count - 1]

    async def open(self, place: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*place)
        self.clients.append(writer)
        return reader, writer

    async def connect(
        self, host: str = HOST, port: int = 0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.open(self.front)
        place = f"{host}:{port or self.port}"
        writer.write(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        return reader, writer

    async def tunnel(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.connect()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(HELLO)
        return reader, writer


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write(b"end")


@asynccontextmanager
async def a_world(
    monkeypatch: pytest.MonkeyPatch,
    *,
    serve: Serve = _echo,
    is_open: Any = None,
    addresses: tuple[str, ...] = ("127.0.0.1",),
    most: int = 4096,
) -> AsyncIterator[World]:
    arrived: list[bytearray] = []
    asked: list[str] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = bytearray()
        arrived.append(mine)
        read = reader.read

        async def noted(size: int = -1) -> bytes:
            data = await read(size)
            mine.extend(data)
            return data

        reader.read = noted  # type: ignore[method-assign]
        try:
            await serve(reader, writer)
        except OSError:
            pass
        finally:
            writer.close()

    def look_up(host: str, _port: int) -> list[Any]:
        asked.append(host)
        return [ipaddress.ip_address(address) for address in addresses]

    monkeypatch.setattr(names, "_look_up", look_up)
    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    outbox = Outbox(most)
    one = Proxy(Connector(is_open or (lambda address, port: True)), outbox)
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    front, exit_ = (listener.getsockname() for listener in listeners)
    ways = (one.serve_front(listeners[0]), one.serve_exit(listeners[1]))
    serving = [asyncio.ensure_future(way) for way in ways]
    world = World(server.sockets[0].getsockname()[1], front, exit_, one, outbox, arrived, asked)
    try:
        yield world
    finally:
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        for writer in world.clients:
            writer.close()
            with suppress(OSError):
                await asyncio.wait_for(writer.wait_closed(), 10)
        server.close()
        await asyncio.sleep(0.02)


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 60))


async def ended(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""


def test_a_tunnel_carries_both_ways_and_passes_each_end_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with a_world(monkeypatch) as world:
            world.use()
            reader, writer = await world.tunnel()
            assert await reader.readexactly(len(HELLO)) == HELLO
            writer.write(b"\x17\x03\x03\0\5hello")
            assert await reader.readexactly(10) == b"\x17\x03\x03\0\5hello"
            writer.write_eof()
            assert await ended(reader) == b"end", "what comes after our own end"
            told = await world.event()
            size = len(HELLO) + 10
            assert (told["outcome"], told["up"], told["down"]) == ("allowed", size, size + 3)
            assert (told["rule"], told["sni"], told["address"], told["status"]) == (
                f"user:{HOST}:{world.port}", HOST, "127.0.0.1", 200,
            )  # fmt: skip
            assert world.asked == [f"{HOST}."], "resolved once, with no search domain"

    run(scene())


def test_megabytes_pass_unchanged_to_a_slow_reader_and_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 40_000
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.read(1 << 16)
        for at in range(0, len(content), 1 << 16):
            writer.write(content[at : at + (1 << 16)])
            await writer.drain()
            sent = at

    async def scene() -> None:
        async with a_world(monkeypatch, serve=serve) as world:
            world.use()
            reader, _ = await world.tunnel()
            await asyncio.sleep(0.3)
            held = sent
            await asyncio.sleep(0.3)
            assert held == sent < len(content), "nobody keeps what nobody reads"
            assert await ended(reader) == content
            assert (await world.event())["down"] == len(content)

    run(scene())


REFUSED: dict[str, tuple[str, int, str, int]] = {
    "unlisted": ("other.example", 0, "not-listed", 403),
    "port": (HOST, 22, "port", 403),
    "address": ("127.0.0.1", 0, "ip-literal", 403),
    "trailing dot": (f"{HOST}.", 0, "bad-host", 403),
    "port in words": (HOST, -1, "malformed", 400),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_reaches_nobody_and_is_told(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    host, port, reason, status = REFUSED[case]

    async def scene() -> None:
        async with a_world(monkeypatch) as world:
            world.use()
            reader, _ = await world.connect(host, port)
            answer = await ended(reader)
            assert answer.startswith(f"HTTP/1.1 {status} ".encode())
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["reason"] == reason
            told = await world.event()
            assert (told["outcome"], told["reason"], told["up"]) == ("denied", reason, 0)
            assert world.asked == world.arrived == [], "no name was even resolved"

    run(scene())


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (client_hello("other.example"), "sni"), (client_hello(""), "no-sni"), (client_hello(HOST, ech=True), "ech"),
        (b"GET / HTTP/1.1\r\n\r\n", "not-tls"), (b"SSH-2.0-x\r\n", "not-tls"),
    ],
)  # fmt: skip
def test_who_means_another_host_gets_an_alert_and_the_host_nothing(
    monkeypatch: pytest.MonkeyPatch, first: bytes, reason: str
) -> None:
    async def scene() -> None:
        async with a_world(monkeypatch) as world:
            world.use()
            reader, writer = await world.connect()
            await reader.readuntil(b"\r\n\r\n")
            writer.write(first)
            assert await ended(reader) == ALERT
            assert (await world.event())["reason"] == reason
            assert [bytes(one) for one in world.arrived] in ([], [b""])

    run(scene())


def test_a_second_hello_that_names_another_host_does_not_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with a_world(monkeypatch) as world:
            world.use()
            reader, writer = await world.tunnel()
            await reader.readexactly(len(HELLO))
            writer.write(b"\x14\x03\x03\0\1\1" + client_hello("other.example"))
            await ended(reader)
            told = await world.event()
            assert (told["outcome"], told["reason"]) == ("denied", "sni")
            assert told["up"] == len(HELLO)
            assert b"other.example" not in world.arrived[0]

    run(scene())


@pytest.mark.parametrize(
    "addresses", [("127.0.0.1", "10.0.0.1"), ("10.0.0.1", "127.0.0.1"), ("10.0.0.1",), ("127.0.0.1", "::1")]
)
def test_one_address_that_is_shut_condemns_the_name(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    async def scene() -> None:
        judged: list[str] = []

        def is_open(address: Any, port: int) -> bool:
            judged.append(f"{address} {port}")
            return str(address) == "127.0.0.1"

        async with a_world(monkeypatch, is_open=is_open, addresses=addresses) as world:
            world.use()
            reader, _ = await world.connect()
            assert b'"reason": "address"' in await ended(reader)
            assert world.arrived == []
            shut = next(address for address in addresses if address != "127.0.0.1")
            assert (await world.event())["address"] == shut
            assert f"{shut} {world.port}" in judged

    run(scene())


@pytest.mark.parametrize("limits", [Limits(up=2000), Limits(request_up=2000)])
def test_a_budget_breaks_off_what_would_exceed_it(monkeypatch: pytest.MonkeyPatch, limits: Limits) -> None:
    async def scene() -> None:
        async with a_world(monkeypatch) as world:
            world.use(limits=limits)
            reader, writer = await world.tunnel()
            await reader.readexactly(len(HELLO))
            writer.write(b"\x17\x03\x03\0\1x" * 2000)
            await ended(reader)
            told = await world.event()
            assert (told["outcome"], told["reason"]) == ("denied", "budget")
            assert len(world.arrived[0]) <= 2000
            reader, _ = await world.connect()
            answer = await reader.readuntil(b"\r\n\r\n")
            assert (b" 200 " in answer) == (not limits.up)
            if limits.up:
                assert b"X-Coding-Agents-Reason: budget" in answer

    run(scene())


def test_a_download_is_broken_off_at_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        writer.write(bytes(1 << 20))
        await writer.drain()

    async def scene() -> None:
        async with a_world(monkeypatch, serve=serve) as world:
            world.use(limits=Limits(down=100_000))
            reader, _ = await world.tunnel()
            assert len(await ended(reader)) <= 100_000
            assert (await world.event())["reason"] == "budget"

    run(scene())


def test_a_reset_on_either_side_ends_both_and_is_told_with_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def reset(writer: asyncio.StreamWriter) -> None:
        one = writer.get_extra_info("socket")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        if not resets:
            resets.append(1)
            reset(writer)
        await reader.read()

    resets: list[int] = []

    async def scene() -> None:
        async with a_world(monkeypatch, serve=serve) as world:
            world.use()
            reader, _ = await world.tunnel()
            assert await ended(reader) == b""
            told = await world.event()
            assert (told["outcome"], told["reason"], told["up"]) == ("failed", "broken", len(HELLO))
            _, writer = await world.tunnel()
            await asyncio.sleep(0.1)
            reset(writer)
            told = await world.event(2)
            assert (told["outcome"], told["up"]) == ("failed", len(HELLO))

    run(scene())


def test_requests_at_once_are_bounded_and_the_next_takes_the_place_of_one_that_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene() -> None:
        async with a_world(monkeypatch) as world:
            world.use(limits=Limits(at_once=2))
            first, second = [await world.tunnel() for _ in range(2)]
            reader, _ = await world.connect()
            assert (await ended(reader)).startswith(b"HTTP/1.1 429 ")
            first[1].close()
            second[1].write_eof()
            await world.event(2)
            await world.tunnel()
            assert len(world.arrived) == 3

    run(scene())


def test_a_flood_is_answered_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with a_world(monkeypatch) as world:
            world.use(limits=Limits(per_second=1))
            statuses = []
            for _ in range(420):
                reader, writer = await world.connect()
                statuses.append((await reader.readline())[9:12])
                writer.close()
            assert statuses[:400] == [b"200"] * 400
            assert b"429" in statuses[400:]

    run(scene())


@pytest.mark.parametrize(
    "pieces", [(b"CONNECT good",), (b"C",), (b"CONNECT good.example:443 HTTP/1.1\r\n", b"X: y\r\n")]
)
def test_a_head_that_does_not_arrive_in_time_is_let_go(
    monkeypatch: pytest.MonkeyPatch, pieces: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(flows, "_HEAD_S", 0.3)

    async def scene() -> None:
        async with a_world(monkeypatch) as world:
            world.use()
            reader, writer = await world.open(world.front)
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.1)
            assert (await ended(reader)).startswith(b"HTTP/1.1 400 ") == (len(pieces[0]) >= 8)
            assert world.arrived == []

    run(scene())


def test_a_hello_that_does_not_arrive_in_time_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "_HELLO_S", 0.3)

    async def scene() -> None:
        async with a_world(monkeypatch) as world:
            world.use(limits=Limits(at_once=1))
            reader, writer = await world.connect()
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HELLO[:50])
            assert await ended(reader) == ALERT
            assert (await world.event())["reason"] == "not-tls"
            await world.tunnel()  # its place is free again

    run(scene())


def test_without_rules_and_with_a_full_outbox_nothing_goes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with a_world(monkeypatch, most=8) as world:
            reader, _ = await world.connect()
            assert b'"reason": "not-ready"' in await ended(reader)
            world.use()
            for _ in range(5):
                world.outbox.put({})
            for _ in range(3):
                reader, _ = await world.connect()
                assert b'"reason": "unrecorded"' in await ended(reader)
            assert world.arrived == []
            world.outbox.taken(99)
            await world.tunnel()

    run(scene())


def test_a_flood_of_refusals_does_not_push_out_what_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with a_world(monkeypatch, most=8) as world:
            world.use()
            reader, writer = await world.tunnel()
            writer.write_eof()
            await ended(reader)
            for _ in range(20):
                reader, _ = await world.connect("other.example")
                await ended(reader)
            assert [event["up"] for event in world.events if event["up"]] == [len(HELLO)]

    run(scene())


def test_a_change_of_rules_holds_for_what_comes_and_leaves_what_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene() -> None:
        async with a_world(monkeypatch) as world:
            world.use()
            reader, writer = await world.tunnel()
            await reader.readexactly(len(HELLO))
            world.use("other.example:PORT")
            refused, _ = await world.connect()
            assert b"not-listed" in await ended(refused)
            writer.write(b"\x17\x03\x03\0\1x")
            assert await reader.readexactly(6) == b"\x17\x03\x03\0\1x"

    run(scene())


def test_plain_requests_are_judged_as_they_come_out_of_squid(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        while not data.endswith(b"body"):
            data += await reader.read(1 << 16)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nanswer")

    async def scene() -> None:
        async with a_world(monkeypatch, serve=serve) as world:
            world.use(f"POST http://{HOST}:PORT/in/")

            async def ask(path: str, method: str = "POST") -> bytes:
                reader, writer = await world.open(world.exit)
                place = f"{HOST}:{world.port}"
                lines = (
                    f"{method} http://{place}{path} HTTP/1.1",
                    "Host: other.example",
                    "Content-Length: 4",
                    "",
                    "body",
                )
                writer.write("\r\n".join(lines).encode())
                answer = await ended(reader)
                writer.close()
                return answer

            assert await ask("/in/x?key=secret") == b"HTTP/1.1 200 OK\r\n\r\nanswer"
            assert (
                bytes(world.arrived[0])
                == (
                    f"POST /in/x?key=secret HTTP/1.1\r\nHost: {HOST}:{world.port}\r\nConnection: close\r\n"
                    "content-length: 4\r\n\r\nbody"
                ).encode()
            )
            told = await world.event()
            assert (told["method"], told["path"], told["outcome"]) == ("POST", "/in/x", "allowed")
            assert (told["up"], told["down"]) == (len(world.arrived[0]), 25)
            for path, method, reason in (
                ("/in/../x", "POST", "path"),
                ("/in/%2e%2e/x", "POST", "path"),
                ("/", "POST", "path"),
                ("/in/x", "PUT", "method"),
            ):
                assert f'"reason": "{reason}"'.encode() in await ask(path, method)
            assert len(world.arrived) == 1
            assert "secret" not in str(world.events)

    run(scene())


def test_a_front_full_of_plain_requests_leaves_squid_its_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them waits for squid, and squid for us."""
    monkeypatch.setattr(proxy, "_MOST_CONNECTIONS", 3)

    async def scene() -> None:
        silent = socket.create_server(("127.0.0.1", 0))
        monkeypatch.setattr(proxy, "SQUID_PORT", silent.getsockname()[1])
        async with a_world(monkeypatch) as world:
            world.use()
            for _ in range(5):
                _, writer = await world.open(world.front)
                writer.write(b"GET http://good.example/ HTTP/1.1\r\n\r\n")
            await asyncio.sleep(0.1)
            reader, writer = await world.open(world.exit)
            writer.write(b"GET http://other.example/ HTTP/1.1\r\n\r\n")
            assert b"not-listed" in await ended(reader)
        silent.close()

    run(scene())


def test_urgent_data_neither_stops_a_tunnel_nor_costs_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """splice(2) does not get past an urgent byte: a loop that waits for what is there already would spin."""

    async def scene() -> None:
        async with a_world(monkeypatch) as world:
            world.use()
            reader, writer = await world.tunnel()
            await reader.readexactly(len(HELLO))
            one = writer.get_extra_info("socket")._sock
            one.send(b"\x17\x03\x03\0\1x")
            await asyncio.sleep(0.1)
            one.send(b"!", socket.MSG_OOB)
            one.send(b"\x17\x03\x03\0\1y")
            began = time.process_time()
            await asyncio.sleep(1.5)
            assert time.process_time() - began < 0.75  # whoever spins takes all of it
            assert await reader.readexactly(12) == b"\x17\x03\x03\0\1x\x17\x03\x03\0\1y"
            writer.close()

    run(scene())


@pytest.mark.parametrize(
    ("question", "told"),
    [
        (b'"https://good.example:PORT/x"', {"allowed": True}),
        (b'"other.example"', {"allowed": False, "reason": "not-listed"}),
        (b'""', {"closed": []}),
        *((what, {"error": ""}) for what in (b'"https://u@x/"', b"nonsense", b"[" * 6000, b"\xff" * 9000)),
    ],
)
def test_who_asks_why_is_told_by_the_same_rules(
    monkeypatch: pytest.MonkeyPatch, question: bytes, told: dict[str, Any]
) -> None:
    async def scene() -> None:
        async with a_world(monkeypatch) as world:
            world.use()
            reader, writer = await world.open(world.front)
            writer.write(b"EXPLAIN " + question.replace(b"PORT", str(world.port).encode()) + b"\n")
            found = json.loads(await ended(reader))
            assert set(told) <= set(found)
            assert all(found[key] == value for key, value in told.items() if key != "error")
            assert world.events == []
            assert world.arrived == []

    run(scene())
