"""Remove a session: never before its work is known to be home."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from coding_agents.app.stop import Ended, salvage, stop
from coding_agents.errors import CodingAgentsError, SessionStateError, UnsavedWorkError
from coding_agents.gitsync.branches import delete_branch, is_merged
from coding_agents.gitsync.packs import user_store
from coding_agents.model.audit import RecordType
from coding_agents.model.session import Saved
from coding_agents.supervisor.context import SessionContext, branch_of, facts_of
from coding_agents.supervisor.disk import holds_work, remove_host_side
from coding_agents.supervisor.protocol import Op
from coding_agents.supervisor.removal import remove_engine_objects


class Removed(msgspec.Struct, frozen=True):
    """What `remove` left: where the work is, and whether the branch was deleted because it is merged.

    `kept_ref` names the work, "" when it was on the deleted branch alone. `left_out` are files that are gone with the
    volume: they were not saved on purpose. `nested` are the refs that keep the repositories inside the work tree.
    """

    name: str
    kept_ref: str
    branch_deleted: bool
    left_out: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()


def remove(session: SessionContext, *, force: bool) -> Removed:
    """Salvage, then remove containers, volumes, network and record.

    A running session is stopped first with `force`, else refused with SessionStateError. Raises
    UnsavedWorkError when the volume cannot be compared or its work cannot be brought home.
    """
    record = session.reload()
    if _running(session):
        if not force:
            raise SessionStateError(
                f"session {record.name} is running",
                hint=f"Stop it first, or use `remove --force {record.name}`.",
            )
        stop(session, timeout_s=120)
    with session.store.lock(record.id):
        ended = _saved(session)
        remove_engine_objects(session.engine, record.nonce)
        with suppress(CodingAgentsError):  # no removal is refused for lack of a record
            session.supervisor().ask(Op.RECORD, type=RecordType.SESSION_REMOVED.value, subject=record.name)
        session.supervisor().quit()
        deleted = _delete_merged_branch(session)
        remove_host_side(session.store, record.id)
    saved = ended.saved if ended else Saved()
    kept = "" if deleted and saved.integrated == branch_of(record).ref else saved.integrated
    return Removed(record.name, kept, deleted, saved.left_out, saved.nested)


def _running(session: SessionContext) -> bool:
    state = session.container_state()
    return state is not None and state.running


def _saved(session: SessionContext) -> Ended | None:
    """The result of a salvage; None when the session never came to hold work."""
    volume = session.record.volumes.workspace
    if not volume or not session.record.enforced:
        return None  # its gate was never opened: a launch that was killed may not even have made its relay
    try:
        ended = salvage(session)
    except CodingAgentsError as error:
        raise UnsavedWorkError(
            f"the work of session {session.record.name} cannot be checked: {error.message}",
            details=error.details,
            hint=f"Nothing was removed; its volume is {volume}.",
        ) from error
    compared = ended.saved.verified or not holds_work(session)
    if not compared or ended.saved.where == "volume":
        raise UnsavedWorkError(
            f"the work of session {session.record.name} is not in the repository",
            details=ended.saved.note,
            hint=f"Nothing was removed; its volume is {volume}.",
        )
    return ended


def _delete_merged_branch(session: SessionContext) -> bool:
    """Delete the session's branch where we left it, when another branch contains it. Whatever hinders that keeps it."""
    try:
        record = session.reload()  # the supervisor may just have moved it
        repo, branch, env = facts_of(record), branch_of(record), session.env.for_git()
        tip = user_store(repo, env).resolve(branch.ref)
        if tip is None or tip != record.branch_tip or not is_merged(repo, branch, env=env):
            return False
        return delete_branch(repo, branch, expected=tip, env=env)
    except CodingAgentsError:
        return False
