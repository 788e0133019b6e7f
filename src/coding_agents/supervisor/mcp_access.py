"""A session's access to its MCP servers that hold a secret: each run of one is judged, recorded, then started apart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
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
from coding_agents.credentials.secrets import secret_values
from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.rules import load_policy
from coding_agents.mcp.apart import ApartServer, read_given
from coding_agents.mcp.references import filled
from coding_agents.mcp.trust import TrustStore
from coding_agents.model.audit import AuditEvent, Outcome, RecordType
from coding_agents.model.mcp import is_server_name
from coding_agents.model.turns import Turns
from coding_agents.policy.decide import Decision, Deny, decide
from coding_agents.policy.matrix import Operation
from coding_agents.proc.runner import Command
from coding_agents.sandbox.guest import guest_argv
from coding_agents.sandbox.spec import MCP_USER
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.guest_link import GUEST_UID
from coding_agents.supervisor.journal import Journal
from coding_agents_guest.mux import Stream

MAX_AT_ONCE = 8
"""Runs of one session, each a process tree within the container's limits."""
_BURST, _EVERY_S, _PATIENCE_S = 30, 2.0, 5.0
_NAME_S = 10.0
_MAX_NAME = 64
_LIMITS = StdioLimits()


class _RefusalError(Exception):
    """Nothing is started; the message is shown to the agent."""

    def __init__(self, reason: str, *, rule: str, tier: int = 0) -> None:
        super().__init__(reason)
        self.rule, self.tier = rule, tier


class McpAccess:
    """One session's."""

    def __init__(self, session: SessionContext, journal: Journal, limits: StdioLimits = _LIMITS) -> None:
        self._session = session
        self._journal = journal
        self._limits = limits
        self._policy = load_policy()
        self._turns = Turns(_BURST, _EVERY_S)
        self._running = 0

    @property
    def served(self) -> bool:
        """Whether the session was given any such server."""
        return bool(read_given(self._session.directory))

    async def serve(self, stream: Stream) -> None:
        """Serve one connection of the guest: a line with a server's name, then that server, until either end ends."""
        if stream.peer_uid != GUEST_UID or self._running >= MAX_AT_ONCE:
            stream.reset("too many servers run" if stream.peer_uid == GUEST_UID else "for the agent alone")
            return
        self._running += 1
        try:
            await self._serve(stream)
        finally:
            self._running -= 1

    async def _serve(self, stream: Stream) -> None:
        name = ""
        try:
            name = await _name_line(stream)
            given, secrets = await self._judge(name)
        except _RefusalError as error:
            await self._refuse(stream, name, error)
        else:
            await self._run(stream, given, secrets)

    async def _judge(self, name: str) -> tuple[ApartServer, Mapping[str, str]]:
        """The server `name` of this session and its secrets, when it is still exactly what a person trusts."""
        wait_s = self._turns.take(asyncio.get_running_loop().time(), patience_s=_PATIENCE_S)
        if wait_s is None:
            raise _RefusalError("servers are started too often; wait, then go on", rule="mcp-turns")
        await asyncio.sleep(wait_s)
        given = read_given(self._session.directory).get(name)
        trusted = TrustStore(self._session.env.data_dir, self._session.record.repo.repo_id).load(name)
        if given is None:
            self._require(Operation.MCP_OTHER_SERVER)
            raise AssertionError("another server is refused by every policy")
        if trusted is None or trusted.digest != given.digest:
            raise _RefusalError(
                "what a person trusts is not what this session was given; start the session again",
                rule="mcp-trust",
            )
        decision = self._require(Operation.MCP_SERVER)
        try:
            secrets = await asyncio.to_thread(secret_values, self._session.env, given.needs)
            await self._journal.broker(
                AuditEvent(
                    RecordType.MCP_SERVER_STARTED, tier=int(decision.tier), rule=decision.rule, subject=name,
                    detail={"digest": given.digest, "secrets": ", ".join(given.needs)},
                )
            )  # fmt: skip
        except CodingAgentsError as error:
            raise _RefusalError(error.message, rule="mcp-secret") from error
        return given, secrets

    def _require(self, operation: Operation) -> Decision:
        decision = decide(self._policy, operation)
        if isinstance(decision, Deny):
            raise _RefusalError(decision.reason, rule=decision.rule, tier=int(decision.tier))
        return decision

    async def _run(self, stream: Stream, given: ApartServer, secrets: Mapping[str, str]) -> None:
        server, run = filled(given.server, secrets), None
        outcome: Outcome = "failed"
        reason = rule = ""
        try:
            run = await start_server(self._command(), secrets.values(), self._limits)
            await run.order((server.command, *server.args), server.env, given.directory)
            await stream.write(f"{STARTED}\n".encode())
            await run.carry(stream)
            outcome = "allowed"
        except NotStartedError as error:
            reason = str(error)
            await _say(stream, reason)
        except SecretBackError as error:
            decision = decide(self._policy, Operation.MCP_REFLECTED)
            outcome, reason, rule = "denied", str(error), decision.rule
            stream.reset(reason)
        except BrokenOffError as error:
            reason = str(error)
            stream.reset(reason)
        except CodingAgentsError as error:
            reason = error.message
            await _say(stream, reason)
        finally:
            if run is not None:
                await run.close()
            await self._ended(server.name, run, outcome, rule, reason)

    def _command(self) -> Command:
        """The engine's client that runs the guest's program as the user of such servers; it says nothing of which."""
        session = self._session
        argv = guest_argv(session.record.guest_digest, "mcp-server")
        return session.engine.exec_command(
            session.record.container_id, argv, user=MCP_USER, interactive=True, workdir="/"
        )

    async def _ended(self, name: str, run: StdioRun | None, outcome: Outcome, rule: str, reason: str) -> None:
        detail: dict[str, str | int] = {"reason": reason} if reason else {}
        if run is not None:
            detail |= {"received": run.received, "sent": run.sent}
            detail |= {} if run.status is None else {"status": run.status}
        if outcome == "allowed":
            self._journal.note(RecordType.MCP_SERVER_ENDED, subject=name, detail=detail)
            return
        event = AuditEvent(
            RecordType.MCP_SERVER_ENDED, outcome=outcome, rule=rule, subject=name, detail=detail
        )
        await self._note(event)

    async def _refuse(self, stream: Stream, name: str, error: _RefusalError) -> None:
        detail = {"reason": str(error)}
        event = AuditEvent(
            RecordType.MCP_SERVER_REFUSED, outcome="denied", tier=error.tier, rule=error.rule, subject=name,
            detail=detail,
        )  # fmt: skip
        await self._note(event)
        await _say(stream, str(error))

    async def _note(self, event: AuditEvent) -> None:
        """Record what was refused or has failed, if that is possible: nothing waits for it."""
        with suppress(CodingAgentsError, OSError):
            await self._journal.broker(event)


async def _say(stream: Stream, reason: str) -> None:
    """Why there is no server, in the one line that the guest's program shows."""
    with suppress(ConnectionError):
        await stream.write(f"{reason}\n".encode("utf-8", "replace"))
        stream.write_eof()


async def _name_line(stream: Stream) -> str:
    """The first line of the guest, and not a byte of what follows it. Raises _RefusalError."""
    line = b""
    try:
        async with asyncio.timeout(_NAME_S):
            while len(line) <= _MAX_NAME and (byte := await stream.read(1)) != b"\n":
                if not byte:
                    break
                line += byte
    except TimeoutError:
        line = b""
    name = line.decode("ascii", "replace")
    if not is_server_name(name):
        raise _RefusalError("no name of a server", rule="mcp-name")
    return name
