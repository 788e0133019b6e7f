"""Remove what ended sessions have left behind.

Every engine object is made after its session's record, so a launch that was killed half-way is a session here,
too. What carries no nonce of ours belongs to other users of the engine and is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from coding_agents.app.remove import remove
from coding_agents.app.sessions import observe_all
from coding_agents.config.environ import HostEnvironment
from coding_agents.errors import CodingAgentsError
from coding_agents.store.leftovers import finish_removals, is_unrecorded
from coding_agents.store.sessions import BrokenSession, SessionStore
from coding_agents.supervisor.context import SessionContext


class Pruned(msgspec.Struct, frozen=True):
    """One thing that was removed (or would be, in a dry run), or `kept` with the reason.

    `left_out` are files that are gone with it: they were not saved on purpose.
    """

    what: str
    kept: str = ""
    left_out: tuple[str, ...] = ()


def prune(
    env: HostEnvironment,
    store: SessionStore,
    *,
    now_ms: int,
    older_than_s: int,
    dry_run: bool,
) -> Iterator[Pruned]:
    """Remove sessions that ended and were made more than `older_than_s` seconds ago.

    Work is salvaged first, as with `remove`; a session whose work cannot be brought home is kept and named.
    """
    if not dry_run:
        finish_removals(store)
    for observed in observe_all(env, store, ended=True):
        record = observed.record
        if isinstance(record, BrokenSession) and is_unrecorded(store, record.id):
            if not dry_run:
                store.remove(record.id)
            yield Pruned(f"session {record.id}, which a launch left that was killed at its very beginning")
        elif isinstance(record, BrokenSession):
            yield Pruned(f"session {record.id}", kept=f"its record cannot be read: {record.reason}")
        elif (
            observed.state in ("stopped", "failed", "lost")
            and now_ms - record.created_ms >= older_than_s * 1000
        ):
            yield _prune_session(SessionContext(env, store, record), dry_run=dry_run)


def _prune_session(session: SessionContext, *, dry_run: bool) -> Pruned:
    what = f"session {session.record.name}"
    if dry_run:
        return Pruned(what)
    try:
        removed = remove(session, force=False)
    except CodingAgentsError as error:
        return Pruned(what, kept=error.message)
    return Pruned(what, left_out=removed.left_out)
