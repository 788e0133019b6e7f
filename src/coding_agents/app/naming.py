"""Which session a launch means: one that is there already, or a new one with a name and a branch of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import msgspec

from coding_agents.app.gather import Gathered
from coding_agents.app.joining import require_joinable
from coding_agents.app.launch_request import LaunchRequest
from coding_agents.app.narrate import Narrator
from coding_agents.config.environ import HostEnvironment
from coding_agents.errors import BranchError, SessionExistsError
from coding_agents.gitsync.branches import BranchState, archive_existing, branch_names, branch_state
from coding_agents.model.names import named_session, session_name, with_suffix
from coding_agents.model.refs import Branch, next_session_branch
from coding_agents.model.session import SessionRecord
from coding_agents.store.sessions import SessionStore


class Naming(msgspec.Struct, frozen=True):
    """Name and branch of a session. `existing` is the session that is there already, None for a new one."""

    name: str
    branch: Branch
    existing: SessionRecord | None = None


def choose_name(request: LaunchRequest, facts: Gathered, store: SessionStore, env: HostEnvironment) -> Naming:
    """Find the session that the launch means, or name a new one. Raises SessionExistsError, BranchError."""
    agent, options = facts.manifest.name, request.options
    sessions = [entry for entry in store.list() if isinstance(entry, SessionRecord)]
    mine = [session for session in sessions if session.repo.repo_id == facts.repo.repo_id]
    if options.branch is not None:
        branch = Branch.parse(options.branch, agent=agent)
    else:
        taken = (*branch_names(facts.repo, env=env.for_git()), *(session.branch for session in mine))
        branch = next_session_branch(agent, taken)
    if options.name is not None:
        name = named_session(agent, options.name)
        existing = next((session for session in sessions if session.name == name), None)
        if existing is not None and existing.repo.repo_id != facts.repo.repo_id:
            raise SessionExistsError(
                f"session {name} works on another repository: {existing.repo.path}",
                hint="Choose another --name.",
            )
    else:
        existing = next((s for s in mine if s.branch == branch.short and s.agent == agent), None)
        name = session_name(agent, facts.repo.name, branch)
    if existing is not None:
        require_joinable(request, existing)
        return Naming(existing.name, branch, existing)
    if other := next((s for s in mine if s.branch == branch.short), None):
        raise SessionExistsError(
            f"session {other.name} already works on the branch {branch.short}", hint="Choose another -b."
        )
    return Naming(_free_name(name, branch, facts, {session.name for session in sessions}), branch)


def _free_name(name: str, branch: Branch, facts: Gathered, known: Collection[str]) -> str:
    """`name`, with a suffix when another repository has it, or another branch that reads the same (a_b, a-b)."""
    repo_id = facts.repo.repo_id
    of_branch = hashlib.sha256(f"{repo_id} {branch.short}".encode()).hexdigest()
    for candidate in (name, with_suffix(name, repo_id), with_suffix(name, of_branch)):
        if candidate not in known and not _is_taken(facts, candidate):
            return candidate
    raise SessionExistsError(
        f"the engine has a session {name} of another user", hint="Choose a name with --name."
    )


def _is_taken(facts: Gathered, name: str) -> bool:
    """Whether the engine knows this name, from a session of another user or another home directory."""
    return facts.engine.volume_exists(f"{name}-workspace")


def require_free_branch(facts: Gathered, branch: Branch, env: HostEnvironment) -> BranchState:
    """What stands at the branch now. Raises BranchError when no session could ever write it."""
    state = branch_state(facts.repo, branch, base=facts.repo.head, env=env.for_git())
    if state.collides_with:
        raise BranchError(
            f"{branch.short} cannot exist beside the branch {state.collides_with}",
            hint="Choose another name with -b.",
        )
    return state


def require_archivable(
    request: LaunchRequest, naming: Naming, branch: BranchState, narrator: Narrator
) -> None:
    """Ask before an existing branch with work of its own is renamed. Raises BranchError on no."""
    if not branch.unmerged or request.options.force:
        return
    state = f"{naming.branch.short} has {branch.unmerged} commit(s) that are not in the base"
    if not narrator.confirm(f"{state}. Rename it and start a new one?"):
        raise BranchError(f"the branch {state}", hint="Choose another -b, or let it be renamed with -y.")


def make_room(
    facts: Gathered,
    naming: Naming,
    branch: BranchState,
    env: HostEnvironment,
    narrator: Narrator,
    *,
    now_ms: int,
) -> str:
    """Rename an existing branch with unmerged commits; the tip at which the branch stands now, "" without one."""
    if not branch.unmerged:
        return str(branch.tip or "")
    archived = archive_existing(facts.repo, naming.branch, now_ms=now_ms, env=env.for_git())
    narrator.say(f"renamed the existing branch {naming.branch.short} to {archived}")
    return ""
