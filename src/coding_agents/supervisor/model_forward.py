"""Carry a guest's connections to its model to the one upstream that the host names.

Only when CODING_AGENTS_MODEL_UPSTREAM is set on the host (a company gateway, a scripted model in tests): the
guest's loopback port then leads to exactly that host and port, and nothing is added to what the guest sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

from coding_agents.errors import ConfigError
from coding_agents_guest.mux import Stream

_CONNECT_TIMEOUT_S = 10.0
_CHUNK = 64 * 1024


def forward_to(upstream: str) -> Callable[[Stream], Awaitable[None]]:
    """A service that splices each stream with a TCP connection to `upstream`, an http URL. Raises ConfigError."""
    try:
        url = urlsplit(upstream)
        host, port = url.hostname, url.port or 80
    except ValueError:
        host, port, url = None, 0, urlsplit("")
    if url.scheme != "http" or not host or url.username or url.path.strip("/"):
        raise ConfigError(
            f"CODING_AGENTS_MODEL_UPSTREAM is not of the form http://HOST:PORT: {upstream!r}",
            hint="Name the gateway's address without a path.",
        )

    async def serve(stream: Stream) -> None:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError):
            stream.reset("the model upstream does not answer")
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_upstream(stream, writer))
                group.create_task(_downstream(reader, stream))
        except* (ConnectionError, OSError):
            stream.reset("the connection to the model broke off")
        finally:
            stream.close()
            writer.close()
            with suppress(ConnectionError, OSError):
                await writer.wait_closed()

    return serve


async def _upstream(stream: Stream, writer: asyncio.StreamWriter) -> None:
    while data := await stream.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _downstream(reader: asyncio.StreamReader, stream: Stream) -> None:
    while data := await reader.read(_CHUNK):
        await stream.write(data)
    stream.write_eof()
