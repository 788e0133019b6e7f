"""A session that is on disk alone, and a journal in memory, for what needs no more of a supervisor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from coding_agents.model.audit import RecordType
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.journal import Journal
from support.host import host_environment
from support.sessions import REPO, session_record


class Records(Journal):
    """A journal in memory."""

    def __init__(self) -> None:
        self.noted: list[tuple[RecordType, str, str]] = []

    def note(
        self, kind: RecordType, *, subject: str = "", outcome: str = "allowed", detail: object = None
    ) -> None:
        self.noted.append((kind, subject, outcome))


def stored_session(home: Path, *, environ: dict[str, str] | None = None, **changes: Any) -> SessionContext:
    store = SessionStore(home / "state")
    record = session_record(repo=replace(REPO, work_tree=""), **changes)
    store.create(record.id)
    store.register(record)
    return SessionContext(host_environment(home, **(environ or {})), store, record)
