"""Commits that a repository has beside its HEAD: what of them is to be brought, and what cannot be.

Salvage brings them. The save of a session that ended by itself only looks whether there are any, and leaves them to it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from coding_agents_guest import volume_history as history
from coding_agents_guest.gitwork import Git, GitFailedError
from coding_agents_guest.records import dataclass, replace
from coding_agents_guest.volume import Volume, read_volume
from coding_agents_guest.volume_refs import Refs, UnreadableVolumeError


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


def left_to_salvage(git: Git, known: Mapping[str, Collection[str]]) -> list[str]:
    """Which repositories hold more than commits that the relay has.

    They are given by their places in the work tree of `git` ("" for its own), each with such commits; what cannot be
    told is more. Never raises.
    """
    volumes: dict[str, Volume] = {}
    commons: dict[Path, list[str]] = {}
    for where in known:
        with suppress(UnreadableVolumeError, OSError):
            volumes[where] = volume = read_volume(git.directory, inside=where)
            commons.setdefault(volume.common or git.directory, []).append(where)
    left = [where for where in known if where not in volumes]
    git_dirs = {volume.git_dir for volume in volumes.values()}
    for places in commons.values():
        volume, here = volumes[places[0]], git.directory / places[0]
        inner = replace(git, directory=here).within(
            GIT_CEILING_DIRECTORIES=str(here.parent), GIT_NO_REPLACE_OBJECTS="1"
        )
        apart = {*volume.linked} - {*known} or {git_dir for _, git_dir in volume.modules} - git_dirs
        if apart or _has_more(inner, volume, {oid for where in places for oid in known[where]}):
            left.append(places[0])
    return left


def _has_more(git: Git, volume: Volume, known: Collection[str]) -> bool:
    if volume.git_dir is None or volume.in_tables:
        return True
    try:
        further = find_further(git, volume.refs, known)
    except GitFailedError:
        return True
    return bool(further.tips or further.unread)
