"""Records what the user's work tree and index looked like at launch, as commits in the session's relay.

With them a review can tell the agent's changes from the user's own uncommitted ones. The user's index is
copied first, and new objects go to a scratch directory from where they move as one pack, so nothing is
ever written to the user's repository.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import chain
from pathlib import Path

import msgspec

from coding_agents.model.masked import Masked
from coding_agents.model.refs import Oid
from coding_agents.model.repo import RepoFacts
from coding_agents.proc.git import Profile, git_command, require_ok
from coding_agents.proc.git_objects import as_alternate
from coding_agents.proc.git_refs import sync_objects, update_refs
from coding_agents.proc.runner import streaming
from coding_agents.workspace.copyset import CopyPlan, Submodule, children
from coding_agents.workspace.source import GIT_TIMEOUT_S, SCRATCH_PREFIX, Source, index_env
from coding_agents.workspace.tree import read_whole
from coding_agents_guest.nestedref import GIVEN_HEADS, GIVEN_TREES, NESTED, nested_ref

WORKTREE_REF = "refs/coding-agents/launch"
INDEX_REF = "refs/coding-agents/launch-index"

_GITLINK = b"160000"
_GONE = b"D"
_MODIFIED = b"M"
_UNMERGED = b"U"
_INTENT_TO_ADD = b"A"


class LaunchState(Masked, frozen=True):
    """The state of the user's work tree at launch; all empty when the session starts from a commit.

    `worktree_commit` and `index_commit` are None where they would equal the base (and `index_commit` while
    the index holds conflicts, which no tree can). `index` is the user's index, written anew with valid
    stat information, `index_mtime_s` when; `staged` are the objects that, with all that they contain, it
    needs beside the base. `submodules` are the states of those in the plan, in its order.
    """

    MASKED = frozenset({"index", "staged", "submodules"})

    index_commit: Oid | None = None
    worktree_commit: Oid | None = None
    index: bytes = b""
    index_mtime_s: int = 0
    staged: tuple[Oid, ...] = ()
    submodules: tuple[LaunchState, ...] = ()


def record_launch_state(
    repo: RepoFacts,
    relay_git_dir: Path,
    plan: CopyPlan,
    *,
    env: Mapping[str, str],
    base: Oid | None,
    now_ms: int,
) -> LaunchState:
    """Write the launch state of `repo` to the relay as WORKTREE_REF and INDEX_REF.

    `plan` says which untracked files count. `base` is the commit of HEAD, None while it is unborn; `now_ms`
    dates the commits. Of submodules that go in the relay keeps, below GIVEN_HEADS and GIVEN_TREES, on what they
    stand and the files. Raises GitError, WorkspaceError.
    """
    for leftover in relay_git_dir.glob(f"{SCRATCH_PREFIX}*"):  # of a launch that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    refs: dict[str, Oid | None] = {}
    inside = []
    for one in plan.submodules:
        source = Source(one.repo, env)
        state, tree = _record(
            source, relay_git_dir, one.plan, children(plan, one.places), base=one.repo.head, now_ms=now_ms
        )
        inside.append(state)
        name = nested_ref(one.places).removeprefix(NESTED)
        refs[f"{GIVEN_HEADS}{name}"] = one.repo.head
        refs[f"{GIVEN_TREES}{name}"] = tree
    state, _ = _record(Source(repo, env), relay_git_dir, plan, children(plan), base=base, now_ms=now_ms)
    refs |= {INDEX_REF: state.index_commit, WORKTREE_REF: state.worktree_commit}
    updates = [f"update {ref} {commit}" for ref, commit in refs.items() if commit is not None]
    if updates:
        update_refs(updates, profile=Profile.OWN, env=env, git_dir=relay_git_dir)
    return msgspec.structs.replace(state, submodules=tuple(inside)) if inside else state


def _record(
    source: Source,
    relay_git_dir: Path,
    plan: CopyPlan,
    inner: Sequence[Submodule],
    *,
    base: Oid | None,
    now_ms: int,
) -> tuple[LaunchState, Oid | None]:
    """Bring the state of one repository into the relay; the second value is the tree of its files unless it is
    the base's. `inner` are the submodules in it that go in."""
    if plan.clean:
        return LaunchState(), None
    with source.scratch(relay_git_dir) as scratch:
        quarantine = _Quarantine(source, scratch, base, now_ms)
        quarantine.copy_index()
        changed = quarantine.changed()
        intended = [quarantine.empty_blob()] if _INTENT_TO_ADD in changed.values() else []
        conflicts = _conflicts(quarantine.git("ls-files", "-u", "-z"))
        index, index_mtime_s = read_whole(scratch, "index")
        if conflicts:
            quarantine.remove(conflicts)
        tree = quarantine.tree()
        # git keeps ids of trees in the index, and what it names there must exist.
        trees = [tree] if tree != quarantine.base_tree else []
        staged = (*intended, *chain.from_iterable(conflicts.values()), *trees)
        index_commit = None if conflicts else quarantine.commit(tree, "the index at launch")
        others = [*conflicts, *plan.untracked]
        if changed or others:
            quarantine.add_work_tree(changed, others)
        if inner:
            quarantine.set_gitlinks(inner)
        if changed or others or inner:
            tree = quarantine.tree()
        worktree_commit = quarantine.commit(tree, "the work tree at launch")
        wanted = [*filter(None, (index_commit, worktree_commit)), *staged]
        if wanted:
            _move_objects(quarantine, relay_git_dir, wanted)
    state = LaunchState(index_commit, worktree_commit, index, index_mtime_s, staged)
    return state, tree if worktree_commit is not None else None


