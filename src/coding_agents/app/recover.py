"""Bring back what sessions left unsaved: after kill -9, a full disk, an engine restart, or --no-push."""

from __future__ import annotations

import msgspec

from coding_agents.app.stop import Ended, salvage
from coding_agents.config.environ import HostEnvironment
from coding_agents.errors import CodingAgentsError, SessionStateError
from coding_agents.model.session import SessionRecord
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext


class Recovered(msgspec.Struct, frozen=True):
    """One session's result: `ended` where the work is now, or `error` why that could not be found out."""

    record: SessionRecord
    ended: Ended | None = None
    error: CodingAgentsError | None = None


def recover(session: SessionContext) -> Ended:
    """Salvage one session that does not run. Raises SessionStateError while it runs."""
    record = session.reload()
    state = session.engine.inspect(record.container_id) if record.container_id else None
    if state is not None and state.running:
        raise SessionStateError(
            f"session {record.name} is running", hint=f"Stop it first: coding-agents stop {record.name}."
        )
    return salvage(session)


def recover_all(env: HostEnvironment, store: SessionStore) -> tuple[Recovered, ...]:
    """Salvage every session that does not run and whose work is not known to be home."""
    results = []
    for record in store.list():
        if not isinstance(record, SessionRecord) or record.saved.verified or not record.container_id:
            continue
        session = SessionContext(env, store, record)
        try:
            if _is_running(session):
                continue
            results.append(Recovered(record, ended=recover(session)))
        except CodingAgentsError as error:
            results.append(Recovered(record, error=error))
    return tuple(results)


def _is_running(session: SessionContext) -> bool:
    state = session.engine.inspect(session.record.container_id)
    return state is not None and state.running
