"""What the supervisor writes into the audit log, in one place: from relay events and guest reports to records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from coding_agents.audit.log import AuditLog
from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.integrate import Integrated
from coding_agents.gitsync.relay_events import RelayEvent
from coding_agents.gitsync.relay_repo import Identity
from coding_agents.model.audit import AuditEvent, Outcome, RecordType
from coding_agents.supervisor.tool_calls import ToolCall
from coding_agents.terminal.escape import escape
from coding_agents_guest.events import Autosaved, Event, Exit, Failed, Running, Salvaged, Saved, Step

Detail = Mapping[str, str | int]


def now_ms() -> int:
    """Milliseconds since the epoch: the supervisor's one reading of the wall clock."""
    return time.time_ns() // 1_000_000


class Journal:
    """The open audit log with the supervisor's vocabulary."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def note(
        self,
        kind: RecordType,
        *,
        subject: str = "",
        outcome: Outcome = "allowed",
        detail: Detail | None = None,
    ) -> None:
        """Record what happens in any case. Never raises."""
        event = AuditEvent(kind, outcome=outcome, subject=subject, detail=dict(detail or {}))
        self._log.note(event, time_ms=now_ms())

    def broken(self, error: CodingAgentsError) -> None:
        """Record why a session is not, or no longer, served."""
        self.note(RecordType.CHANNEL_CLOSED, outcome="failed", detail={"reason": error.message})

    def integrated(self, result: Integrated, trouble: str) -> None:
        """Record that the session's branch was brought home, or in `trouble` why not."""
        self.note(
            RecordType.INTEGRATED,
            subject=result.ref,
            outcome="failed" if trouble else "allowed",
            detail={"tip": result.tip or "", "reason": trouble or result.reason},
        )

    def require(self, kind: RecordType, *, subject: str = "", detail: Detail | None = None) -> None:
        """Record what may only happen when it is recorded. Raises AuditError."""
        self._log.record(AuditEvent(kind, subject=subject, detail=dict(detail or {})), time_ms=now_ms())

    async def relay(self, event: RelayEvent) -> None:
        """Record a push or fetch before it is carried out. Raises AuditError, which refuses it.

        What is refused, and pushes of the agent that fail in git, are records that it can cause at will.
        """
        outcome: Outcome = (
            "allowed" if event.outcome == "allowed" else "denied" if event.outcome == "denied" else "failed"
        )
        record = AuditEvent(
            RecordType(event.type),
            outcome=outcome,
            tier=int(event.tier),
            rule=event.rule,
            subject=event.subject,
            detail=dict(event.detail),
        )
        by_agent = event.detail.get("by") == Identity.AGENT.value
        if outcome == "allowed":
            self._log.record(record, time_ms=now_ms())
        elif outcome == "denied" or by_agent:
            self._log.refusal(record, time_ms=now_ms())
        else:
            self._log.note(record, time_ms=now_ms())

    async def broker(self, event: AuditEvent) -> None:
        """Record what a broker is about to do, or has refused. Raises AuditError for what may only happen recorded.

        What is refused or fails, the guest can cause at will.
        """
        if event.outcome == "allowed":
            await asyncio.to_thread(self._log.record, event, time_ms=now_ms())
        else:
            self._log.refusal(event, time_ms=now_ms())

    def egress(self, event: AuditEvent) -> None:
        """Record a request to the network that was made, or refused. Raises AuditError for one that was made.

        What is refused or fails before a byte passes, the guest can cause at will.
        """
        if event.outcome == "allowed" or event.detail.get("up") or event.detail.get("down"):
            self._log.record(event, time_ms=now_ms())
        else:
            self._log.refusal(event, time_ms=now_ms())

    def guest(self, report: Event) -> None:
        """Record what the guest says of itself, as the guest's."""
        match report:
            case Step(name=name, ms=ms):
                self._guest(RecordType.GUEST_STEP, name, {"ms": ms})
            case Running():
                self._guest(RecordType.GUEST_EVENT, "running", {})
            case Failed(step=step, message=message):
                self._guest(RecordType.GUEST_EVENT, f"failed: {step}", {"message": message})
            case Saved(head=head, pushed=pushed, message=message):
                detail = {"head": head, "pushed": str(pushed), "message": message}
                self._guest(RecordType.GUEST_EVENT, "saved", detail)
            case Autosaved(commit=commit, pushed=pushed, message=message) if not pushed:
                detail = {"commit": commit, "message": message}
                self._guest(RecordType.GUEST_EVENT, "not saved", detail)
            case Salvaged(head=head, worktree=worktree, clean=clean):
                detail = {"head": head, "worktree": worktree, "clean": str(clean)}
                self._guest(RecordType.GUEST_EVENT, "salvaged", detail)
            case Exit(status=status):
                self._guest(RecordType.GUEST_EVENT, "exit", {"status": status})
            case _:
                pass

    def tool_call(self, call: ToolCall) -> bool:
        """Record a call of a tool that the guest tells of, as the guest's; whether its budget had room."""
        detail: Detail = {"about": escape(call.about), "said_ms": call.ms}
        event = AuditEvent(RecordType.TOOL_CALL, source="guest", subject=escape(call.tool), detail=detail)
        return self._log.tool_call(event, time_ms=now_ms()) is not None

    def _guest(self, kind: RecordType, subject: str, detail: Detail) -> None:
        event = AuditEvent(kind, source="guest", subject=subject, detail=dict(detail))
        self._log.guest(event, time_ms=now_ms())
