"""The one place where a trusted server becomes what an agent's CLI runs. Pure.

Today that is the server's own program, from the read-only copy of its files. What must stand between agent and server
(a relay to another user for one that needs a secret, a gateway that checks calls) takes its place here.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from coding_agents.mcp.formats import inexpressible
from coding_agents.mcp.references import Settled
from coding_agents.model.mcp import McpFormat, McpServer


class NotStarted(msgspec.Struct, frozen=True):
    """A server that the agent does not get, and why."""

    name: str
    reason: str


def as_run(
    settled: Settled, files: Mapping[str, str], *, copied_to: str, format: McpFormat
) -> McpServer | NotStarted:
    """What the CLI of `format` is told to run for a trusted server.

    `files` are the words of it that name files, with their paths in the repository; the copies are below `copied_to`.
    """
    server = settled.server
    if not server.enabled:
        return NotStarted(server.name, "it is disabled")
    if settled.needs:
        names = ", ".join(settled.needs)
        unset = f"; not set: {', '.join(settled.missing)}" if settled.missing else ""
        return NotStarted(server.name, f"needs a secret ({names}{unset}), which never goes to the agent")
    place = f"{copied_to}/{server.name}"
    moved = replace(
        server,
        command=_moved(server.command, files, place),
        args=tuple(_moved(word, files, place) for word in server.args),
    )
    reason = inexpressible(moved, format)
    return NotStarted(server.name, reason) if reason else moved


def _moved(word: str, files: Mapping[str, str], place: str) -> str:
    return f"{place}/{files[word]}" if word in files else word
