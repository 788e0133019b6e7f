"""Writes a workspace as a tar stream: the files of the copy set and a made `.git`.

The stream goes into the session's volume before the agent's container runs; no host path is mounted.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from coding_agents.errors import WorkspaceError
from coding_agents.model.refs import Oid
from coding_agents.model.repo import RepoFacts
from coding_agents.proc.git import Profile, git, git_command, require_ok
from coding_agents.proc.runner import streaming
from coding_agents.store.lfs import LfsStore, lfs_store
from coding_agents.workspace.copyset import CopyPlan, Submodule, children
from coding_agents.workspace.dotgit import dot_git_files, dot_git_link, read_settings
from coding_agents.workspace.launch_state import LaunchState
from coding_agents.workspace.lfs import large_files
from coding_agents.workspace.packindex import holds
from coding_agents.workspace.source import GIT_TIMEOUT_S, SCRATCH_PREFIX, Source, index_env
from coding_agents.workspace.tar import TarWriter
from coding_agents.workspace.tree import Tree, mtime_s, open_file, read_whole
from coding_agents_guest.lfspointer import Pointer


def write_workspace_tar(
    out: BinaryIO,
    repo: RepoFacts,
    plan: CopyPlan,
    *,
    relay_git_dir: Path,
    base: Oid | None,
    launch: LaunchState,
    env: Mapping[str, str],
) -> None:
    """Write everything that belongs in /workspace to `out`, which stays open.

    The objects come from the relay (and the base store behind it), so that the container gets exactly what
    the relay may serve. `base` is None while HEAD is unborn; `launch` is what `record_launch_state` returned
    for the same plan. Raises WorkspaceError when a file cannot be read or shrinks meanwhile, GitError, and
    OSError when `out` cannot be written.
    """
    source = Source(repo, env)
    files = _Files(TarWriter(out))
    with _packed(relay_git_dir, [base, *launch.staged], env) as finished_packs:
        settings = read_settings(source)
        store = lfs_store(repo, dict(settings).get("lfs.storage", ""))
        index = launch.index, launch.index_mtime_s
        if plan.clean:
            index = _add_commit(files, source, plan, relay_git_dir, base, store)
        elif repo.work_tree is not None:
            with Tree(repo.work_tree) as tree:
                files.add(tree, plan.paths, empty=plan.nested)
        base_branch = _base_branch(source, relay_git_dir)
        made = dot_git_files(source, settings, base=base, base_branch=base_branch, inner=children(plan))
        _add_git_dir(files, ".git", made, index, finished_packs, shallow=_shallow(relay_git_dir))
        trees = [tree for tree in (base, launch.index_commit) if tree is not None]
        for pointer, file in large_files(store, relay_git_dir, trees, env):
            files.large(pointer, file)
    for submodule, state in zip(plan.submodules, launch.submodules, strict=True):
        _add_submodule(files, repo, plan, submodule, state, relay_git_dir, env)
    files.tar.close()


def _add_submodule(
    files: _Files,
    repo: RepoFacts,
    plan: CopyPlan,
    submodule: Submodule,
    state: LaunchState,
    relay_git_dir: Path,
    env: Mapping[str, str],
) -> None:
    """Add the files of a submodule, the file that leads to its git directory, and that directory."""
    source, place = Source(submodule.repo, env), submodule.path
    head = submodule.repo.head
    settings = read_settings(source)
    store = lfs_store(submodule.repo, dict(settings).get("lfs.storage", ""))
    with _packed(relay_git_dir, [head, *state.staged], env) as finished_packs:
        index = state.index, state.index_mtime_s
        files.made_directory(place)
        if plan.clean:
            index = _add_commit(files, source, submodule.plan, relay_git_dir, head, store, at=f"{place}/")
        elif repo.work_tree is not None:
            with Tree(repo.work_tree) as tree:  # from the top: no link is followed on the way to it either
                files.add(
                    tree, *(_below(place, paths) for paths in (submodule.plan.paths, submodule.plan.nested))
                )
        files.made(f"{place}/.git", dot_git_link(submodule))
        inner = children(plan, submodule.places)
        made = dot_git_files(source, settings, base=head, base_branch=None, submodule=submodule, inner=inner)
        _add_git_dir(files, submodule.git_dir, made, index, finished_packs, shallow=_shallow(relay_git_dir))
        trees = [tree for tree in (head, state.index_commit) if tree is not None]
        for pointer, file in large_files(store, relay_git_dir, trees, env):
            files.large(pointer, file, submodule.git_dir)


def _add_git_dir(
    files: _Files,
    git_dir: str,
    made: Iterable[tuple[str, bytes]],
    index: tuple[bytes, int],
    finished_packs: Callable[[], list[Path]],
    *,
    shallow: Sequence[Oid],
) -> None:
    """Add a git directory: what was `made`, index, and objects. Of `shallow` counts what is in this history."""
    for name, content in made:
        files.made(f"{git_dir}/{name}", content)
    content, mtime_s = index
    if content:
        files.made(f"{git_dir}/index", content, mtime_s=mtime_s)
    files.made_directory(f"{git_dir}/refs")
    files.made_directory(f"{git_dir}/objects/pack")
    packs = finished_packs()
    for pack in packs:
        files.pack(pack, git_dir)
    indexes = [pack for pack in packs if pack.suffix == ".idx"]
    if ends := [oid for oid in shallow if any(holds(one, oid) for one in indexes)]:
        files.made(f"{git_dir}/shallow", "".join(f"{oid}\n" for oid in ends).encode())


def _below(place: str, paths: Iterable[str]) -> list[str]:
    return [f"{place}/{path}" for path in paths]


class _Files:
    """Adds files below a root to a tar stream, each directory once and before what it holds."""

    def __init__(self, tar: TarWriter) -> None:
        self.tar = tar
        self._seen: set[str] = set()
        tar.directory(".", mode=0o755, mtime_s=0)

    def add(self, tree: Tree, paths: Iterable[str], empty: Iterable[str] = (), *, at: str = "") -> None:
        """Add the files and links at sorted `paths` as they are on disk, and the directories `empty`.

        `at` is where `tree` stands in the workspace, "" or with a slash at its end.
        A path that has gone since it was listed is left out: inside it counts as deleted, as on the host.
        """
        for parent, group in groupby(paths, lambda path: path.rpartition("/")[0]):
            directory = self._enter(tree, parent, at)
            if directory is not None:
                for path in group:
                    self._add_entry(directory, at + path)
        for path in empty:
            self._enter(tree, path, at)

    def made(self, path: str, content: bytes, *, mtime_s: int = 0) -> None:
        """Add a file with `content`."""
        self.made_directory(path.rpartition("/")[0])
        self.tar.data(path, content, mode=0o644, mtime_s=mtime_s)

    def made_directory(self, path: str) -> None:
        """Add a directory and those above it."""
        for ancestor in self._new(path):
            self.tar.directory(ancestor, mode=0o755, mtime_s=0)

    def pack(self, pack: Path, git_dir: str) -> None:
        """Add one file of a pack."""
        with pack.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            path = f"{git_dir}/objects/pack/{pack.name}"
            self.tar.file(path, file.fileno(), size=size, mode=0o444, mtime_s=0)

    def large(self, pointer: Pointer, file: int, git_dir: str = ".git") -> None:
        """Add the content of a large file where git-lfs looks for it, and close it."""
        oid = pointer.oid
        directory = f"{git_dir}/lfs/objects/{oid[:2]}/{oid[2:4]}"
        try:
            self.made_directory(directory)
            self.tar.file(f"{directory}/{oid}", file, size=pointer.size, mode=0o644, mtime_s=0)
        except EOFError as error:
            raise WorkspaceError(
                f"cannot copy the large file {oid}: it changed meanwhile", hint="Try again."
            ) from error
        finally:
            os.close(file)

    def _enter(self, tree: Tree, path: str, at: str) -> int | None:
        """Add the directory `path` of `tree` and those above it, and open it; None when it is not there."""
        for ancestor in self._new(at + path):
            directory = tree.directory(ancestor[len(at) :])
            if directory is None:
                return None
            info = os.fstat(directory)
            self.tar.directory(ancestor, mode=info.st_mode, mtime_s=mtime_s(info))
        return tree.directory(path)

    def _new(self, path: str) -> Iterator[str]:
        """The directories of `path`, from the top, that have not been added."""
        if path in self._seen:
            return
        parts = path.split("/") if path else []
        for depth in range(1, len(parts) + 1):
            ancestor = "/".join(parts[:depth])
            if ancestor not in self._seen:
                yield ancestor
                self._seen.add(ancestor)

    def _add_entry(self, directory: int, path: str) -> None:
        name = path.rpartition("/")[2]
        try:
            info = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISLNK(info.st_mode):
                target = os.readlink(name, dir_fd=directory)
                self.tar.link(path, target, mtime_s=mtime_s(info))
                return
            file = open_file(directory, name) if stat.S_ISREG(info.st_mode) else None
        except FileNotFoundError:
            return
        except OSError as error:
            raise WorkspaceError(f"cannot read {path!r}: {error.strerror}") from error
        if file is not None:
            try:
                self._add_file(file, path)
            finally:
                os.close(file)
        elif not stat.S_ISDIR(info.st_mode):
            raise WorkspaceError(f"cannot copy {path!r}: it is no regular file any more")

    def _add_file(self, file: int, path: str) -> None:
        info = os.fstat(file)
        try:
            if not stat.S_ISREG(info.st_mode):
                raise EOFError("no regular file any more")
            self.tar.file(path, file, size=info.st_size, mode=info.st_mode, mtime_s=mtime_s(info))
        except EOFError as error:
            raise WorkspaceError(
                f"cannot copy {path!r}: it changed meanwhile", hint="Try again when nothing writes to it."
            ) from error


def _add_commit(
    files: _Files,
    source: Source,
    plan: CopyPlan,
    near: Path,
    base: Oid | None,
    store: LfsStore,
    *,
    at: str = "",
) -> tuple[bytes, int]:
    """Add the files of `base` as git checks them out, below `at`; returns the index for them and its time."""
    with source.scratch(near) as checkout, source.scratch(near) as aside:
        if base is None:
            return b"", 0
        # Large files come from what the host has; others stay pointers, for nothing is fetched for a copy.
        (aside / "objects").symlink_to(store.path / "objects")
        lfs = {"lfs.storage": str(aside), "lfs.url": "file:///dev/null", "lfs.skipdownloaderrors": "true"}
        source.git(
            ["read-tree", "-m", "-u", base], work_tree=checkout, env_extra=index_env(aside / "index", lfs)
        )
        included = frozenset(plan.included)
        with Tree(checkout) as tree:
            files.add(tree, [path for path in plan.paths if path not in included], plan.nested, at=at)
        if plan.included and source.repo.work_tree is not None:
            with Tree(source.repo.work_tree) as tree:
                files.add(tree, plan.included, at=at)
        return read_whole(aside, "index")


@contextmanager
def _packed(
    relay_git_dir: Path, wanted: Iterable[Oid | None], env: Mapping[str, str]
) -> Iterator[Callable[[], list[Path]]]:
    """Pack `wanted` and all that they need while the block runs; the value waits and gives pack and index."""
    revisions = [oid for oid in wanted if oid is not None]
    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=relay_git_dir) as name:
        if not revisions:
            yield list
            return
        # A scratch file need not survive a power cut; git >= 2.41 would add a third file, which git makes anew.
        settings = ["-c", "core.fsync=none", "-c", "pack.writeReverseIndex=false"]
        arguments = [*settings, "pack-objects", "-q", "--revs", "--delta-base-offset"]
        command = git_command(
            [*arguments, f"{name}/pack"],
            profile=Profile.OWN, env=env, git_dir=relay_git_dir, timeout_s=GIT_TIMEOUT_S,
        )  # fmt: skip
        with streaming(command) as packer:
            with suppress(BrokenPipeError):  # its status tells why it died
                packer.stdin.write("\n".join([*revisions, ""]).encode())
                packer.stdin.close()

            def finish() -> list[Path]:
                require_ok(packer.finish(), "git pack-objects")
                return sorted(Path(name).iterdir())

            yield finish


def _base_branch(source: Source, relay_git_dir: Path) -> str | None:
    """The branch that the session starts from; None when the relay leaves it out as colliding."""
    branch = source.repo.branch
    if branch is None:
        return None
    args = ["show-ref", "--verify", "--quiet", f"refs/heads/{branch}"]
    found = git(args, profile=Profile.OWN, env=source.env, git_dir=relay_git_dir, check=False)
    return branch if found.ok else None


def _shallow(relay_git_dir: Path) -> list[Oid]:
    """The commits at which a history in the relay is cut off."""
    path = relay_git_dir / "shallow"
    return [Oid.parse(line) for line in path.read_text("ascii").split()] if path.is_file() else []
