"""The proxy's line to the host: rules and limits come in, what to record goes out. Lines of JSON over a Unix socket.

From the host `{"version": N, …}` with what `orders` writes, and `{"taken": N}`; from here
`{"boot": ID}`, `{"version": N}` once those rules are in force, and `{"number": N, "event": {…}}`. Only the host can
speak to it: the socket is in a directory of this container, and the kernel tells the user of who connects.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping

from coding_agents_guest.egress.orders import Orders, number, parse_orders
from coding_agents_guest.egress.outbox import Outbox
from coding_agents_guest.peer import peer_uid

_MAX_LINE = 64 << 20  # a hundred thousand rules are some megabytes

OnOrders = Callable[[Orders], None]


class Link:
    """Serves the host, one connection at a time: a newer one takes the place of an older."""

    def __init__(self, outbox: Outbox, on_orders: OnOrders) -> None:
        self._outbox = outbox
        self._on_orders = on_orders
        self._boot = os.urandom(8).hex()
        self._serving: asyncio.Task[None] | None = None

    async def serve(self, listener: socket.socket) -> None:
        """Until cancelled."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if peer_uid(writer.get_extra_info("socket")) != os.geteuid():
                writer.transport.abort()
                return
            if self._serving is not None:
                self._serving.cancel()
            self._serving = asyncio.ensure_future(self._speak(reader, writer))

        server = await asyncio.start_unix_server(connected, sock=listener, limit=_MAX_LINE)
        async with server:
            await server.serve_forever()

    async def _speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        telling = asyncio.ensure_future(self._tell(writer))
        try:
            _write(writer, {"boot": self._boot})
            while line := await reader.readline():
                self._take(json.loads(line), writer)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):  # too long, no JSON, or no orders
            pass
        finally:
            telling.cancel()
            writer.transport.abort()

    def _take(self, order: Mapping[str, object], writer: asyncio.StreamWriter) -> None:
        if "taken" in order:
            self._outbox.taken(number(order["taken"]))
            return
        orders = parse_orders(order)
        self._on_orders(orders)
        _write(writer, {"version": number(order["version"])})

    async def _tell(self, writer: asyncio.StreamWriter) -> None:
        told = 0
        while True:
            await self._outbox.wait(told)
            for place, event in self._outbox.after(told):
                _write(writer, {"number": place, "event": event})
                told = place
            await writer.drain()


def _write(writer: asyncio.StreamWriter, value: object) -> None:
    writer.write(json.dumps(value).encode() + b"\n")
