"""Bring back what sessions left unsaved: after kill -9, a full disk, an engine restart, or --no-push."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from coding_agents.app.stop import Ended, salvage, stop_at_gate
from coding_agents.config.environ import HostEnvironment
from coding_agents.errors import CodingAgentsError, SessionStateError, UsageError
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.integrate import seen_again
from coding_agents.gitsync.packs import user_store
from coding_agents.model.refs import Oid
from coding_agents.model.session import SessionRecord
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext, branch_of, facts_of, repo_ref


class Recovered(msgspec.Struct, frozen=True):
    """One session's result: `ended` where the work is now, or `error` why that could not be found out."""

    record: SessionRecord
    ended: Ended | None = None
    error: CodingAgentsError | None = None


def recover(session: SessionContext, *, repo: Path | None = None, engine_gone: bool = False) -> Ended:
    """Salvage one session that does not run. Raises SessionStateError while it runs.

    A container at a closed gate, of a `start` that was killed or of somebody else's, is stopped first. The branch is
    moved from where it stands now when that loses nothing, also where somebody else has moved or deleted it.
    `repo` is where its repository is now, or another one that is to have the work; the session belongs to that
    one from here on. Raises NotARepositoryError when there is none, UsageError when it cannot have the work.
    `engine_gone` says that the engine of the launch is no more: what the one that answers does not have is lost.
    """
    with session.store.lock(session.record.id):  # nobody starts or removes it meanwhile
        if engine_gone:
            session.update(engine_id="")
        _stop_at_closed_gate(session)
        if repo is not None:
            _move(session, repo)
        with suppress(CodingAgentsError):  # the salvage goes on without, and tells what is wrong
            _look_again(session)
        return salvage(session)


def _look_again(session: SessionContext) -> None:
    record = session.reload()
    known = Oid.parse(record.branch_tip) if record.branch_tip else None
    seen = seen_again(facts_of(record), session.relay, expected_old=known, env=session.env.for_git())
    if seen != known:
        session.update(branch_tip=str(seen or ""))


def _move(session: SessionContext, path: Path) -> None:
    """Give the session another repository; its branch there is ours only where we left it."""
    record = session.record
    facts = discover(path, env=session.env.for_git())
    if facts.object_format != record.repo.object_format:
        raise UsageError(
            f"{str(path)!r} has object format {facts.object_format}, the session {record.repo.object_format}",
            hint=f"Make one with `git init --object-format={record.repo.object_format}`.",
        )
    tip = user_store(facts, session.env.for_git()).resolve(branch_of(record).ref)
    ours = str(tip) if tip in (record.branch_tip, record.branch_next) else ""
    session.update(repo=repo_ref(facts), branch_tip=ours, branch_next="")


def recover_all(env: HostEnvironment, store: SessionStore) -> tuple[Recovered, ...]:
    """Salvage every session that does not run and whose work is not known to be home.

    A branch that somebody has moved or deleted stays as it is: nobody has asked for this session's.
    """
    results = []
    for record in store.list():
        if not isinstance(record, SessionRecord) or record.saved.verified or not record.container_id:
            continue
        session = SessionContext(env, store, record)
        try:
            if _is_running(session):
                continue
            with store.lock(record.id):
                if not _is_running(session):  # nobody starts it any more
                    results.append(Recovered(record, ended=salvage(session)))
        except CodingAgentsError as error:
            results.append(Recovered(record, error=error))
    return tuple(results)


def _is_running(session: SessionContext) -> bool:
    session.reload()
    state = session.container_state()
    return state is not None and state.running


def _stop_at_closed_gate(session: SessionContext) -> None:
    """Stop a running container in which no agent has begun. Raises SessionStateError when one has."""
    record = session.reload()
    state = session.container_state()
    if state is None or not state.running:
        return
    if record.started_at == state.started_at:
        raise SessionStateError(
            f"session {record.name} is running", hint=f"Stop it first: coding-agents stop {record.name}."
        )
    stop_at_gate(session)
