"""What the refs of a relay named that a push rewrote: it goes to the archive.

What a push may rewrite is kept before git sees the push, by a ref below ARCHIVING that says whose it was. Afterwards
each is looked at by itself: what its ref still contains is let go, all else goes to the archive. So neither a crash in
between, which the next push makes up for, nor an object that git cannot compare costs an old tip.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from coding_agents.errors import GitError
from coding_agents.gitsync.packs import Store
from coding_agents.gitsync.relay_repo import ARCHIVE, ARCHIVING
from coding_agents.model.refs import Oid, RefUpdate
from coding_agents_guest.lfspointer import LFS
from coding_agents_guest.nestedref import LATEST, NESTED, NESTED_MESSAGE, TO_SIGN, is_further

_REFS = "refs/"


def keep_old(store: Store, updates: Iterable[RefUpdate], refs: Mapping[str, Oid]) -> None:
    """Keep what the `refs` of the relay name that `updates` may rewrite. Raises GitError; then nothing may."""
    archive_old(store, refs)  # what a push has left that broke off
    wanted = dict.fromkeys(update.ref for update in updates)
    kept = {ref: old for ref in wanted if (old := _old(store, ref, refs)) is not None}
    if kept:
        store.update_refs(
            *(f"create {ARCHIVING}{ref.removeprefix(_REFS)} {old}" for ref, old in kept.items())
        )


def archive_old(store: Store, refs: Mapping[str, Oid]) -> dict[str, str]:
    """Let go of what was kept and the `refs` of the relay contain; returns where the rest is, by the ref rewritten.

    Never raises: what cannot be done stays for the next time.
    """
    numbers = (int(ref.rpartition("/")[2]) for ref in refs if ref.startswith(f"{ARCHIVE}/"))
    number = max(numbers, default=0)
    archived = {}
    for name, old in refs.items():
        if not name.startswith(ARCHIVING):
            continue
        ref = _REFS + name.removeprefix(ARCHIVING)
        commands = [f"delete {name} {old}"]
        if not _contains(store, refs.get(ref), old):
            number += 1
            archived[ref] = f"{ARCHIVE}/{number}"
            commands.append(f"create {archived[ref]} {old}")
        with suppress(GitError):
            store.update_refs(*commands)
    return archived


def take_back(
    store: Store, moved: Iterable[str], before: Mapping[str, Oid], after: dict[str, Oid]
) -> set[str]:
    """Of the refs `moved` by a push put those back that name no commit, where a commit is what they are for.

    Returns them; `after` then says what they name again.
    """
    new = {ref: after[ref] for ref in moved if ref in after and not ref.startswith(LFS)}
    odd = {ref for ref, oid in new.items() if store.resolve(f"{oid}^{{commit}}") is None}
    for ref in odd:
        old = before.get(ref)
        with suppress(GitError):
            store.update_refs(f"update {ref} {old} {new[ref]}" if old else f"delete {ref} {new[ref]}")
            del after[ref]
            after.update({ref: old} if old else {})
    return odd


def _old(store: Store, ref: str, refs: Mapping[str, Oid]) -> Oid | None:
    """What to keep of `ref`. Automatic saves stand beside each other: they have refs of their own, and of a repository
    inside the commits below them count. Commits of the agent's, and what a repository has beside its HEAD, are kept as
    they were, with all that they name."""
    old = refs.get(ref)
    if old is None or ref in (LATEST, TO_SIGN) or ref.startswith(LFS):
        return None
    if not ref.startswith(NESTED) or is_further(ref.removeprefix(NESTED)):
        return old
    return store.resolve(f"{old}^") if _is_save(store, old) else old


def _is_save(store: Store, commit: Oid) -> bool:
    with suppress(GitError):  # it cannot be read: then all of it is kept
        return store.message(commit) == NESTED_MESSAGE
    return False


def _contains(store: Store, tip: Oid | None, old: Oid) -> bool:
    """Whether `tip` does; what git cannot tell is none."""
    try:
        return tip is not None and (tip == old or store.is_ancestor(old, tip))
    except GitError:
        return False
