"""What the relay has beside the session's branch when a session has ended, and whether the branch goes on with it.

The branch moves forward to what continues it. What does not is named to the caller, who brings it home beside the
branch: nothing but a commit that we made ourselves of files that the branch has anyway may be passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from coding_agents.errors import GitError
from coding_agents.gitsync.packs import Store
from coding_agents.gitsync.relay_repo import ARCHIVE, SALVAGE
from coding_agents.model.refs import Oid
from coding_agents.supervisor.context import SessionContext
from coding_agents_guest import events
from coding_agents_guest.nestedref import AUTOSAVE_MESSAGE, LATEST

HEAD = f"{SALVAGE}/head"
WORKTREE = f"{SALVAGE}/worktree"
EARLIER = f"{SALVAGE}/earlier/"

_STATE = re.compile(f"{EARLIER}[0-9a-f]+/(head|worktree)")
_BRANCH = re.compile(f"{SALVAGE}/(?:earlier/[0-9a-f]+/)?heads/(.+)", re.DOTALL)


class State(msgspec.Struct, frozen=True):
    """A commit that the relay has beside the branch: a volume's HEAD or work tree, or an automatic save.

    `origin` is "salvage" or "autosave"; `ours` says that it is no commit of the agent's, but one that we made of files;
    `earlier` that a salvage found it which did not come home, and that the session may have gone on since.
    """

    origin: str
    oid: Oid
    ours: bool
    earlier: bool = False


def make_room(session: SessionContext) -> None:
    """Take what earlier salvages brought out of the way of the next one, which may find other branches.

    It is not home yet, or else `set_aside` would have moved it: an earlier salvage was cut short, or the repository was
    not there. Raises GitError.
    """
    store = session.relay.store
    tip, refs = store.resolve(session.relay.branch.ref), store.refs(f"{SALVAGE}/")
    kept = {oid for ref, oid in refs.items() if ref.startswith(EARLIER)}
    commands = []
    for ref, oid in refs.items():
        if ref.startswith(EARLIER):
            continue
        if oid not in kept and not _has(store, tip, oid):
            commands.append(f"create {EARLIER}{oid}/{ref.removeprefix(f'{SALVAGE}/')} {oid}")
            kept.add(oid)
        commands.append(f"delete {ref} {oid}")
    if commands:
        store.update_refs(*commands)


def set_aside(session: SessionContext) -> None:
    """Move all that salvages brought to the archive, now that it is home. Raises GitError.

    What the archive or the session's branch has already is not put there again: a session may be recovered any number
    of times.
    """
    store = session.relay.store
    archived, tip = store.refs(f"{ARCHIVE}/"), store.resolve(session.relay.branch.ref)
    number = max((int(ref.rpartition("/")[2]) for ref in archived), default=0)
    kept = set(archived.values())
    for ref, oid in store.refs(f"{SALVAGE}/").items():
        commands = [f"delete {ref} {oid}"]
        if oid not in kept and not _has(store, tip, oid):
            number += 1
            commands.append(f"create {ARCHIVE}/{number} {oid}")
            kept.add(oid)
        store.update_refs(*commands)


def adopt_found(session: SessionContext, found: events.Salvaged) -> tuple[State, ...]:
    """Move the relay's session branch forward to what this salvage found, when that continues it.

    Returns what the branch does not contain, as history was rewritten: of this salvage, and of earlier ones that did
    not come home. Raises GitError when the relay does not have what the salvage says it pushed.
    """
    store, claimed = session.relay.store, found.worktree or found.head
    states: tuple[State, ...] = ()
    if claimed and claimed != store.resolve(session.relay.branch.ref):
        oid = Oid.parse(claimed)
        if oid not in (store.resolve(WORKTREE if found.worktree else HEAD), session.relay.base):
            raise GitError(f"the salvaged commit {oid} did not arrive in the relay")
        states = (State("salvage", oid, ours=bool(found.worktree)),)
    return _adopt_all(session, states)


def adopt_saves(session: SessionContext) -> tuple[State, ...]:
    """Move the relay's session branch forward to the last state that the relay has, now that the volume is gone.

    Returns what does not continue the branch, of salvages that did not come to their end or home, and of the last
    automatic save. Raises GitError.
    """
    store = session.relay.store
    states = [
        State("salvage", oid, ours=ref == WORKTREE)
        for ref in (WORKTREE, HEAD)
        if (oid := store.resolve(ref)) is not None
    ]
    if (latest := store.resolve(LATEST)) is not None:
        states.append(State("autosave", latest, ours=_is_automatic(store, latest)))
    return _adopt_all(session, states)


def other_branches(session: SessionContext) -> tuple[tuple[str, Oid], ...]:
    """The branches that salvages found beside HEAD and that are not home yet, the last salvage's first.

    One name may come several times; what the session's branch contains does not come. Raises GitError.
    """
    store = session.relay.store
    tip = store.resolve(session.relay.branch.ref)
    refs = sorted(store.refs(f"{SALVAGE}/").items(), key=lambda item: item[0].startswith(EARLIER))
    found = ((_BRANCH.fullmatch(ref), oid) for ref, oid in refs)
    return tuple((match[1], oid) for match, oid in found if match and not _has(store, tip, oid))


def _adopt_all(session: SessionContext, states: Iterable[State]) -> tuple[State, ...]:
    """Adopt what can be of `states`, in order; returns what else there is, without what another of it contains."""
    store = session.relay.store
    left = [state for state in states if not _adopt(session, state)]
    tip = store.resolve(session.relay.branch.ref)
    earlier = ((_STATE.fullmatch(ref), oid) for ref, oid in store.refs(EARLIER).items())
    left += [
        State("salvage", oid, ours=match[1] == "worktree", earlier=True) for match, oid in earlier if match
    ]
    rest = {state.oid: state for state in reversed(left) if tip is None or not _is_in(store, state, tip)}
    return tuple(
        state
        for oid, state in reversed(rest.items())
        if not any(other != oid and store.is_ancestor(oid, other) for other in rest)
    )


def _adopt(session: SessionContext, state: State) -> bool:
    """Move the relay's session branch forward to `state`; False when that would leave commits of the branch behind."""
    store, branch = session.relay.store, session.relay.branch.ref
    tip = store.resolve(branch)
    if tip is None or store.is_ancestor(tip, state.oid):
        store.update_refs(f"update {branch} {state.oid} {tip or '0' * len(state.oid)}")
        return True
    return _is_in(store, state, tip)


def _is_in(store: Store, state: State, tip: Oid) -> bool:
    return store.is_ancestor(state.oid, tip) or (state.ours and _is_the_same_work(store, state.oid, tip))


def _has(store: Store, tip: Oid | None, oid: Oid) -> bool:
    return tip is not None and store.is_ancestor(oid, tip)


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
    return store.message(save) == AUTOSAVE_MESSAGE
