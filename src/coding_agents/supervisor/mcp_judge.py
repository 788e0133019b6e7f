"""Whether a session's agent may have a server that holds a secret, now: asked and recorded before anything is done."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

from coding_agents.credentials.secrets import secret_values
from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.rules import load_policy
from coding_agents.mcp.apart import ApartServer, read_given
from coding_agents.mcp.references import filled
from coding_agents.mcp.trust import TrustStore
from coding_agents.model.audit import AuditEvent, Outcome, RecordType
from coding_agents.model.mcp import McpServer, is_server_name
from coding_agents.model.turns import Turns
from coding_agents.policy.decide import Decision, Deny, decide
from coding_agents.policy.matrix import Operation
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.journal import Journal

Kind = Literal["program", "address"]
Detail = Mapping[str, str | int]


class RefusalError(Exception):
    """Nothing is done; the message is shown to the agent."""

    def __init__(self, reason: str, *, rule: str, tier: int = 0) -> None:
        super().__init__(reason)
        self.rule, self.tier = rule, tier


class Granted:
    """A server with its secrets in place, and those secrets, which are in no text of this."""

    def __init__(self, given: ApartServer, secrets: Mapping[str, str]) -> None:
        self.name = given.server.name
        self.directory = given.directory
        self.server: McpServer = filled(given.server, secrets)
        self.token = secrets.get(given.server.bearer_token_env_var, "")
        self.secrets = tuple(secrets.values())


class McpJudge:
    """One session's servers of one kind. `turns` are those of what is asked, `patience_s` how long one may wait."""

    def __init__(
        self, session: SessionContext, journal: Journal, kind: Kind, turns: Turns, *, patience_s: float
    ) -> None:
        self._session = session
        self._journal = journal
        self._kind = kind
        self._turns = turns
        self._patience_s = patience_s
        self._policy = load_policy()

    def given(self) -> dict[str, ApartServer]:
        """The servers of this kind that the session was given."""
        found = read_given(self._session.directory)
        wanted = self._kind == "address"
        return {name: one for name, one in found.items() if bool(one.server.url) == wanted}

    async def grant(self, name: str, kind: RecordType, detail: Detail | None = None) -> Granted:
        """The server `name`, when it is still exactly what a person trusts; recorded as `kind`. Raises RefusalError."""
        wait_s = self._turns.take(asyncio.get_running_loop().time(), patience_s=self._patience_s)
        if wait_s is None:
            raise RefusalError("servers are asked for too often; wait, then go on", rule="mcp-turns")
        await asyncio.sleep(wait_s)
        if not is_server_name(name):
            raise RefusalError("no name of a server", rule="mcp-name")
        given = self.given().get(name)
        trusted = TrustStore(self._session.env.data_dir, self._session.record.repo.repo_id).load(name)
        if given is None:
            self._require(Operation.MCP_OTHER_SERVER)
            raise AssertionError("another server is refused by every policy")
        if trusted is None or trusted.digest != given.digest:
            reason = "what a person trusts is not what this session was given; start the session again"
            raise RefusalError(reason, rule="mcp-trust")
        decision = self._require(Operation.MCP_SERVER)
        try:
            secrets = await asyncio.to_thread(secret_values, self._session.env, given.needs)
            known = {"digest": given.digest, "secrets": ", ".join(given.needs)}
            await self._journal.broker(
                AuditEvent(
                    kind,
                    tier=int(decision.tier),
                    rule=decision.rule,
                    subject=name,
                    detail={**known, **(detail or {})},
                )
            )
        except CodingAgentsError as error:
            raise RefusalError(error.message, rule="mcp-secret") from error
        return Granted(given, secrets)

    async def refused(self, name: str, error: RefusalError) -> None:
        """Record what was not done, if that is possible: nothing waits for it."""
        await self._note(
            RecordType.MCP_SERVER_REFUSED, name, "denied", error.rule, error.tier, {"reason": str(error)}
        )

    async def ended(self, kind: RecordType, name: str, outcome: Outcome, detail: Detail) -> None:
        """Record the end of what was granted; `denied` is one that was about to give its secret away."""
        if outcome == "allowed":
            self._journal.note(kind, subject=name, detail=detail)
            return
        decision = decide(self._policy, Operation.MCP_REFLECTED)
        rule, tier = (decision.rule, int(decision.tier)) if outcome == "denied" else ("", 0)
        await self._note(kind, name, outcome, rule, tier, detail)

    async def _note(
        self, kind: RecordType, name: str, outcome: Outcome, rule: str, tier: int, detail: Detail
    ) -> None:
        event = AuditEvent(kind, outcome=outcome, rule=rule, tier=tier, subject=name, detail=dict(detail))
        with suppress(CodingAgentsError, OSError):
            await self._journal.broker(event)

    def _require(self, operation: Operation) -> Decision:
        decision = decide(self._policy, operation)
        if isinstance(decision, Deny):
            raise RefusalError(decision.reason, rule=decision.rule, tier=int(decision.tier))
        return decision
