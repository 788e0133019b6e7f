"""What the audit log says of a session's pushes to origin (docs/reference/audit.md)."""

from __future__ import annotations

from coding_agents.model.approval import Approval, Wanted
from coding_agents.model.audit import AuditEvent, Outcome, RecordType
from coding_agents.policy.matrix import Tier
from coding_agents.supervisor.journal import Journal


class OriginRecords:
    """Writes into one session's log."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def require(
        self, kind: RecordType, approval: Approval, *, tier: Tier, rule: str, by: str = ""
    ) -> None:
        """Record what may only happen recorded. Raises AuditError."""
        event = AuditEvent(
            kind, tier=int(tier), rule=rule, subject=_subject(approval.wanted),
            detail={**_detail(approval), "by": by},
        )  # fmt: skip
        await self._journal.broker(event)

    async def refused(self, wanted: Wanted, rule: str, reason: str) -> None:
        """Record a push that nobody is asked about. Raises AuditError."""
        event = AuditEvent(
            RecordType.ORIGIN_REFUSED, outcome="denied", tier=int(Tier.ASK), rule=rule,
            subject=_subject(wanted), detail={"reason": reason},
        )  # fmt: skip
        await self._journal.broker(event)

    def note(self, kind: RecordType, approval: Approval, outcome: Outcome) -> None:
        """Record what happens in any case."""
        detail = {**_detail(approval), "reason": approval.reason, "said": approval.said}
        self._journal.note(kind, subject=_subject(approval.wanted), outcome=outcome, detail=detail)


def _subject(wanted: Wanted) -> str:
    return f"{wanted.url} {wanted.ref}"


def _detail(approval: Approval) -> dict[str, str | int]:
    wanted, shown = approval.wanted, approval.shown
    return {
        "id": approval.id,
        "old": wanted.old,
        "new": wanted.new,
        "force": str(wanted.force),
        "merge_request": str(wanted.merge_request),
        "findings": wanted.findings,
        "blocking": shown.blocking,
        "expires": approval.expires_ms,
        "binding": approval.binding,
    }
