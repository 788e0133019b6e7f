"""A session's requests for git credentials: each is read, judged, recorded, and only then answered.

For its own origin, which git reaches through the relay, it is given a token of the session's own: that opens nothing
anywhere (the relay knows a session by its channel), and one that turns up elsewhere tells which session it was. A real
credential is released for places that the user's settings name alone.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.rules import load_policy
from coding_agents.model.audit import AuditEvent, RecordType
from coding_agents.model.release import Release, covering, parse_release
from coding_agents.model.turns import Turns
from coding_agents.policy.decide import Allow, Decision, Deny, decide, decide_listed
from coding_agents.policy.matrix import Operation
from coding_agents.supervisor.context import SessionContext, session_settings
from coding_agents.supervisor.credentials_kept import session_token, still_given
from coding_agents.supervisor.guest_link import GUEST_UID
from coding_agents.supervisor.guest_program import is_this_versions
from coding_agents.supervisor.journal import Journal
from coding_agents_guest.mux import Stream

if TYPE_CHECKING:
    from coding_agents.brokers.credential.answer import Credential
    from coding_agents.brokers.credential.request import CredentialRequest

_BURST, _EVERY_S = 20, 3.0  # a git of a submodule or two asks a few times a minute
_REQUEST_S = 10.0
_WAITING = 4  # a guest that hangs up leaves its request here, and its stream is one less for other services
_TOKEN_USER = "coding-agents"  # noqa: S105 - a user's name


class _RefusedError(Exception):
    """Nothing is given; the message is shown to the agent."""

    def __init__(self, reason: str, *, rule: str, tier: int = 0) -> None:
        super().__init__(reason)
        self.rule, self.tier = rule, tier


class CredentialAccess:
    """One session's. What reads requests and asks the host's git is loaded with the first connection."""

    def __init__(self, session: SessionContext, journal: Journal) -> None:
        self._session = session
        self._journal = journal
        self._policy = load_policy()
        self._turns = Turns(_BURST, _EVERY_S)
        self._one = asyncio.Lock()  # helpers of the host may wait for each other's files
        self._waiting = 0

    @property
    def served(self) -> bool:
        """Always, so that git inside is told why there is no credential; but a session's program may be older."""
        return is_this_versions(self._session.env.data_dir, self._session.record.guest_digest)

    async def serve(self, stream: Stream) -> None:
        """Answer the one request that a connection of the guest carries."""
        if stream.peer_uid != GUEST_UID:
            stream.reset("credentials are for the agent alone")
            return
        subject = ""
        try:
            request = await self._request(stream)
            subject = request.url
            answer = await self._answer(request)
        except _RefusedError as error:
            await self._refused(subject, error)
            answer = f"{error}\n".encode("utf-8", "replace")
        with suppress(ConnectionError):
            await stream.write(answer)
            stream.write_eof()

    async def close(self) -> None:
        """Nothing stays open."""

    async def _request(self, stream: Stream) -> CredentialRequest:
        from coding_agents.brokers.credential.request import MAX_REQUEST, RequestError, parse_request

        data = b""
        try:
            async with asyncio.timeout(_REQUEST_S):
                while len(data) <= MAX_REQUEST and (chunk := await stream.read()):
                    data += chunk
        except (TimeoutError, ConnectionError):
            raise _RefusedError("the request did not come whole", rule="credential-request") from None
        if self._turns.take(asyncio.get_running_loop().time(), patience_s=0.0) is None:
            raise _RefusedError(
                "credentials are asked for too often; wait, then go on", rule="credential-turns"
            )
        try:
            return parse_request(data)
        except RequestError as error:
            decision = decide(self._policy, Operation.CREDENTIAL_MALFORMED)
            raise _RefusedError(str(error), rule=decision.rule, tier=int(decision.tier)) from None

    async def _answer(self, request: CredentialRequest) -> bytes:
        """The bytes for the guest; what they hold is recorded. Raises _RefusedError."""
        from coding_agents.brokers.credential.answer import guest_lines
        from coding_agents_guest.credential_client import ANSWERED

        try:
            entry = covering(await asyncio.to_thread(self._releases), request.host, request.path)
            if entry is None and self._is_origin(request):
                decision = self._require(decide(self._policy, Operation.CREDENTIAL_SESSION))
                credential, source = await asyncio.to_thread(self._own_token), "session"
            else:
                listed = entry is not None
                decision = self._require(
                    decide_listed(self._policy, Operation.CREDENTIAL_RELEASE, listed=listed)
                )
                if entry is None:
                    raise AssertionError("a policy that releases what no setting names")
                credential, source = await self._filled(request, entry), entry.text
            await self._journal.broker(_given(decision, request, credential, source))
        except CodingAgentsError as error:
            raise _RefusedError(error.message, rule="credential-host") from error
        return ANSWERED + guest_lines(credential)

    def _releases(self) -> tuple[Release, ...]:
        settings = session_settings(self._session)
        return tuple(map(parse_release, still_given(self._session.directory, settings).release))

    def _is_origin(self, request: CredentialRequest) -> bool:
        try:
            origin = parse_release(self._session.record.repo.url)
        except ValueError:  # it is not over HTTPS, or there is none
            return False
        return len(request.path) == len(origin.path) and origin.covers(request.host, request.path)

    def _own_token(self) -> Credential:
        from coding_agents.brokers.credential.answer import Credential

        return Credential(_TOKEN_USER, session_token(self._session.directory))

    async def _filled(self, request: CredentialRequest, entry: Release) -> Credential:
        from coding_agents.credentials.git import git_credential

        if self._waiting >= _WAITING:
            raise _RefusedError(
                "the host is still asking for others; wait, then go on", rule="credential-turns"
            )
        self._waiting += 1
        try:
            async with self._one:
                return await asyncio.to_thread(git_credential, self._session.env, request, user=entry.user)
        finally:
            self._waiting -= 1

    def _require(self, decision: Decision) -> Allow:
        if isinstance(decision, Deny):
            raise _RefusedError(decision.reason, rule=decision.rule, tier=int(decision.tier))
        return decision

    async def _refused(self, subject: str, error: _RefusedError) -> None:
        event = AuditEvent(
            RecordType.CREDENTIAL_REFUSED,
            outcome="denied",
            rule=error.rule,
            tier=error.tier,
            subject=subject,
            detail={"reason": str(error)},
        )
        with suppress(CodingAgentsError, OSError):
            await self._journal.broker(event)


def _given(decision: Allow, request: CredentialRequest, credential: Credential, source: str) -> AuditEvent:
    """Of a real credential its account; of the session's own token its digest, by which one is known again."""
    own = source == "session"
    digest = {"sha256": hashlib.sha256(credential.password.encode()).hexdigest()} if own else {}
    return AuditEvent(
        RecordType.CREDENTIAL_RELEASED,
        tier=int(decision.tier),
        rule=decision.rule,
        subject=request.url,
        detail={"account": credential.username, "entry": source, **digest},
    )
