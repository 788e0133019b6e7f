"""The proxy's container after its guard stands: squid beside us, our sockets, and then no privilege left.

Squid runs as a user of its own. When it or we end, the container ends: its next start has the guard again.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from coding_agents_guest.egress.paths import DOOR, EXIT_PORT, LINK, LOG_PORT
from coding_agents_guest.guard import Guard
from coding_agents_guest.holder import guarded
from coding_agents_guest.privileges import drop_all_privileges

_US, _SQUID = 1002, 13  # `bridge` of the base image (`serving.US`), Debian's `proxy`
_SQUID_ARGV = ("/usr/sbin/squid", "-N", "-f", "/etc/coding-agents/squid.conf")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_WATCHED = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


def main(argv: Sequence[str]) -> int:
    """Run the proxy behind the guard that `argv` asks for as `holder` does; 0 after SIGTERM, 1 when a part ended."""
    return guarded(argv, _run)


def _run(guard: Guard, on_ready: Callable[[], None]) -> int:
    """Every privilege is given up before anything of a session is read. Raises HolderError, OSError, PrivilegeError.

    The guard is told of as soon as it stands and no privilege is left: what the proxy is made of is loaded while the
    host looks at it.
    """
    door = _unix(DOOR)  # in a volume of root's
    DOOR.chmod(0o666)
    exit_, log = _loopback(EXIT_PORT), _loopback(LOG_PORT)
    squid, start = _squid_to_be()
    drop_all_privileges(_US, _US)
    link = _unix(LINK)
    on_ready()

    import asyncio
    import gc

    from coding_agents_guest.egress.serving import serve

    gc.set_threshold(50_000)  # a hundred thousand rules are no garbage, see supervisor/__main__.py
    return asyncio.run(
        serve(guard, door=door, exit_=exit_, log=log, link=link, squid=squid, start_squid=start)
    )


def _squid_to_be() -> tuple[int, Callable[[], None]]:
    """A process without a privilege, as a user who can do nothing to us, and what makes it squid.

    It waits for that: at a launch everything else is more urgent.
    """
    waits, goes = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child:
        os.close(waits)
        return child, partial(_once, [goes])
    try:
        os.close(goes)
        drop_all_privileges(_SQUID, _SQUID)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        os.read(waits, 1)
        os.execve(_SQUID_ARGV[0], _SQUID_ARGV, _ENVIRONMENT)
    except BaseException as error:  # noqa: BLE001 - whatever it is, this process must not go on as a second proxy
        print(f"squid: {error}", file=sys.stderr, flush=True)
    os._exit(127)


def _once(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


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
