"""Commits that a repository has beside its HEAD: what of them is to be brought, and what cannot be."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from coding_agents_guest import volume_history as history
from coding_agents_guest.gitwork import Git
from coding_agents_guest.records import dataclass
from coding_agents_guest.volume_refs import Refs


@dataclass(frozen=True)
class Further:
    """`tips` are commits by the names of `Refs`; `unread` are names of what cannot be read, or is no commit."""

    tips: Mapping[str, str] = {}
    unread: tuple[str, ...] = ()


def find_further(git: Git, refs: Refs, known: Collection[str]) -> Further:
    """What `refs` name that the commits `known` do not contain. `git` sees the objects. Raises GitFailedError.

    Of tags, what the repository fetched from others is left as well: a clone has all the tags of its origin.
    """
    found = history.peeled(
        git, {*refs.branches.values(), *refs.tags.values(), *refs.fetched, *filter(None, known)}
    )
    known = [oid for oid in known if oid in found]
    fetched = {found[oid] for oid in refs.fetched if oid in found}
    own = {found[oid] for oid in refs.branches.values() if oid in found}
    tagged = {found[oid] for oid in refs.tags.values() if oid in found}
    new = history.beyond(git, own, known) | history.beyond(git, tagged, [*known, *fetched])
    whole = set(history.whole(git, sorted(new), known))
    named = {**refs.branches, **refs.tags}
    return Further(
        {name: found[oid] for name, oid in named.items() if found.get(oid) in whole},
        tuple(name for name, oid in named.items() if oid not in found or found[oid] in new - whole),
    )
