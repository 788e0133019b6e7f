"""A session's MCP servers that hold a secret and are programs: each run is judged, recorded, and started apart."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from coding_agents.brokers.mcp.stdio import (
    STARTED,
    BrokenOffError,
    NotStartedError,
    SecretBackError,
    StdioLimits,
    StdioRun,
    start_server,
)
from coding_agents.errors import CodingAgentsError
from coding_agents.model.audit import Outcome, RecordType
from coding_agents.model.mcp import is_server_name
from coding_agents.model.turns import Turns
from coding_agents.proc.runner import Command
from coding_agents.sandbox.guest import guest_argv
from coding_agents.sandbox.spec import MCP_USER
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.guest_link import GUEST_UID
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.mcp_judge import Granted, McpJudge, RefusalError
from coding_agents_guest.mux import Stream

MAX_AT_ONCE = 8
"""Runs of one session, each a process tree within the container's limits."""
_BURST, _EVERY_S, _PATIENCE_S = 30, 2.0, 5.0
_NAME_S = 10.0
_MAX_NAME = 64
_LIMITS = StdioLimits()


class McpAccess:
    """One session's."""

    def __init__(self, session: SessionContext, journal: Journal, limits: StdioLimits = _LIMITS) -> None:
        self._session = session
        self._judge = McpJudge(session, journal, "program", Turns(_BURST, _EVERY_S), patience_s=_PATIENCE_S)
        self._limits = limits
        self._running = 0

    @property
    def served(self) -> bool:
        """Whether the session was given any such server."""
        return bool(self._judge.given())

    async def serve(self, stream: Stream) -> None:
        """Serve one connection of the guest: a line with a server's name, then that server, until either end ends."""
        if stream.peer_uid != GUEST_UID:
            stream.reset("for the agent alone")
        elif self._running >= MAX_AT_ONCE:
            await _say(stream, f"{MAX_AT_ONCE} servers of this session run already")
        else:
            self._running += 1
            try:
                await self._serve(stream)
            finally:
                self._running -= 1

    async def _serve(self, stream: Stream) -> None:
        name = await _name_line(stream)
        try:
            granted = await self._judge.grant(name, RecordType.MCP_SERVER_STARTED)
        except RefusalError as error:
            await self._judge.refused(name, error)
            await _say(stream, str(error))
        else:
            await self._run(stream, granted)

    async def _run(self, stream: Stream, granted: Granted) -> None:
        server, run = granted.server, None
        outcome: Outcome = "failed"
        reason = ""
        try:
            run = await start_server(self._command(), granted.secrets, self._limits)
            await run.order((server.command, *server.args), server.env, granted.directory)
            await stream.write(f"{STARTED}\n".encode())
            await run.carry(stream)
            outcome = "allowed"
        except BrokenOffError as error:
            outcome = "denied" if isinstance(error, SecretBackError) else "failed"
            reason = str(error)
            stream.reset(reason)
        except (NotStartedError, CodingAgentsError) as error:
            reason = str(error)
            await _say(stream, reason)
        finally:
            if run is not None:
                await run.close()
            await self._ended(granted, run, outcome, reason)

    def _command(self) -> Command:
        """The engine's client that runs the guest's program as the user of such servers; it says nothing of which."""
        session = self._session
        argv = guest_argv(session.record.guest_digest, "mcp-server")
        return session.engine.exec_command(
            session.record.container_id, argv, user=MCP_USER, interactive=True, workdir="/"
        )

    async def _ended(self, granted: Granted, run: StdioRun | None, outcome: Outcome, reason: str) -> None:
        detail: dict[str, str | int] = {"reason": reason} if reason else {}
        if run is not None:
            detail |= {"received": run.received, "sent": run.sent}
            detail |= {} if run.status is None else {"status": run.status}
        await self._judge.ended(RecordType.MCP_SERVER_ENDED, granted.name, outcome, detail)


async def _say(stream: Stream, reason: str) -> None:
    """Why there is no server, in the one line that the guest's program shows."""
    with suppress(ConnectionError):
        await stream.write(f"{reason}\n".encode("utf-8", "replace"))
        stream.write_eof()


async def _name_line(stream: Stream) -> str:
    """The first line of the guest, and not a byte of what follows it; "" for what is no name."""
    line = b""
    try:
        async with asyncio.timeout(_NAME_S):
            while len(line) <= _MAX_NAME and (byte := await stream.read(1)) not in (b"\n", b""):
                line += byte
    except TimeoutError:
        return ""
    name = line.decode("ascii", "replace")
    return name if is_server_name(name) else ""
