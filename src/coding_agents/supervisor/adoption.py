"""What the relay has beside the session's branch when a session has ended, and whether the branch goes on with it.

The branch moves forward to what continues it. What does not is named to the caller, who brings it home beside the
branch: nothing but a commit that we made ourselves of files that the branch has anyway may be passed over.
"""

from __future__ import annotations

from coding_agents.errors import GitError
from coding_agents.gitsync.packs import Store
from coding_agents.gitsync.relay_repo import ARCHIVE, SALVAGE
from coding_agents.model.refs import Oid
from coding_agents.supervisor.context import SessionContext
from coding_agents_guest import events
from coding_agents_guest.nestedref import AUTOSAVE_MESSAGE, LATEST

HEAD = f"{SALVAGE}/head"
WORKTREE = f"{SALVAGE}/worktree"


def set_aside_earlier(session: SessionContext) -> None:
    """Move the refs of an earlier salvage to the archive, so that the next one's are its own.

    What the archive or the session's branch has already is not put there again: a session may be recovered
    any number of times.
    """
    store, branch = session.relay.store, session.relay.branch.ref
    archived, tip = store.refs(ARCHIVE), store.resolve(branch)
    number = max((int(ref.rpartition("/")[2]) for ref in archived), default=0)
    kept = set(archived.values())
    for ref, oid in store.refs(SALVAGE).items():
        if oid not in kept and not (tip is not None and store.is_ancestor(oid, tip)):
            number += 1
            store.update_refs(f"create {ARCHIVE}/{number} {oid}")
            kept.add(oid)
        store.update_refs(f"delete {ref} {oid}")


def adopted_tip(session: SessionContext, found: events.Salvaged) -> Oid | None:
    """Move the relay's session branch forward to what this salvage found, when that continues it.

    Returns the found commit that could not be adopted because history was rewritten (None: nothing is left
    over). Raises GitError when the relay does not have what the salvage says it pushed.
    """
    store = session.relay.store
    claimed = found.worktree or found.head
    if not claimed or claimed == store.resolve(session.relay.branch.ref):
        return None
    oid = Oid.parse(claimed)
    if oid not in (store.resolve(WORKTREE if found.worktree else HEAD), session.relay.base):
        raise GitError(f"the salvaged commit {oid} did not arrive in the relay")
    return None if _adopt(session, oid, ours=bool(found.worktree)) else oid


def adopt_saves(session: SessionContext) -> dict[str, Oid]:
    """Move the relay's session branch forward to the last state that the relay has, now that the volume is gone.

    Returns what does not continue the branch, by where it comes from: "salvage" is what a salvage pushed that did
    not come to its end, "autosave" the last automatic save. Raises GitError.
    """
    store = session.relay.store
    left = {}
    worktree, latest = store.resolve(WORKTREE), store.resolve(LATEST)
    found = worktree or store.resolve(HEAD)
    if found is not None and not _adopt(session, found, ours=worktree is not None):
        left["salvage"] = found
    if latest is not None and not _adopt(session, latest, ours=_is_automatic(store, latest)):
        left["autosave"] = latest
    return left


def _adopt(session: SessionContext, oid: Oid, *, ours: bool) -> bool:
    """Move the relay's session branch forward to `oid`; False when that would leave commits of the branch behind.

    `ours` says that `oid` is no commit of the agent's, but one that we made of the work tree.
    """
    store, branch = session.relay.store, session.relay.branch.ref
    tip = store.resolve(branch)
    if tip is None or store.is_ancestor(tip, oid):
        store.update_refs(f"update {branch} {oid} {tip or '0' * len(oid)}")
        return True
    return store.is_ancestor(oid, tip) or (ours and _is_the_same_work(store, oid, tip))


def _is_the_same_work(store: Store, ours: Oid, tip: Oid) -> bool:
    """Whether `tip` has what was committed as `ours`, by us: each salvage commits an unchanged work tree anew.

    Of a commit of the agent's the same files are not the same work: a merge that takes none of the other side's
    holds its history, an empty or amended one a message.
    """
    files = {store.git("rev-parse", "--verify", f"{oid}^{{tree}}").text().strip() for oid in (ours, tip)}
    parents = store.git("rev-parse", f"{ours}^@").text().split()
    return len(files) == len(parents) == 1 and store.is_ancestor(Oid.parse(parents[0]), tip)


def _is_automatic(store: Store, save: Oid) -> bool:
    """Whether `save` is a commit of an automatic save, and not the agent's own: of a clean work tree HEAD is pushed."""
    return store.git("cat-file", "commit", save).text().partition("\n\n")[2].strip() == AUTOSAVE_MESSAGE
