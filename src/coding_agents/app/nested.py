"""Repositories inside a session's work tree: what came back of them, and taking one over."""

from __future__ import annotations

from pathlib import Path

import msgspec

from coding_agents.errors import WorkspaceError
from coding_agents.gitsync.nested import Nested, list_nested, place_of, take_nested
from coding_agents.model.refs import Branch
from coding_agents.supervisor.context import SessionContext, branch_of, facts_of


class Taken(msgspec.Struct, frozen=True):
    """The repository at `into` has `branch` now; `made` says whether it is new."""

    into: Path
    branch: str
    made: bool


def nested_of(session: SessionContext) -> tuple[Nested, ...]:
    """What came back. Raises GitError when the session's repository cannot be read."""
    record = session.record
    return list_nested(facts_of(record), session=record.id, env=session.env.for_git())


def take(session: SessionContext, found: tuple[Nested, ...], path: str, *, into: Path | None) -> Taken:
    """Take over the one at `path`, as a branch of the repository at `into` (None: at its path in the work tree).

    What a repository has beside its HEAD goes to a branch of its own there, beside that of the HEAD.
    Raises WorkspaceError when there is none, and the errors of `take_nested`.
    """
    chosen = next((one for one in found if one.path == path.rstrip("/")), None)
    if chosen is None:
        raise WorkspaceError(
            f"nothing came back for a repository at {path[:200]!r}",
            hint=f"`coding-agents nested {session.record.name}` lists what did.",
        )
    repo, branch = facts_of(session.record), branch_of(session.record)
    around = chosen.path.removesuffix("/.git")
    if around != chosen.path:
        branch = Branch(f"{branch.short}-others")
    place = into or place_of(repo, around)
    made = take_nested(repo, chosen, branch, into=place, env=session.env.for_git())
    return Taken(place, branch.short, made)
