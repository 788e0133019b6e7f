"""Bring a session's work into the user's repository: objects and one ref, and nothing is executed.

The work first gets a ref of its own, refs/coding-agents/incoming/<session>. Then one transaction moves it
to its branch, provided that the branch still is where we last saw it and nobody has it checked out. What
cannot go there stays under incoming, and the result says why; work is never thrown away for a conflict. When a
person asks again, it is looked at anew where the branch stands (`seen_again`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import count

import msgspec

from coding_agents.errors import GitError
from coding_agents.gitsync.branches import checked_out, collision
from coding_agents.gitsync.packs import Store, bring, user_store
from coding_agents.gitsync.relay_repo import Relay
from coding_agents.model.refs import Branch, Oid
from coding_agents.model.repo import RepoFacts

INCOMING = "refs/coding-agents/incoming"


class Landing(Enum):
    """Where the work is now."""

    BRANCH = "branch"
    INCOMING = "incoming"
    NOTHING = "none"


class Integrated(msgspec.Struct, frozen=True):
    """`ref` names `tip` in the user's repository (both empty when there is no work); `reason` says why
    it is not on its branch."""

    where: Landing
    ref: str = ""
    tip: Oid | None = None
    reason: str = ""


def integrate(
    repo: RepoFacts,
    relay: Relay,
    *,
    session: str,
    expected_old: Oid | None,
    env: Mapping[str, str],
    tip: Oid | None = None,
) -> Integrated:
    """Bring `tip` (a commit of the relay; default: its session branch) into `repo`.

    `expected_old` is where the branch was when we last looked or moved it, None if it did not exist.
    Raises GitError when objects cannot be moved; a ref that cannot be moved is a result, not an error.
    """
    tip = tip or relay.store.resolve(relay.branch.ref)
    if tip is None or (tip == relay.base and expected_old is None):
        return Integrated(Landing.NOTHING)
    user = user_store(repo, env)
    incoming = f"{INCOMING}/{session}"
    known = [oid for oid in (relay.base, expected_old) if oid is not None]
    bring(relay.store, user, tips=[tip], known=known, apart=[relay.branch.ref])
    user.update_refs(f"update {incoming} {tip}")
    reason = _move(user, relay.branch, incoming, tip, expected_old)
    if reason:
        return Integrated(Landing.INCOMING, incoming, tip, reason)
    return Integrated(Landing.BRANCH, relay.branch.ref, tip)


def seen_again(
    repo: RepoFacts, relay: Relay, *, expected_old: Oid | None, env: Mapping[str, str]
) -> Oid | None:
    """From where a person who asks for it lets the branch be moved: from where it stands now, if that loses nothing.

    It is gone (None), or the relay's branch contains all its commits. Otherwise from `expected_old`, as before: the
    commits that somebody put there may be nowhere else. Raises GitError.
    """
    current = user_store(repo, env).refs("refs/heads/").get(relay.branch.ref)
    tip = relay.store.resolve(relay.branch.ref)
    if current is None:
        return None
    contained = tip is not None and relay.store.present([current]) and relay.store.is_ancestor(current, tip)
    return current if contained else expected_old


def keep_incoming(repo: RepoFacts, relay: Relay, *, name: str, tip: Oid, env: Mapping[str, str]) -> str:
    """Bring the relay's commit `tip` under INCOMING/`name`, or `name`-2 and so on; returns the ref.

    For work that belongs to no branch of ours. What an earlier call kept there is never lost, nor in the way: `a` and
    `a/b` cannot both exist. Raises GitError.
    """
    user = user_store(repo, env)
    bring(relay.store, user, tips=[tip], known=[relay.base] if relay.base is not None else [])
    taken = user.refs(INCOMING)
    ref = next(ref for ref in _names(f"{INCOMING}/{name}") if _is_free(ref, tip, taken))
    user.update_refs(f"update {ref} {tip} {taken.get(ref, '0' * len(tip))}")
    return ref


def _names(ref: str) -> Iterator[str]:
    """`ref`, then with numbers at its end and at its first part below INCOMING, without end."""
    yield ref
    first, slash, rest = ref.removeprefix(f"{INCOMING}/").partition("/")
    for number in count(2):
        yield f"{ref}-{number}"
        yield f"{INCOMING}/{first}-{number}{slash}{rest}"  # what is in the way may be a directory of `ref`


def _is_free(ref: str, tip: Oid, taken: Mapping[str, Oid]) -> bool:
    """Whether `ref` can be made, or names `tip` already. Case counts nowhere: on some disks it does not."""
    if ref in taken:
        return taken[ref] == tip
    mine = ref.lower()
    names = [other.lower() for other in taken]
    return not any(mine == one or mine.startswith(f"{one}/") or one.startswith(f"{mine}/") for one in names)


def _move(user: Store, branch: Branch, incoming: str, tip: Oid, expected_old: Oid | None) -> str:
    """Move `incoming` to `branch` in one transaction; why that is not possible, or an empty string."""
    refs = user.refs("refs/heads/")
    current = refs.get(branch.ref)
    if current == tip:
        user.update_refs(f"delete {incoming} {tip}")
        return ""
    if (work_tree := checked_out(user, branch)) is not None:
        return f"{branch.short} is checked out in {work_tree}"
    if current != expected_old:
        did = "deleted" if current is None else "changed"
        return f"{branch.short} was {did} by someone else meanwhile"
    if other := collision(user, branch, refs):
        return f"{branch.short} cannot exist beside the branch {other}"
    zero = "0" * len(tip)
    try:
        user.update_refs(f"update {branch.ref} {tip} {current or zero}", f"delete {incoming} {tip}")
    except GitError as error:
        return f"{branch.short} cannot be written: {error.message}"
    return ""
