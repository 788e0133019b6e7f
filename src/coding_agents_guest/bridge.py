"""The guest's end of the channel: user 1002's process that owns the sockets in /run/coding-agents.

The supervisor starts it with `ENGINE exec -i -u 1002:1002`; frames go over its standard input and output,
and it ends when its standard input does. It holds no policy: what a stream may do is decided on the host,
which learns from us who connected (SO_PEERCRED).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# asyncio imports ssl where it can, a tenth of our start. No TLS is spoken here.
sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]

import asyncio

from coding_agents_guest import __version__
from coding_agents_guest.gitconfig import COMMITS, NAME, unpack, write_settings
from coding_agents_guest.mux import Mux, Stream
from coding_agents_guest.paths import MCP_PORT, MODEL_PORT, REGISTRY_PORT, SOCKETS
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

_PORTS = {"--model": MODEL_PORT, "--mcp-web": MCP_PORT, "--registry": REGISTRY_PORT}
# Together no more than wire.MAX_STREAMS: a flood of one service leaves room for the others.
_LIMITS = {
    "events": 8, "relay": 16, "tools": 4, "model": 20, "mcp": 8, "mcp-web": 8, "registry": 16,
    "credential": 4, "ssh-agent": 4, "sign": 4,
}  # fmt: skip
_SOCKETS = ("mcp", "credential", "ssh-agent", "sign")
_SETTINGS = {"--git-config": NAME, "--git-commits": COMMITS}


def main(arguments: Sequence[str]) -> int:
    """Run until standard input ends; `--model`, `--mcp`, `--mcp-web`, `--registry`, `--credential`, `--ssh-agent` and
    `--sign` serve these, too, `--egress` lets the session's proxy listen here, `--git-config` and `--git-commits`
    carry git's settings, `--directory` is for tests.

    Returns an exit status; 1 with a line on standard error on refusal.
    """
    ports: dict[str, int] = {}
    sockets, directory, words = ["events", "relay", "tools"], SOCKETS, list(arguments)
    settings: dict[str, str] = {}
    egress = False
    while words:  # argparse would take a tenth of the time until we serve
        word = words.pop(0)
        if word in _PORTS:
            ports[word.removeprefix("--")] = _PORTS[word]
        elif word.startswith("--") and word[2:] in _SOCKETS:
            sockets.append(word[2:])
        elif word == "--egress":
            egress = True
        elif word in _SETTINGS and words:
            settings[_SETTINGS[word]] = words.pop(0)
        elif word == "--directory" and words:
            directory = Path(words.pop(0))
        else:
            print(f"bridge: unknown argument {word}", file=sys.stderr)
            return 2
    try:
        texts = {name: unpack(packed) for name, packed in settings.items()}
        asyncio.run(_bridge(directory, sockets, ports, egress=egress, settings=texts))
    except (UnsafeDirectoryError, WireError, OSError, ValueError) as error:
        print(f"bridge: {error}", file=sys.stderr)
        return 1
    return 0


async def _bridge(
    directory: Path,
    sockets: Sequence[str],
    ports: Mapping[str, int],
    *,
    egress: bool,
    settings: Mapping[str, bytes],
) -> None:
    check_directory(directory, owner_uid=os.geteuid())
    # Before the first socket: the entry point waits for that, and git for the entry point.
    for name, text in settings.items():
        write_settings(directory, text, name)
    listeners = {service: bind_unix(directory / f"{service}.sock") for service in sockets}
    listeners |= {service: bind_loopback(port) for service, port in ports.items()}
    reader, writer = await open_stdio()
    mux = Mux(reader, writer, on_open=_refuse, hello=Hello(PROTOCOL, __version__, read_facts()))
    gateway = Gateway(mux)
    door = asyncio.ensure_future(_keep_door()) if egress else None
    try:
        for service, listener in listeners.items():
            await gateway.serve(listener, service, limit=_LIMITS[service])
        await mux.run()
    finally:
        if door is not None:
            door.cancel()
        await gateway.close()


async def _keep_door() -> None:
    from coding_agents_guest.egress.door import Doorkeeper  # most sessions have none
    from coding_agents_guest.egress.paths import DOOR

    await Doorkeeper(DOOR).keep()


async def _refuse(stream: Stream) -> None:
    """The host opens no streams in this version of the protocol."""
    stream.reset(f"no service {stream.service}")