class _Quarantine:
    """A scratch index and object directory on top of the user's objects."""

    def __init__(self, source: Source, scratch: Path, base: Oid | None, now_ms: int) -> None:
        self.source = source
        self.base = base
        self._index = scratch / "index"
        person = {
            "NAME": "coding-agents",
            "EMAIL": "coding-agents@localhost",
            "DATE": f"@{now_ms // 1000} +0000",
        }
        self.env = {
            # Filters of the user's run to hash changed files; git-lfs keeps what it has hashed.
            **index_env(self._index, {"lfs.storage": str(scratch / "lfs")}),
            "GIT_OBJECT_DIRECTORY": str(scratch),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": as_alternate(source.repo.common_dir / "objects"),
            **{f"GIT_AUTHOR_{what}": value for what, value in person.items()},
            **{f"GIT_COMMITTER_{what}": value for what, value in person.items()},
        }

    def git(self, *args: str, stdin: bytes | None = None) -> bytes:
        """Standard output of git with the scratch index and objects."""
        return self.source.git(args, stdin=stdin, env_extra=self.env).stdout

    def copy_index(self) -> None:
        """Copy the user's index and bring its stat information up to date."""
        original = self.source.repo.git_dir / "index"
        if original.is_file():
            # With its time: git reads the files that are as young as the index.
            self.source.copy(original, self._index)
            self.git("update-index", "-q", "--unmerged", "--refresh", "--force-write-index")
        else:
            self.git("read-tree", "--empty")

    def remove(self, paths: Iterable[str]) -> None:
        """Take `paths` out of the scratch index, whatever stands on disk."""
        self.git("update-index", "--force-remove", "-z", "--stdin", stdin=_lines(paths))

    def changed(self) -> dict[str, bytes]:
        """Paths whose file differs from the scratch index, with git's letter for how.

        Of what is modified that index then knows what is staged, and no longer when and how large the file was.
        """
        listed = self.git("diff-files", "-z", "--ignore-submodules=all").split(b"\0")
        records = [
            (*info[1:].split(b" "), path) for info, path in zip(listed[::2], listed[1::2], strict=False)
        ]
        unmerged = {path for *_, status, path in records if status == _UNMERGED}
        # A copy keeps size and second of a file alone: they may be those of what another file was renamed over.
        doubted = [
            b"%b %b 0\t%b\0" % (mode, oid, path)
            for mode, _, oid, _, status, path in records
            if status == _MODIFIED and path not in unmerged
        ]
        if doubted:
            self.git("update-index", "-z", "--index-info", stdin=b"".join(doubted))
        return {os.fsdecode(path): status for *_, status, path in records}

    def add_work_tree(self, changed: Mapping[str, bytes], others: Iterable[str]) -> None:
        """Make the scratch index hold the work tree: what `changed` says, and the files `others`."""
        gone = [path for path, status in changed.items() if status == _GONE]
        there = [path for path, status in changed.items() if status != _GONE]
        if gone:
            self.remove(gone)
        if paths := [*there, *others]:
            self.git("update-index", "--add", "--remove", "--replace", "-z", "--stdin", stdin=_lines(paths))

    def set_gitlinks(self, submodules: Iterable[Submodule]) -> None:
        """Let the scratch index name the commits on which the submodules stand, as `git add` would."""
        lines = (f"160000 {one.repo.head} 0\t".encode() + os.fsencode(one.places[-1]) for one in submodules)
        self.git("update-index", "-z", "--index-info", stdin=b"".join(line + b"\0" for line in lines))

    def empty_blob(self) -> Oid:
        """What the index names for a file that is only intended to be added; git need not have stored it."""
        return Oid.parse(self.git("hash-object", "-w", "--stdin", stdin=b"").decode().strip())

    def tree(self) -> Oid:
        """The tree of the scratch index, which must have no conflicts."""
        return Oid.parse(self.git("write-tree").decode().strip())

    def commit(self, tree: Oid, what: str) -> Oid | None:
        """A commit of `tree` upon the base; None when it is the same as the base's tree."""
        if tree == self.base_tree:
            return None
        parent = ["-p", self.base] if self.base is not None else []
        return Oid.parse(
            self.git("commit-tree", tree, *parent, "-m", f"coding-agents: {what}").decode().strip()
        )

    @cached_property
    def base_tree(self) -> str:
        """The tree of the base, the empty one while there is none."""
        if self.base is None:
            return self.git("mktree", stdin=b"").decode().strip()
        return self.git("rev-parse", f"{self.base}^{{tree}}").decode().strip()


