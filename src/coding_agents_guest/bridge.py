"""The guest's end of the channel: user 1002's process that owns the sockets in /run/coding-agents.

The supervisor starts it with `ENGINE exec -i -u 1002:1002`; frames go over its standard input and output,
and it ends when its standard input does. It holds no policy: what a stream may do is decided on the host,
which learns from us who connected (SO_PEERCRED).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

# asyncio imports ssl where it can, a tenth of our start. No TLS is spoken here.
sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]

import asyncio

from coding_agents_guest import __version__
from coding_agents_guest.mux import Mux, Stream
from coding_agents_guest.paths import SOCKETS
from coding_agents_guest.probe import read_facts
from coding_agents_guest.sockets import (
    Gateway,
    UnsafeDirectoryError,
    bind_loopback,
    bind_unix,
    check_directory,
)
from coding_agents_guest.stdio import open_stdio
from coding_agents_guest.wire import PROTOCOL, Hello, WireError

MODEL_PORT = 8099
# Together no more than wire.MAX_STREAMS: a flood of one service leaves room for the others.
_LIMITS = {"events": 8, "relay": 16, "model": 32, "mcp": 8}


def main(arguments: Sequence[str]) -> int:
    """Run until standard input ends; `--model` and `--mcp` serve these, too, `--directory` is for tests.

    Returns an exit status; 1 with a line on standard error on refusal.
    """
    model, sockets, directory, words = False, ["events", "relay"], SOCKETS, list(arguments)
    while words:  # argparse would take a tenth of the time until we serve
        word = words.pop(0)
        if word == "--model":
            model = True
        elif word == "--mcp":
            sockets.append("mcp")
        elif word == "--directory" and words:
            directory = Path(words.pop(0))
        else:
            print(f"bridge: unknown argument {word}", file=sys.stderr)
            return 2
    try:
        asyncio.run(_bridge(directory, sockets, model=model))
    except (UnsafeDirectoryError, WireError, OSError) as error:
        print(f"bridge: {error}", file=sys.stderr)
        return 1
    return 0


async def _bridge(directory: Path, sockets: Sequence[str], *, model: bool) -> None:
    check_directory(directory, owner_uid=os.geteuid())
    listeners = {service: bind_unix(directory / f"{service}.sock") for service in sockets}
    if model:
        listeners["model"] = bind_loopback(MODEL_PORT)
    reader, writer = await open_stdio()
    mux = Mux(reader, writer, on_open=_refuse, hello=Hello(PROTOCOL, __version__, read_facts()))
    gateway = Gateway(mux)
    try:
        for service, listener in listeners.items():
            await gateway.serve(listener, service, limit=_LIMITS[service])
        await mux.run()
    finally:
        await gateway.close()


async def _refuse(stream: Stream) -> None:
    """The host opens no streams in this version of the protocol."""
    stream.reset(f"no service {stream.service}")
