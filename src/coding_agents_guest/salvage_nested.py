"""Salvage of the repositories inside the work tree of a volume, each to refs of its own (nestedref).

None of them may cost us what is outside: one that cannot be read is named, and the rest goes on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from coding_agents_guest import volume_history as history
from coding_agents_guest.further import find_further
from coding_agents_guest.gitwork import GitFailedError
from coding_agents_guest.nested import (
    MAX_NESTED,
    MAX_NESTED_DEPTH,
    Start,
    emptied,
    read_given,
    start_of,
)
from coding_agents_guest.nestedref import NESTED_MESSAGE, further_ref, nested_ref
from coding_agents_guest.records import replace
from coding_agents_guest.salvage_repo import BrokenHistoryError, Found, RefusedError, Repository, fresh_git
from coding_agents_guest.snapshot import Snapshot
from coding_agents_guest.volume import Volume, read_git_dir, read_volume
from coding_agents_guest.volume_refs import Refs

MAX_FURTHER = 100  # repositories inside of which other branches are kept
_MAX_SEEN = 1000  # repositories inside, of which most are submodules as they went in


def push_inside(repo: Repository, nested: Sequence[str]) -> list[str]:
    """Push the repositories `nested` in the work tree of `repo`, and all else that git keeps. Returns what they lack.

    A work tree that git ignores is one all the same when the repository says so, and the git directory of a submodule
    outlives the submodule.
    """
    lacking = push_nested(repo, nested)
    for where in repo.found.linked:  # grows meanwhile
        if where not in repo.found.seen:
            around = next((seen for seen in repo.found.seen if where.startswith(f"{seen}/")), "")
            outer = (around,) if around else ()
            lacking += push_nested(repo, [os.path.relpath(where, around or ".")], outer)
    for places, git_dir in repo.found.modules:  # grows, too
        if git_dir not in repo.found.git_dirs:
            lacking += _push_module(repo, places, git_dir)
    return lacking


def push_nested(repo: Repository, nested: Sequence[str], outer: tuple[str, ...] = ()) -> list[str]:
    """Push the repositories `nested` in that at `outer`, and those in them. Returns what they lack."""
    found, lacking = repo.found, []
    for path in nested:
        places = (*outer, path)
        where = "/".join(places)
        if _is_empty(found.top / where):
            continue  # a submodule that was never filled
        full = len(found.inside) >= MAX_NESTED or len(found.seen) >= _MAX_SEEN
        if full or len(places) > MAX_NESTED_DEPTH:
            found.notes.append(f"too many repositories are inside: {where} was not read")
            lacking.append(f"{where}/")
            continue
        found.seen.append(where)
        try:
            inner, snapshot, others = _salvage_nested(repo, places)
        except Exception as error:  # noqa: BLE001 - an odd one must cost no other
            _tell(found, where, error)
            lacking.append(f"{where}/")
            continue
        lacking += [f"{where}/{lost}" for lost in snapshot.left_out] + others
        lacking += push_nested(inner, snapshot.nested, places)
    return lacking


def _tell(found: Found, where: str, error: Exception) -> None:
    """What cannot be read is lost; what the relay does not take is in the volume, and that is kept for it."""
    found.notes.append(f"the repository {where} cannot be read: {error}")
    if isinstance(error, RefusedError):
        found.kept.append(f"the repository {where} ({error})")


def _salvage_nested(repo: Repository, places: tuple[str, ...]) -> tuple[Repository, Snapshot, list[str]]:
    """Push the one at `places`, its commits or without them its files. Returns what its other refs lack, too."""
    found, where = repo.found, "/".join(places)
    start = _start_of(repo, places)
    inner = _inside(repo, start, f"nested-{len(found.seen)}", found.top / where)
    volume = read_volume(found.top, inside=where)
    found.read(volume, places)
    inner.prepare(volume)
    head = _read_head(inner, volume, where)
    commit, snapshot = inner.commit_worktree(volume if head else Volume(None), head)
    tip = commit or head
    if not (tip or volume.head or volume.refs.branches or volume.refs.tags or volume.in_tables):
        tip = emptied(inner.to_relay(), snapshot, nested_ref(places), inner.place.relay)
    if tip and tip != start.commit:
        found.inside.append(where)
        if commit:
            inner.push_files(commit, head, nested_ref(places))
        else:
            inner.push(tip, nested_ref(places))
    others = []
    if volume.common is not None and volume.common not in found.commons:
        found.commons.add(volume.common)
        known = [oid for oid in (head, start.commit) if oid]
        others = _push_further(inner, volume.refs, known, where=where, ref=further_ref(places))
    if inner.pushed:
        found.sending.append((inner, volume))
    return inner, snapshot, others


def _push_module(repo: Repository, places: tuple[str, ...], git_dir: Path) -> list[str]:
    """Push what the git directory of a submodule holds that is checked out nowhere. Returns what it lacks."""
    found = repo.found
    where = str(git_dir.relative_to(os.path.realpath(found.top)))
    if len(found.seen) >= _MAX_SEEN:
        found.notes.append(f"too many repositories are inside: {where} was not read")
        return [f"{where}/"]
    found.seen.append(where)
    try:
        start = _start_of(repo, places)
        inner = _inside(repo, start, f"nested-{len(found.seen)}", found.top)
        volume = read_git_dir(found.top, git_dir)
        found.read(volume, places)
        inner.prepare(volume)
        branches = {**volume.refs.branches, "HEAD": volume.head} if volume.head else volume.refs.branches
        known = [start.commit] if start.commit else []
        first, _, rest = where.partition("/")
        ref = nested_ref((first, rest))
        lacking = _push_further(inner, replace(volume.refs, branches=branches), known, where=where, ref=ref)
    except Exception as error:  # noqa: BLE001 - as above
        _tell(found, where, error)
        return [f"{where}/"]
    if inner.pushed:
        found.sending.append((inner, volume))
    return lacking


def _push_further(repo: Repository, refs: Refs, known: Sequence[str], *, where: str, ref: str) -> list[str]:
    """Push what `refs` name beyond `known` to `ref`, as the parents of one commit. Returns what it lacks."""
    found = repo.found
    git_dir = where if ".git" in where.split("/") else f"{where}/.git"
    try:
        further = find_further(repo.git, refs, known)
        if further.unread:
            names = ", ".join(sorted(further.unread)[:10])
            found.notes.append(f"{len(further.unread)} branches of {where} cannot be read: {names}")
        if further.tips and len(found.further) >= MAX_FURTHER:
            found.notes.append(f"too many repositories are inside: other branches of {where} were not read")
            return [git_dir]
        if further.tips:
            repo.push(history.bundled(repo.git, further.tips), ref)
            found.further.append(where)
            found.notes.append(f"{len(further.tips)} other branches of {where} are the parents of {ref}")
    except (GitFailedError, BrokenHistoryError) as error:
        _tell(found, f"{where}, its other branches", error)
        return [git_dir]
    return [git_dir] if further.unread else []


def _inside(repo: Repository, start: Start, scratch: str, workspace: Path) -> Repository:
    """The salvage of another repository in the volume of `repo`, which began as `start`."""
    config = replace(repo.config, base=start.commit, launch_tree=start.tree, message=NESTED_MESSAGE)
    place = replace(repo.place, workspace=workspace)
    git = fresh_git(repo.config, place, repo.git.directory / scratch, repo.git.deadline)
    return Repository(config, place, git, repo.found)


def _start_of(repo: Repository, places: tuple[str, ...]) -> Start:
    found = repo.found
    if found.given is None:
        found.given = {}
        with suppress(GitFailedError):  # without the answer all of them are pushed, and lost is nothing
            found.given = read_given(repo.to_relay(), repo.place.relay)
    return start_of(repo.git, places, found.given, repo.config.base)


def _read_head(repo: Repository, volume: Volume, where: str) -> str:
    """The commit of its HEAD with the whole history at hand, "" when it is unborn or broken."""
    head = volume.head if volume.head and history.commits(repo.git, [volume.head]) else ""
    whole = head and history.is_whole(repo.git, [head], ())
    if head and not whole and volume.shallow:  # only now: a planted one would cut off history that is there
        Path(repo.git.environment["GIT_DIR"], "shallow").write_bytes(volume.shallow)
        whole = history.is_whole(repo.git, [head], ())
    if volume.head and not whole:
        repo.found.notes.append(f"the history of the repository {where} cannot be read")
    return head if whole else ""


def _is_empty(place: Path) -> bool:
    """Whether `place` is a directory without an entry, or nothing."""
    try:
        with os.scandir(place) as entries:
            return not any(entries)
    except FileNotFoundError:
        return True
    except OSError:
        return False