def _move_objects(quarantine: _Quarantine, relay_git_dir: Path, wanted: Sequence[Oid]) -> None:
    """Copy `wanted` and all that they need beyond the base into the relay, as one pack through a pipe."""
    source, base = quarantine.source, quarantine.base
    revisions = [*wanted, *([f"^{base}"] if base is not None else [])]
    pack = source.command(
        ["pack-objects", "-q", "--revs", "--delta-base-offset", "--stdout"], env_extra=quarantine.env
    )
    unpack = git_command(
        ["index-pack", "--stdin"],
        profile=Profile.OWN, env=source.env, git_dir=relay_git_dir, timeout_s=GIT_TIMEOUT_S,
    )  # fmt: skip
    with streaming(pack) as packer, streaming(unpack) as unpacker:
        with suppress(BrokenPipeError):  # the status of the process that died tells why
            packer.stdin.write("\n".join([*revisions, ""]).encode())
            packer.stdin.close()
            shutil.copyfileobj(packer.stdout, unpacker.stdin, 1 << 20)
        packed, unpacked = packer.finish(), unpacker.finish()
        require_ok(packed, "git pack-objects")
        require_ok(unpacked, "git index-pack")
    sync_objects(relay_git_dir)


def _conflicts(output: bytes) -> dict[str, list[Oid]]:
    """Paths in conflict and their blobs, from `ls-files -u -z`: `MODE OID STAGE<TAB>PATH`."""
    conflicts: dict[str, list[Oid]] = {}
    for record in filter(None, output.split(b"\0")):
        info, _, path = record.partition(b"\t")
        mode, oid, _ = info.split(b" ")
        blobs = conflicts.setdefault(os.fsdecode(path), [])
        if mode != _GITLINK:
            blobs.append(Oid.parse(oid.decode()))
    return conflicts


def _lines(paths: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(path) + b"\0" for path in paths)
