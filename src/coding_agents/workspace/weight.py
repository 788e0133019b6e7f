"""How much of a disk a copy of a repository takes, before it is made: an estimate from above."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from coding_agents.errors import GitError
from coding_agents.model.repo import RepoFacts
from coding_agents.workspace.copyset import CopyPlan
from coding_agents.workspace.source import Source

_BLOCK = 4096
_OWN_FILES = 100  # of a `.git` that we make: its pack, refs, settings


class Weight(msgspec.Struct, frozen=True):
    """Bytes, in whole blocks, and how many files and directories."""

    size_bytes: int = 0
    files: int = 0

    def plus(self, other: Weight) -> Weight:
        return Weight(self.size_bytes + other.size_bytes, self.files + other.files)


def weigh(repo: RepoFacts, plan: CopyPlan, *, room: int, env: Mapping[str, str]) -> Weight:
    """What goes into a session by `plan`.

    The history is counted exactly only where all that the repository's packs hold would be more than `room` bytes: that
    takes git a walk over it. Raises GitError.
    """
    weight = _of_repository(repo, plan, room=room, env=env)
    for one in plan.submodules:
        weight = weight.plus(_of_repository(one.repo, one.plan, room=room, env=env))
    return weight


def _of_repository(repo: RepoFacts, plan: CopyPlan, *, room: int, env: Mapping[str, str]) -> Weight:
    source = Source(repo, env)
    files = (
        _of_commit(source, plan) if plan.clean or repo.work_tree is None else _of_disk(repo.work_tree, plan)
    )
    history = Weight(_history_bytes(source, room - files.size_bytes), _OWN_FILES)
    return files.plus(history)


def _of_disk(work_tree: Path, plan: CopyPlan) -> Weight:
    sizes = 0
    for path in plan.paths:
        with suppress(OSError):  # gone since it was listed
            sizes += _blocks((work_tree / path).lstat().st_size)
    return Weight(sizes, 0).plus(_directories(plan))


def _of_commit(source: Source, plan: CopyPlan) -> Weight:
    """A record is `MODE TYPE OID SIZE<TAB>PATH`, its size padded, `-` for a submodule."""
    sizes = 0
    if source.repo.head is not None:
        for record in source.git(["ls-tree", "-r", "-l", "-z", str(source.repo.head)]).stdout.split(b"\0"):
            size = record.partition(b"\t")[0].split()[3:4]
            sizes += _blocks(int(size[0])) if size and size[0].isdigit() else 0
    return Weight(sizes, 0).plus(_directories(plan))


def _directories(plan: CopyPlan) -> Weight:
    """The files of `plan`, and the directories above them with a block each."""
    directories: set[str] = set()
    for path in plan.paths:
        while (path := posixpath.dirname(path)) and path not in directories:
            directories.add(path)
    return Weight(len(directories) * _BLOCK, len(plan.paths) + len(directories))


def _history_bytes(source: Source, room: int) -> int:
    """Of all objects when they fit into `room`, else of those that go in, where this git can tell (2.31)."""
    lines = source.git(["count-objects", "-v"]).stdout.splitlines()
    counted = {key: value for key, _, value in (line.partition(b": ") for line in lines)}
    whole = sum(int(counted.get(key, b"0")) for key in (b"size", b"size-pack")) * 1024  # in KiB
    if whole < room or source.repo.head is None:
        return whole
    with suppress(GitError, ValueError):
        return int(source.git(["rev-list", "--objects", "--disk-usage", str(source.repo.head)]).stdout)
    return 0


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
