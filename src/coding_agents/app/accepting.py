"""A person's word about findings: this is known and wanted. It is recorded before it counts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from coding_agents.errors import UsageError
from coding_agents.gitsync.findings.model import Finding
from coding_agents.model.audit import RecordType
from coding_agents.store.acceptances import Acceptance, AcceptanceStore
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.protocol import Op
from coding_agents.terminal.escape import escape

if TYPE_CHECKING:
    from coding_agents.app.review import Review

MAX_REASON = 500
_ID = re.compile(r"[0-9a-f]{4,16}")
_MAX_PATH = 300


def accepted_of(session: SessionContext) -> dict[str, Acceptance]:
    """What was accepted of the session's repository, by id. Raises StoreError."""
    return _store(session).load()


def accept(
    session: SessionContext, review: Review, which: Sequence[str], *, reason: str, now_ms: int
) -> tuple[Finding, ...]:
    """Accept the findings of `review` that `which` names (an id, its beginning, or RULE:PATH), for `reason`.

    Raises UsageError for what names none, AuditError when it cannot be recorded (then nothing is accepted), StoreError.
    """
    cleaned = " ".join(escape(reason).split())
    if not cleaned or len(cleaned) > MAX_REASON:
        raise UsageError(
            f"a reason has 1 to {MAX_REASON} characters",
            hint='Say why: --reason "pins the new runner image".',
        )
    chosen = _chosen(review.findings, which)
    for one in chosen:
        detail = {"id": one.id, "reason": cleaned, "state": one.state, "ref": escape(one.ref)}
        _record(session, RecordType.FINDING_ACCEPTED, f"{one.rule} {_shown(one.path)}".strip(), detail)
    _store(session).add(
        Acceptance(one.id, one.rule, _shown(one.path), cleaned, session.record.id, now_ms, os.getuid())
        for one in chosen
    )
    return chosen


def withdraw(session: SessionContext, review: Review, which: Sequence[str]) -> tuple[Finding, ...]:
    """Accept the findings of `review` that `which` names no longer. Raises as `accept`."""
    chosen = _chosen([one for one in review.findings if one.id in review.accepted], which)
    _store(session).withdraw(one.id for one in chosen)
    for one in chosen:
        subject = f"{one.rule} {_shown(one.path)}".strip()
        _record(session, RecordType.FINDING_ACCEPTED, subject, {"id": one.id, "withdrawn": "1"})
    return chosen


def _chosen(findings: Iterable[Finding], which: Sequence[str]) -> tuple[Finding, ...]:
    known = list(findings)
    chosen: dict[str, Finding] = {}
    for text in which:
        found = [one for one in known if _is_named(one, text)]
        if not found:
            raise UsageError(
                f"no finding is named by {text!r}",
                hint="Name one by its ID, or as RULE:PATH, as `review` shows them.",
            )
        if _ID.fullmatch(text) and len({one.id for one in found}) > 1:
            raise UsageError(f"several findings have ids that begin with {text}", hint="Give more digits.")
        chosen |= {one.id: one for one in found}
    return tuple(chosen.values())


def _is_named(finding: Finding, text: str) -> bool:
    if _ID.fullmatch(text):
        return finding.id.startswith(text)
    rule, _, path = text.partition(":")
    # A path that cannot be typed is named as it is shown.
    return finding.rule == rule and path in (finding.path, escape(finding.path))


def _shown(path: str) -> str:
    shown = escape(path)
    return shown if len(shown) <= _MAX_PATH else f"{shown[:_MAX_PATH]}…"


def _record(session: SessionContext, kind: RecordType, subject: str, detail: dict[str, str]) -> None:
    session.supervisor().ask(Op.RECORD, type=kind.value, subject=subject, detail=detail, required=True)


def _store(session: SessionContext) -> AcceptanceStore:
    return AcceptanceStore(session.store.state_dir, session.record.repo.repo_id)
