"""Why a branch is not merged: findings without a person's word, and conflicts; each with how to go on."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from coding_agents.errors import MergeConflictError, UnreviewedError
from coding_agents.gitsync.findings.model import Finding
from coding_agents.gitsync.forward import Target
from coding_agents.gitsync.merging import Conflict
from coding_agents.model.refs import Oid
from coding_agents.supervisor.context import SessionContext
from coding_agents.terminal.escape import escape

_SHOWN = 20


def require_reviewed(session: SessionContext, blockers: tuple[Finding, ...], target: Target) -> None:
    """Raises UnreviewedError when there are `blockers`: findings that nobody has accepted."""
    if not blockers:
        return
    name = shlex.quote(session.record.name)
    into = f" --into {shlex.quote(target.short)}"
    raise UnreviewedError(
        f"{len(blockers)} finding(s) about {session.record.branch} block a merge",
        details=_listed(
            f"{one.id}  {one.rule}  {one.path or '(the branch)'}  {one.detail}" for one in blockers
        ),
        hint=f"Look at them; what is wanted: `coding-agents review {name}{into} --accept ID --reason TEXT`.",
    )


def require_mergeable(
    session: SessionContext, target: Target, tip: Oid, conflicts: tuple[Conflict, ...]
) -> None:
    """Raises MergeConflictError when there are `conflicts` between `target` and `tip`, the session's last commit."""
    if not conflicts:
        return
    branch = session.record.branch
    bring, theirs = _at_home(session, target, tip)
    raise MergeConflictError(
        f"{branch} and {target.short} conflict in {len(conflicts)} path(s)",
        details=_listed(f"{one.path or '(no path)'}: {one.why}" for one in conflicts),
        hint=f"Resolve it by hand, with no hook of the agent's: {bring}git switch {shlex.quote(target.short)} && "
        f"git -c core.hooksPath=/dev/null merge {shlex.quote(theirs)}",
    )


def _at_home(session: SessionContext, target: Target, tip: Oid) -> tuple[str, str]:
    """The command, if any, that brings `tip` into the user's repository, and what names it there."""
    record = session.record
    for name in (f"refs/heads/{record.branch}", record.saved.integrated):
        if name and target.user.refs(name).get(name) == tip:
            return "", name.removeprefix("refs/heads/")
    verb = "pull" if record.phase == "running" else "recover"
    return f"coding-agents {verb} {shlex.quote(record.name)} && ", record.branch


def _listed(lines: Iterable[str]) -> str:
    """The first lines, each on one line whatever it holds, and how many more there are."""
    shown = [escape(line) for line in lines]
    more = len(shown) - _SHOWN
    return "\n".join([*shown[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])
