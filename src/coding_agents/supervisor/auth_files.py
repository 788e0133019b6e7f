"""Before a gate opens, it is recorded which of the user's own logins the agent finds behind it."""

from __future__ import annotations

from coding_agents.errors import CredentialError
from coding_agents.gitsync.rules import load_policy
from coding_agents.model.audit import AuditEvent, RecordType
from coding_agents.policy.decide import Deny, decide_listed
from coding_agents.policy.matrix import Operation
from coding_agents.supervisor.context import SessionContext, session_settings
from coding_agents.supervisor.credentials_kept import read_given
from coding_agents.supervisor.journal import Journal


async def record_auth_files(session: SessionContext, journal: Journal) -> None:
    """Record each configuration that was copied in. Raises AuditError, CredentialError; then the gate stays closed."""
    given = read_given(session.directory).files
    if not given:
        return
    policy, listed = load_policy(), session_settings(session).credentials_files
    for name in given:
        decision = decide_listed(policy, Operation.AUTH_FILE, listed=name in listed)
        if isinstance(decision, Deny):
            raise CredentialError(
                f"the session was given {name}: {decision.reason}",
                hint="Start it again, or launch a new one.",
            )
        await journal.broker(
            AuditEvent(RecordType.AUTH_FILES_GIVEN, tier=int(decision.tier), rule=decision.rule, subject=name)
        )
