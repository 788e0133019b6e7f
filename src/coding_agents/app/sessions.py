"""Sessions as they are now: the record on the host, compared with what the engine runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from coding_agents.config.environ import HostEnvironment
from coding_agents.errors import CodingAgentsError, SessionStateError
from coding_agents.model.session import SessionRecord, State
from coding_agents.store.sessions import BrokenSession, SessionStore

if TYPE_CHECKING:  # a sixth of the start-up time of a `list` that has no engine to ask
    from coding_agents.engine.api import ContainerState
    from coding_agents.supervisor.context import SessionContext

ENDED = ("stopped", "lost", "failed")


class Observed(msgspec.Struct, frozen=True):
    """A session with its state; `record` is a BrokenSession when its file cannot be read.

    `silence` says why its engine could not be asked, "" when it could: then `state` is the last known one.
    """

    record: SessionRecord | BrokenSession
    state: State
    silence: str = ""


def observe_all(env: HostEnvironment, store: SessionStore, *, ended: bool) -> tuple[Observed, ...]:
    """All sessions of this user, oldest first; those that have ended only with `ended`."""
    entries = store.list()
    records = [entry for entry in entries if isinstance(entry, SessionRecord)]
    for record in records:
        wake_overdue(env, store, record)
    containers = _containers(env, store, [record for record in records if record.phase not in ENDED])
    found = []
    for entry in entries:
        if isinstance(entry, BrokenSession):
            found.append(Observed(entry, "failed"))
        else:
            busy = entry.phase == "starting" and store.is_busy(entry.id)
            container = containers.get(entry.id)
            state = decide_state(entry, container, busy=busy)
            found.append(Observed(entry, state, container if isinstance(container, str) else ""))
    return tuple(one for one in found if ended or one.state not in ENDED)


def wake_overdue(env: HostEnvironment, store: SessionStore, record: SessionRecord) -> None:
    """Start the supervisor of a session whose time is up, which ends it: its own may have been killed."""
    if record.deadline is None:
        return
    from coding_agents.errors import SupervisorError
    from coding_agents.supervisor.context import SessionContext
    from coding_agents.supervisor.deadline import deadline_in_force, is_overdue

    if is_overdue(deadline_in_force(record)):
        with suppress(SupervisorError):  # the verb that looks has its own work; the next one tries again
            SessionContext(env, store, record).supervisor().ensure()


def decide_state(record: SessionRecord, container: ContainerState | str | None, *, busy: bool) -> State:
    """The state that a person is told. `container` is None when it is gone, a text when the engine is silent.

    `busy` tells that a living process is bringing the session up.
    """
    if record.phase in ENDED or isinstance(container, str):
        return record.phase
    if record.phase == "starting" and (container is None or not container.running):
        return "starting" if busy else "failed"  # the launch was killed before it got further
    if container is None:
        return "lost"
    if not container.running:
        return "stopping"
    if record.phase == "running" and record.started_at != container.started_at:
        return "starting"  # somebody restarted it: its gate is closed until `start`
    return "waiting" if record.phase == "running" and record.activity == "waiting" else record.phase


def _containers(
    env: HostEnvironment, store: SessionStore, records: Iterable[SessionRecord]
) -> Mapping[str, ContainerState | str]:
    """The agent's container of each live session, by session id. One engine query for each engine in use."""
    by_engine: dict[tuple[str, tuple[tuple[str, str], ...]], list[SessionRecord]] = {}
    for record in records:
        by_engine.setdefault((record.engine, record.engine_env), []).append(record)
    found: dict[str, ContainerState | str] = {}
    if not by_engine:
        return found
    from coding_agents.sandbox.spec import LABEL, Role
    from coding_agents.supervisor.context import SessionContext, require_engine_of

    for group in by_engine.values():
        try:
            engine = SessionContext(env, store, group[0]).engine
            states = engine.find({f"{LABEL}type": Role.AGENT.value})
        except CodingAgentsError as error:
            found.update({record.id: error.message for record in group})
            continue
        by_nonce = {state.labels.get(f"{LABEL}nonce", ""): state for state in states}
        for record in group:
            if record.nonce in by_nonce:
                found[record.id] = by_nonce[record.nonce]
            elif record.container_id:
                try:
                    require_engine_of(record, engine)
                except CodingAgentsError as error:
                    found[record.id] = error.message
    return found


def require_open_gate(session: SessionContext) -> SessionContext:
    """Give back a session whose agent runs behind an opened gate. Raises SessionStateError otherwise."""
    record = session.reload()
    state = session.container_state()
    if state is None or not state.running:
        raise SessionStateError(
            f"session {record.name} is not running", hint=f"Run `coding-agents start {record.name}`."
        )
    if not record.started_at or state.started_at != record.started_at:
        raise SessionStateError(
            f"session {record.name} was restarted by somebody else; its gate is closed",
            hint=f"Run `coding-agents start {record.name}`: it measures the container and opens the gate.",
        )
    return session
