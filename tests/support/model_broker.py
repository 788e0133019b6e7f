"""A model broker at work between a guest on the loopback and an upstream that does what a test says."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from coding_agents.brokers.http.upstream import parse_address
from coding_agents.brokers.model.broker import ModelBroker
from coding_agents.brokers.model.service import Account, BrokerLimits, ModelService
from coding_agents.brokers.model.usage import Usage
from coding_agents.errors import AuditError, CodingAgentsError
from coding_agents.gitsync.rules import load_policy
from coding_agents.model.audit import AuditEvent
from coding_agents.model.provider import Api

KEY = "sk-real-key-of-the-user-0123456789"
DUMMY = "replaced-by-coding-agents-on-the-host"
SESSION = "0123456789ab"


@dataclass
class Request:
    """One request as it arrived upstream."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Reply = Callable[[Request, "Wire"], None]


class Wire:
    """The upstream's end of a connection: what a test writes is what the broker reads."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link

    def send(self, data: bytes) -> None:
        with suppress(OSError):
            self.link.sendall(data)

    def json(self, value: object, status: int = 200, extra: str = "") -> None:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
        self.send(head.encode() + body)

    def sse(self, *events: object, end: bool = True) -> None:
        self.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for event in events:
            self.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
        if end:
            self.send(b"0\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")


@dataclass
class Bench:
    """What a test has: the guest's address, what arrived upstream, what was recorded and counted."""

    port: int = 0
    asked: list[Request] = field(default_factory=list)
    connections: int = 0
    events: list[AuditEvent] = field(default_factory=list)
    spent: list[tuple[str, Usage]] = field(default_factory=list)
    reply: Reply = lambda request, wire: wire.json({"type": "message", "usage": {"input_tokens": 7}})
    unrecordable: bool = False
    no_account: CodingAgentsError | None = None
    budget: str = ""
    under_way: int = 0
    calls: list[bool] = field(default_factory=list)

    def began(self) -> None:
        self.under_way += 1

    def ended(self, *, calls: bool) -> None:
        self.under_way -= 1
        self.calls.append(calls)

    @property
    def refused(self) -> list[AuditEvent]:
        return [event for event in self.events if event.outcome == "denied"]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def raw(self, data: bytes) -> bytes:
        """Send bytes and read until the broker closes."""
        with self.connect() as link:
            with suppress(OSError):
                link.sendall(data)
                link.shutdown(socket.SHUT_WR)
            return read_all(link)

    def post(
        self, path: str, body: object, headers: Mapping[str, str] | None = None, *, method: str = "POST"
    ) -> tuple[int, dict[str, str], bytes]:
        """One request by an ordinary client: status, headers and body of the answer."""
        import http.client

        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            client.request(method, path, data, {"content-type": "application/json", **(headers or {})})
            answer = client.getresponse()
            shown = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, shown, answer.read()
        finally:
            client.close()


def read_all(link: socket.socket) -> bytes:
    """Everything until the other side closes or breaks off."""
    parts = []
    with suppress(OSError):
        while data := link.recv(65536):
            parts.append(data)
    return b"".join(parts)


class _Stream:
    """A stream of the channel, made of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def read(self, limit: int = 65536, /) -> bytes:
        return await self.reader.read(limit)

    async def write(self, data: bytes, /) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self, reason: str, /) -> None:
        self.writer.transport.abort()


@contextmanager
def broker_at_work(
    api: Api = "anthropic",
    *,
    server_tools: tuple[str, ...] = (),
    limits: BrokerLimits | None = None,
    also: Api | None = None,
    account_api: Api | None = None,
    prefix: str = "",
    account_prefix: str = "",
    own_address: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Iterator[Bench]:
    """A broker in a thread with its own loop, and an upstream in threads.

    `also` is another API of the agent's, `account_api` that of the account; what is about the account goes to
    `account_prefix`.
    """
    bench = Bench()
    with _upstream(bench) as upstream, _thread() as loop:
        address = parse_address(f"http://127.0.0.1:{upstream}{prefix}")
        about = parse_address(f"http://127.0.0.1:{upstream}{account_prefix}")
        assert address is not None
        assert about is not None

        async def account() -> Account:
            if bench.no_account is not None:
                raise bench.no_account
            known = headers or {"x-api-key": KEY}
            return Account("KEY", known, (KEY,), address, own_address, account_api or "", about)

        async def record(event: AuditEvent) -> None:
            if bench.unrecordable:
                raise AuditError("the disk is full")
            bench.events.append(event)

        async def spend(model: str, used: Usage) -> None:
            bench.spent.append((model, used))

        broker = ModelBroker(
            ModelService(
                apis=(api, also) if also else (api,),
                session=SESSION, server_tools=lambda: server_tools, account=account, spend=spend,
                left=lambda model: bench.budget, activity=bench, record=record, policy=load_policy(),
                proxy_for=lambda address: "", tls=_no_tls, limits=limits or BrokerLimits(),
            )
        )  # fmt: skip

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await broker.serve(_Stream(reader, writer))
            writer.close()

        async def start() -> asyncio.AbstractServer:
            return await asyncio.start_server(serve, "127.0.0.1", 0)

        server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        bench.port = server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        try:
            yield bench
        finally:
            loop.call_soon_threadsafe(server.close)
            asyncio.run_coroutine_threadsafe(broker.close(), loop).result(10)


def _no_tls() -> Any:
    raise AssertionError("no TLS here")


@contextmanager
def _thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_end_tasks(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end_tasks() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _upstream(bench: Bench) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        links: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    link, _ = listener.accept()
                    bench.connections += 1
                    links.append(link)
                    threading.Thread(target=_serve, args=(link, bench), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(5)
            for link in links:
                link.close()


def _serve(link: socket.socket, bench: Bench) -> None:
    with suppress(OSError, ValueError), link.makefile("rb") as file:
        while line := file.readline():
            method, target, _ = line.decode().split(" ", 2)
            headers = []
            while (field_line := file.readline().strip()) != b"":
                name, _, value = field_line.decode("latin-1").partition(":")
                headers.append((name.lower(), value.strip()))
            size = int(dict(headers).get("content-length", "0"))
            request = Request(method, target, headers, file.read(size))
            bench.asked.append(request)
            bench.reply(request, Wire(link))
