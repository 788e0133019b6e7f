"""A session's use of the user's ssh-agent: it lists the keys that were named and signs logins at the hosts that were.

Each connection of the guest has a connection of its own to the agent. A signature is recorded before it is asked for.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.rules import load_policy
from coding_agents.model.audit import AuditEvent, RecordType
from coding_agents.model.release import parse_key_grant
from coding_agents.model.turns import Turns
from coding_agents.policy.decide import Deny, decide, decide_listed
from coding_agents.policy.matrix import Operation
from coding_agents.supervisor.context import SessionContext, session_settings
from coding_agents.supervisor.credentials_kept import read_given, still_given
from coding_agents.supervisor.guest_link import GUEST_UID
from coding_agents.supervisor.guest_program import is_this_versions
from coding_agents.supervisor.journal import Journal
from coding_agents_guest.mux import Stream

if TYPE_CHECKING:
    from coding_agents.brokers.sshagent.filter import AgentFilter, Allowed
    from coding_agents.brokers.sshagent.upstream import Upstream
    from coding_agents.brokers.sshagent.wire import Bind, SignRequest

_BURST, _EVERY_S = 20, 3.0
# Each connection costs a look at known_hosts, and two to the user's agent; a login makes one, of few messages.
_CONNECTIONS, _CONNECTED_EVERY_S = 30, 1.0
_MESSAGES = 100
_OPEN = 8  # one that waits for the user's agent is one stream less for other services, also when the guest hung up
_IDLE_S = 120.0  # a login asks within seconds


class SshAgentAccess:
    """One session's. The protocol is loaded with the first connection."""

    def __init__(self, session: SessionContext, journal: Journal) -> None:
        self._session = session
        self._journal = journal
        self._policy = load_policy()
        self._turns = Turns(_BURST, _EVERY_S)
        self._connections = Turns(_CONNECTIONS, _CONNECTED_EVERY_S)
        self._open = 0

    @property
    def served(self) -> bool:
        """Whether the session was given any key, and its program knows of that."""
        session = self._session
        return bool(read_given(session.directory).ssh_agent) and is_this_versions(
            session.env.data_dir, session.record.guest_digest
        )

    async def serve(self, stream: Stream) -> None:
        """Serve one connection of the guest until it ends, breaks the protocol, or has been quiet for long."""
        if stream.peer_uid != GUEST_UID:
            stream.reset("the agent's keys are for the agent alone")
            return
        self._open += 1
        try:
            await self._converse(stream)
        finally:
            self._open -= 1

    async def _converse(self, stream: Stream) -> None:
        from coding_agents.brokers.sshagent.filter import AgentFilter
        from coding_agents.brokers.sshagent.upstream import Upstream
        from coding_agents.brokers.sshagent.wire import MAX_REQUEST, AgentError, Frames

        try:
            _take(self._connections, "the agent is asked for too often; wait, then go on")
            if self._open > _OPEN:
                raise AgentError("the agent is asked by too many at once; wait, then go on")
            filtered = AgentFilter(await asyncio.to_thread(self._allowed))
        except (AgentError, CodingAgentsError) as error:
            await self._refused(Operation.SSH_AGENT_SIGN, str(error))
            stream.reset("no agent")
            return
        frames, answered = Frames(MAX_REQUEST), 0
        async with Upstream(self._session.env.environ.get("SSH_AUTH_SOCK", "")) as upstream:
            try:
                while data := await asyncio.wait_for(stream.read(), _IDLE_S):
                    for message in frames.feed(data):
                        if (answered := answered + 1) > _MESSAGES:
                            raise AgentError("a connection to the agent is for one login")
                        await stream.write(await self._answer(message, filtered, upstream))
            except AgentError as error:
                await self._refused(Operation.SSH_AGENT_OTHER, str(error))
                stream.reset("no more of this")
            except (TimeoutError, ConnectionError):
                stream.reset("quiet for too long")
            else:
                stream.write_eof()

    async def close(self) -> None:
        """Nothing stays open: a connection ends with its stream."""

    async def _answer(self, message: bytes, filtered: AgentFilter, upstream: Upstream) -> bytes:
        """The answer to one message, as it goes on the wire; FAILURE for all that is refused or comes to nothing."""
        from coding_agents.brokers.sshagent.wire import (
            FAILURE,
            REQUEST_IDENTITIES,
            SUCCESS,
            AgentError,
            Bind,
            Identities,
            packed,
            parse_request,
        )

        operation = Operation.SSH_AGENT_OTHER
        try:
            request = parse_request(message)
            operation = Operation.SSH_AGENT_SIGN
            match request:
                case Identities():
                    answer = filtered.identities(await upstream.ask(bytes([REQUEST_IDENTITIES])))
                case Bind() as bind:
                    await self._bind(bind, filtered, upstream)
                    answer = SUCCESS
                case _:
                    answer = await self._sign(request, filtered, upstream)
        except (AgentError, CodingAgentsError) as error:
            await self._refused(operation, str(error))
            answer = FAILURE
        return packed(answer)

    async def _bind(self, bind: Bind, filtered: AgentFilter, upstream: Upstream) -> None:
        filtered.require_bindable(bind)
        await upstream.require_checked(bind)
        filtered.bound(bind)

    async def _sign(self, request: SignRequest, filtered: AgentFilter, upstream: Upstream) -> bytes:
        from coding_agents.brokers.sshagent.wire import checked_signature

        _take(self._turns, "logins are asked for too often; wait, then go on")
        entry = filtered.require_signable(request)
        await self._record(request, entry)
        return checked_signature(await upstream.ask(request.message()))

    async def _record(self, request: SignRequest, entry: Allowed) -> None:
        """Write down what is about to be signed, when the settings name it still. Raises AgentError, AuditError."""
        from coding_agents.brokers.sshagent.wire import AgentError

        listed = any(
            (one.fingerprint, one.host) == (entry.fingerprint, entry.host)
            for one in await asyncio.to_thread(self._allowed)
        )
        decision = decide_listed(self._policy, Operation.SSH_AGENT_SIGN, listed=listed)
        if isinstance(decision, Deny):
            raise AgentError(decision.reason)
        await self._journal.broker(
            AuditEvent(
                RecordType.SSH_AGENT_SIGNED,
                tier=int(decision.tier),
                rule=decision.rule,
                subject=f"{request.user}@{entry.host}",
                detail={"key": entry.fingerprint, "session": request.session.hex()},
            )
        )

    def _allowed(self) -> tuple[Allowed, ...]:
        """The entries that count now, with the keys by which the user's known_hosts know their hosts. May raise."""
        from coding_agents.brokers.sshagent.filter import Allowed
        from coding_agents.credentials.known_hosts import known_keys

        settings = session_settings(self._session)
        grants = map(parse_key_grant, still_given(self._session.directory, settings).ssh_agent)
        return tuple(
            Allowed(one.fingerprint, one.host, frozenset(known_keys(self._session.env, one.known_as)))
            for one in grants
        )

    async def _refused(self, operation: Operation, reason: str) -> None:
        decision = decide(self._policy, operation)
        event = AuditEvent(
            RecordType.SSH_AGENT_REFUSED,
            outcome="denied",
            rule=decision.rule,
            tier=int(decision.tier),
            detail={"reason": reason},
        )
        with suppress(CodingAgentsError, OSError):
            await self._journal.broker(event)


def _take(turns: Turns, otherwise: str) -> None:
    """Raises AgentError, which says `otherwise`, when no turn is left."""
    from coding_agents.brokers.sshagent.wire import AgentError

    if turns.take(asyncio.get_running_loop().time(), patience_s=0.0) is None:
        raise AgentError(otherwise)
