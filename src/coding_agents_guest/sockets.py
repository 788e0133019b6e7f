"""Sockets in the container whose every connection becomes a stream of the channel.

The directory is a sticky tmpfs in which only we make sockets, so that the agent can use but not replace
them. Processes of the agent may do anything with their end: connections beyond a limit are closed at once,
and what breaks one connection breaks no other.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.mux import Mux, Stream
from coding_agents_guest.paths import AGENT_UID
from coding_agents_guest.peer import UNTOLD_UID, peer_uid

_CHUNK = 64 * 1024


class UnsafeDirectoryError(Exception):
    """The directory of the sockets, or what is in it, is not ours alone."""


def check_directory(directory: Path, *, owner_uid: int) -> None:
    """Require that nobody but root and `owner_uid` can replace sockets of `owner_uid` in `directory`."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, owner_uid):
        raise UnsafeDirectoryError(f"{directory} is not a directory of root")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
        raise UnsafeDirectoryError(f"{directory} can be written by others and is not sticky")


def bind_unix(path: Path) -> socket.socket:
    """A listening socket at `path` that every user may connect to. A stale one of ours is replaced.

    Raises UnsafeDirectoryError when something of another user is in the way.
    """
    with suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
            raise UnsafeDirectoryError(f"{path} belongs to somebody else")
        path.unlink()
    listener = _listening(socket.AF_UNIX, os.fspath(path))
    path.chmod(0o666)
    return listener


def bind_loopback(port: int) -> socket.socket:
    """A listening TCP socket on the container's own 127.0.0.1."""
    return _listening(socket.AF_INET, ("127.0.0.1", port), socket.IPPROTO_TCP)


class Gateway:
    """Carries the connections of listening sockets over `mux`, each as a stream to its socket's service."""

    def __init__(self, mux: Mux) -> None:
        self._mux = mux
        self._servers: list[asyncio.AbstractServer] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket, service: str, *, limit: int) -> None:
        """Take the connections of `listener`, at most `limit` at a time; further ones are closed."""
        carried: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(carried) >= limit:
                writer.transport.abort()
                return
            task = asyncio.ensure_future(self._carry(reader, writer, service))
            for tasks in (carried, self._connections):
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        self._servers.append(await asyncio.start_server(connected, sock=listener))

    async def close(self) -> None:
        """Close the sockets and break off their connections."""
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: str) -> None:
        try:
            stream = self._mux.open(service, carried_as(writer.get_extra_info("socket")))
        except ConnectionError:
            writer.transport.abort()
            return
        ways = [
            asyncio.ensure_future(_upwards(reader, stream)),
            asyncio.ensure_future(_downwards(stream, writer)),
        ]
        try:
            await asyncio.gather(*ways)
        except OSError:
            stream.reset("connection lost")
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            stream.close()
            writer.close()


def carried_as(connection: socket.socket) -> int:
    """The user as whom the host is told of a connection.

    Where the kernel does not tell it is the agent: the host starts nothing there as anybody else (`app.mcp_session`).
    """
    uid = peer_uid(connection)
    return AGENT_UID if uid == UNTOLD_UID else uid


async def _upwards(reader: asyncio.StreamReader, stream: Stream) -> None:
    while data := await reader.read(_CHUNK):
        await stream.write(data)
    stream.write_eof()


async def _downwards(stream: Stream, writer: asyncio.StreamWriter) -> None:
    while data := await stream.read():
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def _listening(
    family: socket.AddressFamily, address: str | tuple[str, int], protocol: int = 0
) -> socket.socket:
    # asyncio sends small writes at once (TCP_NODELAY) only where the protocol is named.
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener
