"""A RelayService on a Unix socket, and what a guest's git needs to reach it."""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coding_agents_guest
from coding_agents.errors import AuditError
from coding_agents.gitsync.autosave import let_go
from coding_agents.gitsync.relay import OtherPlaces, RelayService
from coding_agents.gitsync.relay_events import RelayEvent, TipChange
from coding_agents.gitsync.relay_limits import DEFAULT_LIMITS, RelayLimits
from coding_agents.gitsync.relay_repo import Identity, Relay
from coding_agents.gitsync.relay_thinning import Thinned
from coding_agents.gitsync.rules import load_policy
from coding_agents.gitsync.thinning import Keep
from coding_agents.policy.matrix import Policy

URL = "git://coding-agents/workspace"


# /usr/lib/coding-agents/git-relay, on a socket of ours.
_PROXY = """#!{python} -IS
import sys
sys.path.insert(0, {source!r})
from coding_agents_guest.relay_client import main
sys.exit(main({path!r}))
"""


class SocketStream:
    """A stream of the channel, over an ordinary socket; `peer_uid` is who a bridge would say that its guest is."""

    peer_uid = 1000

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, limit: int = 65536, /) -> bytes:
        return await self._reader.read(limit)

    async def write(self, data: bytes, /) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def write_eof(self) -> None:
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()

    def reset(self, reason: str, /) -> None:
        self._writer.transport.abort()


@dataclass
class RelayServer:
    """A running server: its socket and everything that it recorded."""

    socket_path: Path
    proxy: Path
    events: list[RelayEvent] = field(default_factory=list)
    changes: list[TipChange] = field(default_factory=list)
    unrecordable: bool = False
    identity: Identity = Identity.AGENT
    thin: Callable[[int], Future[Thinned | None]] = lambda _: Future()
    """Thin the relay out at a time in milliseconds, as each minute's save does when it is nearly full."""
    run: Callable[[Coroutine[Any, Any, Any]], Any] = lambda _: None
    """Run something where the service runs, and give what comes of it."""

    def guest_env(self, env: Mapping[str, str], **more: str) -> dict[str, str]:
        """The environment of a guest's git."""
        return {**env, "GIT_PROXY_COMMAND": str(self.proxy), **more}

    def connect(self) -> socket.socket:
        """A raw connection, for a guest that does not use git."""
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(20)
        link.connect(str(self.socket_path))
        return link


async def _nowhere(event: RelayEvent) -> None:
    """No journal."""


async def _thin(service: RelayService, relay: Relay, now_ms: int) -> Thinned | None:
    async def saves(keep: Keep) -> bool:
        return await asyncio.to_thread(let_go, relay.store, now_ms, keep)

    return await service.thin(let_go=saves, apart=asyncio.Lock())


@contextmanager
def serving(
    relay: Relay,
    directory: Path,
    *,
    identity: Identity = Identity.AGENT,
    journal: Callable[[RelayEvent], Awaitable[None]] = _nowhere,
    limits: RelayLimits = DEFAULT_LIMITS,
    policy: Policy | None = None,
    others: OtherPlaces | None = None,
) -> Iterator[RelayServer]:
    """Serve `relay` in a thread until the block is left; an exception in the service fails the test.

    `journal` is told of every event, too.
    """
    directory.mkdir(exist_ok=True)
    short = tempfile.TemporaryDirectory(prefix="ca-")  # the path of a socket has 108 bytes (unix(7))
    server = RelayServer(Path(short.name, "s"), directory / "git-relay", identity=identity)
    source = Path(coding_agents_guest.__file__).parent.parent
    proxy = _PROXY.format(python=sys.executable, source=str(source), path=str(server.socket_path))
    server.proxy.write_text(proxy)
    server.proxy.chmod(0o755)
    started, failures = threading.Event(), list[BaseException]()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def record(event: RelayEvent) -> None:
        if server.unrecordable:
            raise AuditError("the log is full")
        server.events.append(event)
        await journal(event)

    async def on_update(change: TipChange) -> None:
        server.changes.append(change)

    async def main() -> None:
        service = RelayService(
            relay, policy=policy or load_policy(), record=record, on_update=on_update, limits=limits,
            others=others,
        )  # fmt: skip

        server.thin = lambda now_ms: asyncio.run_coroutine_threadsafe(_thin(service, relay, now_ms), loop)
        server.run = lambda what: asyncio.run_coroutine_threadsafe(what, loop).result(60)
        handlers = set[asyncio.Task[None]]()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            handlers.add(task)
            task.add_done_callback(handlers.discard)
            try:
                await service.serve(SocketStream(reader, writer), identity=server.identity)
            except BaseException as error:
                failures.append(error)
                raise
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

        listener = await asyncio.start_unix_server(handle, str(server.socket_path))
        started.set()
        async with listener:
            await stop.wait()
            if handlers:
                _, unfinished = await asyncio.wait(handlers, timeout=10)
                assert not unfinished, "a conversation does not end"

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    if not started.wait(10):
        raise AssertionError("the relay server does not start")
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
        short.cleanup()
    if failures:
        raise failures[0]
