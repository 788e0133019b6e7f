"""What is kept of a start that failed: the audit log, when walls did not stand or the agent may have run.

Any other launch that is undone leaves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coding_agents.app.steps import Undo
from coding_agents.audit.query import Query, Reading
from coding_agents.errors import CodingAgentsError, EnforcementError
from coding_agents.model.audit import RecordType
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.disk import remove_host_side
from coding_agents.supervisor.protocol import Op

_MEASURED = Query(types=frozenset({RecordType.ENFORCEMENT_MEASURED}))  # it comes before each opened gate, too


@contextmanager
def enforcement_failures_recorded(session: SessionContext) -> Iterator[None]:
    """Write what an EnforcementError of the block says into the session's audit log."""
    try:
        yield
    except EnforcementError as error:
        with suppress(CodingAgentsError):  # the first error is the one to be told
            session.supervisor().ask(
                Op.RECORD,
                type=RecordType.ENFORCEMENT_MEASURED.value,
                outcome="failed",
                subject=error.message,
                detail={"problems": error.details},
            )
        raise


@contextmanager
def kept_log_named(store: SessionStore, session_id: str, undo: Undo) -> Iterator[None]:
    """Let an error that undoes a launch say where its audit log will be, when `discard` keeps it."""
    try:
        yield
    except CodingAgentsError as error:
        if not undo.is_held and _is_worth_keeping(store.audit_log(session_id)):
            error.details += f"\nthe audit log is kept: {store.kept_log(session_id)}"
        raise


def discard(store: SessionStore, session_id: str) -> None:
    """Remove the session of a launch that is undone. Raises StoreError, DiskImageError."""
    remove_host_side(store, session_id, keep_log=_is_worth_keeping(store.audit_log(session_id)))


def _is_worth_keeping(log: Path) -> bool:
    try:
        with log.open("rb") as lines:
            return any(True for _ in Reading(lines).matching(_MEASURED))
    except FileNotFoundError:
        return False
