"""The one place where a trusted server becomes what an agent's CLI runs. Pure.

That is the server's own program, from the read-only copy of its files or from its packages in the image; or, for one
that needs a secret, our way to where the host runs or asks it. A gateway that checks calls would take its place here,
too.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from coding_agents.mcp.apart import why_not_apart, why_not_sent
from coding_agents.mcp.formats import inexpressible
from coding_agents.mcp.references import Settled
from coding_agents.model.mcp import McpFormat, McpServer
from coding_agents.sandbox.guest import GUEST_ZIPAPP, PYTHON
from coding_agents_guest.paths import MCP_PORT


class NotStarted(msgspec.Struct, frozen=True):
    """A server that the agent does not get, and why."""

    name: str
    reason: str


class Run(msgspec.Struct, frozen=True):
    """`listed` is what the CLI is told to run, `apart` what the host runs or asks behind it (None: nothing)."""

    listed: McpServer
    apart: McpServer | None = None


class Packaged(msgspec.Struct, frozen=True):
    """What takes the place of a package runner: the installed `program`, for it and the first `skip` of its words."""

    program: str
    skip: int


def as_run(
    settled: Settled,
    files: Mapping[str, str],
    *,
    copied_to: str,
    format: McpFormat,
    packaged: Packaged | None = None,
) -> Run | NotStarted:
    """What is run for a trusted server, in the words of the CLI of `format`.

    `files` are the words of it that name files, with their paths in the repository; the copies are below `copied_to`.
    Of a server that runs packages these are words of the program alone.
    """
    server = settled.server if packaged is None else without_runner(settled.server, packaged)
    if not server.enabled:
        return NotStarted(server.name, "it is disabled")
    place = f"{copied_to}/{server.name}"
    moved = replace(
        server,
        command=_moved(server.command, files, place),
        args=tuple(_moved(word, files, place) for word in server.args),
    )
    if settled.needs and (reason := _without_its_secret(moved, settled, installed=packaged is not None)):
        return NotStarted(server.name, f"needs a secret ({', '.join(settled.needs)}), and {reason}")
    run = Run(_way_to(moved), moved) if settled.needs else Run(moved)
    reason = inexpressible(run.listed, format)
    return NotStarted(server.name, reason) if reason else run


def without_runner(server: McpServer, packaged: Packaged) -> McpServer:
    """The server with its installed program in the place of the runner and of what that was told."""
    return replace(server, command=packaged.program, args=server.args[packaged.skip :])


def _without_its_secret(moved: McpServer, settled: Settled, *, installed: bool) -> str:
    if settled.missing:
        name = settled.missing[0]
        return f"{', '.join(settled.missing)} is not set: `coding-agents secrets set {name}`"
    return why_not_sent(moved) if moved.url else why_not_apart(moved, installed=installed)


def _way_to(server: McpServer) -> McpServer:
    """The guest's end of the way to what the host runs or asks: no word of that, and no file of the agent's."""
    if server.url:
        return McpServer(name=server.name, url=f"http://127.0.0.1:{MCP_PORT}/{server.name}")
    return McpServer(name=server.name, command=PYTHON, args=("-IS", GUEST_ZIPAPP, "mcp", server.name))


def _moved(word: str, files: Mapping[str, str], place: str) -> str:
    return f"{place}/{files[word]}" if word in files else word
