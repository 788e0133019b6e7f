"""What the proxy's container does once it has no privilege left: the proxy, its door, its line to the host."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress

# asyncio imports ssl where it can, a tenth of our start. No TLS is spoken here.
sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]

import asyncio

from coding_agents_guest.egress.door import receive_listener
from coding_agents_guest.egress.link import Link
from coding_agents_guest.egress.names import Connector
from coding_agents_guest.egress.orders import Orders
from coding_agents_guest.egress.outbox import Outbox
from coding_agents_guest.egress.proxy import Proxy
from coding_agents_guest.guard import Guard
from coding_agents_guest.peer import peer_uid

US = 1002
"""`bridge` of the base image: the proxy's user, and that of its visitors."""

_VISIT_S = 5.0
_MOST_VISITORS = 4


async def serve(
    guard: Guard,
    *,
    door: socket.socket,
    exit_: socket.socket,
    log: socket.socket,
    link: socket.socket,
    squid: int,
    start_squid: Callable[[], None],
) -> int:
    """Serve until SIGTERM (0) or until a part has ended (1). Squid, a process that waits, begins with the first rules.

    `door` hands over the agent's side, `exit_` is squid's way out, `log` and `link` are those of `paths`: all listen.
    """
    outbox = Outbox()
    proxy = Proxy(Connector(lambda address, port: guard.is_open(address, "tcp", port)), outbox)

    def use(orders: Orders) -> None:
        proxy.use(orders)
        start_squid()

    loop = asyncio.get_running_loop()
    told: asyncio.Future[int] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _settle, told, 0)
    loop.add_signal_handler(signal.SIGCHLD, _reap, squid, told)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    _reap(squid, told)
    tasks = [
        asyncio.ensure_future(one)
        for one in (
            proxy.serve_exit(exit_),
            Link(outbox, use).serve(link),
            _keep_door(door, proxy),
            _show_log(log),
        )
    ]
    try:
        for task in tasks:  # each is to go on for ever
            task.add_done_callback(lambda _ended: _settle(told, 1))
        status = await told
        for task in tasks:
            if task.done():
                task.result()  # raises what ended it
        return status
    finally:
        for task in tasks:
            task.cancel()


async def _keep_door(door: socket.socket, proxy: Proxy) -> None:
    """Serve the listening socket that the agent's side hands over; a newer one takes the place of an older.

    Who has visited stays connected, and so sees when this proxy is gone.
    """
    door.setblocking(False)
    loop = asyncio.get_running_loop()
    serving: asyncio.Task[None] | None = None
    visitors: deque[socket.socket] = deque()
    try:
        while True:
            visitor, _ = await loop.sock_accept(door)
            if peer_uid(visitor) != US:
                visitor.close()
                continue
            visitors.append(visitor)
            if len(visitors) > _MOST_VISITORS:
                visitors.popleft().close()
            visitor.settimeout(_VISIT_S)
            with suppress(OSError):
                listener = await loop.run_in_executor(None, receive_listener, visitor)
                if listener is not None:
                    if serving is not None:
                        serving.cancel()
                    serving = asyncio.ensure_future(proxy.serve_front(listener))
    finally:
        for one in (door, *visitors):
            one.close()
        if serving is not None:
            serving.cancel()


async def _show_log(listener: socket.socket) -> None:
    """Squid's own log becomes part of this container's output, which the engine keeps within a bound."""

    async def show(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            print(line.decode("latin-1").rstrip(), flush=True)

    async with await asyncio.start_server(show, sock=listener) as server:
        await server.serve_forever()


def _reap(squid: int, told: asyncio.Future[int]) -> None:
    """Collect whatever has died in this container; without squid it ends."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            if ended == squid:
                print("proxy: squid has ended", file=sys.stderr, flush=True)
                _settle(told, 1)


def _settle(told: asyncio.Future[int], status: int) -> None:
    if not told.done():
        told.set_result(status)
