"""The one-shot container's program: bridge and client in one, with standard input and output as the channel."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence

from coding_agents_guest import __version__
from coding_agents_guest.events import MAX_LINE, Go, GuestConfig, Ready, encode_event, parse_event
from coding_agents_guest.mux import Mux, Stream
from coding_agents_guest.place import Place
from coding_agents_guest.probe import read_facts
from coding_agents_guest.salvage import salvage
from coding_agents_guest.sockets import Gateway, UnsafeDirectoryError, bind_unix, check_directory
from coding_agents_guest.stdio import open_stdio
from coding_agents_guest.wire import PROTOCOL, Hello, WireError

_BUDGET_S = 300.0
_RELAY_CONNECTIONS = 8


def main(arguments: Sequence[str]) -> int:
    """Run a salvage over standard input and output; takes no arguments. Returns 0 when a report was sent."""
    if arguments:
        print("salvage: takes no arguments", file=sys.stderr)
        return 2
    try:
        asyncio.run(serve(Place()))
    except (UnsafeDirectoryError, WireError, OSError) as error:
        print(f"salvage: {error}", file=sys.stderr)
        return 1
    return 0


async def serve(place: Place) -> None:
    """Speak with the host: ready, wait for go, salvage, report. Raises OSError or WireError without one."""
    check_directory(place.sockets, owner_uid=os.geteuid())
    listener = bind_unix(place.sockets / "relay.sock")
    reader, writer = await open_stdio()
    mux = Mux(reader, writer, on_open=_refuse, hello=Hello(PROTOCOL, __version__, read_facts()))
    gateway = Gateway(mux)
    carrying = asyncio.ensure_future(mux.run())
    try:
        await gateway.serve(listener, "relay", limit=_RELAY_CONNECTIONS)
        events = mux.open("events", os.geteuid())
        await events.write(encode_event(Ready()))
        config = await _wait_for_go(events)
        deadline = time.monotonic() + _BUDGET_S
        report = await asyncio.get_running_loop().run_in_executor(None, salvage, config, place, deadline)
        await events.write(encode_event(report))
        events.write_eof()
        await mux.flush()
    finally:
        await gateway.close()
        mux.close()
        await carrying


async def _refuse(stream: Stream) -> None:
    stream.reset("no such service")


async def _wait_for_go(events: Stream) -> GuestConfig:
    buffer = b""
    while b"\n" not in buffer:
        data = await events.read()
        buffer += data
        if not data or len(buffer) > MAX_LINE:
            raise WireError("no go")
    event = parse_event(buffer.split(b"\n")[0])
    if not isinstance(event, Go):
        raise WireError("something else than go")
    return event.config
