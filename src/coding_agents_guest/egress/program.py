"""The proxy's container after its guard stands: squid beside us, our sockets, and then no privilege left.

Squid runs as a user of its own. When it or we end, the container ends: its next start has the guard again.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

# asyncio imports ssl where it can, a tenth of our start. No TLS is spoken here.
sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]

import asyncio

from coding_agents_guest.egress.door import receive_listener
from coding_agents_guest.egress.link import Link
from coding_agents_guest.egress.names import Connector
from coding_agents_guest.egress.outbox import Outbox
from coding_agents_guest.egress.paths import DOOR, EXIT_PORT, LINK, LOG_PORT
from coding_agents_guest.egress.proxy import Proxy
from coding_agents_guest.guard import Guard
from coding_agents_guest.holder import guarded
from coding_agents_guest.peer import peer_uid
from coding_agents_guest.privileges import drop_all_privileges

_US, _SQUID = 1002, 13  # `bridge` of the base image, Debian's `proxy`
_SQUID_ARGV = ("/usr/sbin/squid", "-N", "-f", "/etc/coding-agents/squid.conf")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_VISIT_S = 5.0
_MOST_VISITORS = 4
_WATCHED = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


def main(argv: Sequence[str]) -> int:
    """Run the proxy behind the guard that `argv` asks for as `holder` does; 0 after SIGTERM, 1 when a part ended."""
    return guarded(argv, _run)


def _run(guard: Guard, on_ready: Callable[[], None]) -> int:
    """Every privilege is given up before anything of a session is read. Raises HolderError, OSError, PrivilegeError."""
    door = _unix(DOOR)  # in a volume of root's
    DOOR.chmod(0o666)
    exit_, log = _loopback(EXIT_PORT), _loopback(LOG_PORT)
    squid = _start_squid()
    drop_all_privileges(_US, _US)
    return asyncio.run(_serve(guard, door, exit_, log, squid, on_ready))


async def _serve(
    guard: Guard,
    door: socket.socket,
    exit_: socket.socket,
    log: socket.socket,
    squid: int,
    on_ready: Callable[[], None],
) -> int:
    outbox = Outbox()
    proxy = Proxy(Connector(lambda address, port: guard.is_open(address, "tcp", port)), outbox)
    loop = asyncio.get_running_loop()
    told: asyncio.Future[int] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _settle, told, 0)
    loop.add_signal_handler(signal.SIGCHLD, _reap, squid, told)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
    _reap(squid, told)
    tasks = [
        asyncio.ensure_future(one)
        for one in (
            proxy.serve_exit(exit_),
            Link(outbox, proxy.use).serve(_unix(LINK)),
            _keep_door(door, proxy),
            _show_log(log),
        )
    ]
    on_ready()
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
            if peer_uid(visitor) != _US:
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


def _start_squid() -> int:
    """Squid's process, without a privilege, and as a user who can do nothing to us."""
    child = os.fork()
    if child:
        return child
    try:
        drop_all_privileges(_SQUID, _SQUID)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        os.execve(_SQUID_ARGV[0], _SQUID_ARGV, _ENVIRONMENT)
    except BaseException as error:  # noqa: BLE001 - whatever it is, this process must not go on as a second proxy
        print(f"squid: {error}", file=sys.stderr, flush=True)
    os._exit(127)


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


def _unix(path: Path) -> socket.socket:
    with suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.fspath(path))
    listener.listen(16)
    return listener


def _loopback(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(256)
    return listener
