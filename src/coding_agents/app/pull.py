"""Refresh the host from a running session: its commits on its branch, what is not committed as a ref beside it."""

from __future__ import annotations

import msgspec

from coding_agents.app.work import autosave
from coding_agents.errors import GuestError, SessionStateError
from coding_agents.gitsync.autosave import bring_save
from coding_agents.model.refs import Oid
from coding_agents.model.session import Saved
from coding_agents.supervisor.context import SessionContext, facts_of


class Pulled(msgspec.Struct, frozen=True):
    """`saved` says where the commits are; `ref` names the whole state (`tip`), "" when there is no work yet."""

    saved: Saved
    ref: str
    tip: Oid | None


def pull(session: SessionContext) -> Pulled:
    """Save a running session and bring that home. Raises SessionStateError unless it runs, GuestError, GitError."""
    _, unsaved = autosave(session, branch=True)
    record = session.reload()
    if record.phase != "running":  # from the beginning, or as its supervisor has found out
        raise SessionStateError(
            f"session {record.name} is not running",
            hint=f"`coding-agents recover {record.name}` brings home what is not home yet.",
        )
    if unsaved:
        raise GuestError(
            f"the work of session {record.name} was not saved: {unsaved}", hint="Try again in a moment."
        )
    brought = bring_save(facts_of(record), session.relay, session=record.id, env=session.env.for_git())
    ref, tip = brought or ("", None)
    return Pulled(session.reload().saved, ref, tip)
