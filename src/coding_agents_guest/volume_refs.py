"""What the refs of a volume's git directory name beside HEAD, read as bytes like all the rest of it (`volume`).

Branches, stashes, tags, what linked work trees stand on, and refs of the agent's own making: each may be the only one
that holds a commit. What a repository fetched from others (refs/remotes) is no work of its agent's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.records import dataclass
from coding_agents_guest.regular import read_small

OID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MAX_STASHES = 100
_MAX_STASH_LOG = 1 << 20
_MAX_PACKED_REFS = 512 << 20
_MAX_REFS = 1_000_000
_MAX_DEPTH = 40
_HEADS = "refs/heads/"
_TAGS = "refs/tags/"
_STASH = "refs/stash"
# git-maintenance(1): `prefetch` are remote branches, too.
_FETCHED = ("refs/remotes/", "refs/prefetch/")
# What `git rebase --autostash` and `git merge --autostash` have put away meanwhile.
_AUTOSTASHES = ("rebase-merge/autostash", "rebase-apply/autostash", "MERGE_AUTOSTASH")


class UnreadableVolumeError(Exception):
    """The volume holds more, or stranger things, than can be read."""


@dataclass(frozen=True)
class Refs:
    """Object ids by names that tell what they were: claims, not yet looked up.

    Of `branches` the short names. Among them are stashes as `stash-1` (the latest) and so on, what was put away for a
    rebase or merge as `autostash`, the detached HEAD of a linked work tree as `worktrees/NAME`, and other refs by their
    full names. `tags` are `tags/NAME`. `fetched` is what the repository has of others.
    """

    branches: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    fetched: tuple[str, ...] = ()


def read_all_refs(common: Path) -> dict[str, str]:
    """Every ref of the git directory `common` with what it names, loose ones over packed ones.

    Raises UnreadableVolumeError for more refs than a repository has.
    """
    found: dict[str, str] = {}
    for line in read_small(common / "packed-refs", _MAX_PACKED_REFS).split(b"\n"):
        oid, _, name = line.partition(b" ")
        if OID.fullmatch(oid) and name.startswith(b"refs/"):
            found[os.fsdecode(name)] = oid.decode()
            _check_number(found)
    _read_loose(common, found)
    return found


def name_refs(git_dir: Path, common: Path, refs: Mapping[str, str]) -> Refs:
    """`refs` of `common`, and what else in there and in `git_dir` names commits, by names that no two share."""
    branches = {name[len(_HEADS) :]: refs[name] for name in sorted(refs) if name.startswith(_HEADS)}
    tags: dict[str, str] = {}
    for name, oid in _stashes(common, refs):
        branches[_free(name, branches)] = oid
    of_main = _own_tips(common, "main-worktree") if git_dir != common else ()
    for name, oid in (*_autostashes(git_dir), *of_main, *_of_worktrees(common)):
        branches[_free(name, branches)] = oid
        _check_number(branches)
    for name in sorted(refs):
        if name.startswith(_TAGS):
            tags[_free(name[len("refs/") :], branches)] = refs[name]
        elif name != _STASH and not name.startswith((_HEADS, *_FETCHED)):
            branches[_free(name, branches)] = refs[name]
    fetched = {refs[name] for name in refs if name.startswith(_FETCHED)}
    return Refs(branches, tags, tuple(sorted(fetched)))


def directories(parent: Path) -> list[Path]:
    """The directories in `parent`, links not followed."""
    with suppress(OSError), os.scandir(parent) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    return []


def _read_loose(git_dir: Path, found: dict[str, str]) -> None:
    for path in _files(git_dir / "refs", _MAX_DEPTH):
        oid = read_small(path).strip()
        if OID.fullmatch(oid):
            found[str(path.relative_to(git_dir))] = oid.decode()
            _check_number(found)


def _stashes(common: Path, refs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The stashes, latest first. All but the latest are in the log of its ref alone."""
    lines = read_small(common / "logs/refs/stash", _MAX_STASH_LOG).split(b"\n")
    logged = [parts[1] for line in reversed(lines) if len(parts := line.split(b" ", 2)) == 3]
    oids = [oid.decode() for oid in (refs.get(_STASH, "").encode(), *logged) if OID.fullmatch(oid)]
    for number, oid in enumerate(list(dict.fromkeys(oids))[:_MAX_STASHES], start=1):
        yield f"stash-{number}", oid


def _autostashes(git_dir: Path) -> Iterator[tuple[str, str]]:
    for name in _AUTOSTASHES:
        oid = read_small(git_dir / name).strip()
        if OID.fullmatch(oid):
            yield "autostash", oid.decode()


def _of_worktrees(common: Path) -> Iterator[tuple[str, str]]:
    """What linked work trees have for themselves (gitrepository-layout(5), `worktrees`)."""
    for git_dir in directories(common / "worktrees"):
        name = f"worktrees/{git_dir.name}"
        yield from _own_tips(git_dir, name)
        own: dict[str, str] = {}
        _read_loose(git_dir, own)
        for ref in sorted(own):
            yield f"{name}-{ref}", own[ref]


def _own_tips(git_dir: Path, name: str) -> Iterator[tuple[str, str]]:
    """The detached HEAD of another work tree, and what was put away in it."""
    head = read_small(git_dir / "HEAD").strip()
    if OID.fullmatch(head):
        yield name, head.decode()
    for _, oid in _autostashes(git_dir):
        yield f"{name}-autostash", oid


def _free(name: str, taken: Mapping[str, str]) -> str:
    while name in taken:
        name += "-"
    return name


def _check_number(refs: Mapping[str, str]) -> None:
    if len(refs) > _MAX_REFS:
        raise UnreadableVolumeError(f"the volume has more than {_MAX_REFS} refs")


def _files(directory: Path, depth: int) -> Iterator[Path]:
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                yield Path(entry.path)
            elif depth and entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path), depth - 1)
