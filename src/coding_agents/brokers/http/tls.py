"""A TLS client over asyncio's plain streams, by `ssl.MemoryBIO`.

The supervisor loads asyncio without ssl, which costs each session 2 MB and a tenth of its start; it is loaded here,
with the first request that needs it.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import ssl

_CHUNK = 64 * 1024
_Result = TypeVar("_Result")


def tls_context(certificates: bytes) -> ssl.SSLContext:
    """What a client trusts: the system's roots (or SSL_CERT_FILE's), and `certificates` (PEM) besides."""
    context: ssl.SSLContext = _load().create_default_context()
    if certificates:
        context.load_verify_locations(cadata=certificates.decode("ascii", "ignore"))
    return context


class TlsStream:
    """The client's end. A broken connection and a certificate that is not trusted raise OSError."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        context: ssl.SSLContext,
        hostname: str,
    ) -> None:
        self._ssl = _load()
        self._reader, self._writer = reader, writer
        self._incoming, self._outgoing = self._ssl.MemoryBIO(), self._ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)

    async def handshake(self) -> None:
        await self._until(self._tls.do_handshake)

    async def read(self, limit: int = _CHUNK) -> bytes:
        """Up to `limit` bytes; b"" at the end, also one that was not announced."""
        try:
            return await self._until(lambda: self._tls.read(limit))
        except (self._ssl.SSLZeroReturnError, self._ssl.SSLEOFError):
            return b""

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            sent = await self._until(lambda piece=view[:_CHUNK]: self._tls.write(piece))  # type: ignore[misc]
            view = view[sent:]

    def close(self) -> None:
        self._writer.close()

    async def _until(self, act: Callable[[], _Result]) -> _Result:
        """Do `act`, feeding TLS with what arrives as long as it wants more."""
        while True:
            try:
                result = act()
            except self._ssl.SSLWantReadError:
                await self._flush()
                data = await self._reader.read(_CHUNK)
                self._incoming.write(data) if data else self._incoming.write_eof()
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            self._writer.write(data)
            await self._writer.drain()


def _load() -> Any:
    """The module `ssl`."""
    if sys.modules.get("ssl", ...) is None:  # see supervisor/__main__.py
        del sys.modules["ssl"]
    return importlib.import_module("ssl")
