"""Finds the submodules whose checkout goes in: each is a repository with a copy set of its own.

What goes in must belong to the repository that is launched. So the git directory of a submodule is taken only from
where git puts it (`modules/` of the repository around it, or `.git` of the submodule itself), without a link on the
way, of the same owner, and with its own objects; everything else is left out with the reason. Imported only for
a repository that records a submodule.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from coding_agents.errors import GitError, WorkspaceError
from coding_agents.model.refs import Oid
from coding_agents.model.repo import RepoFacts
from coding_agents.workspace.copyset import CopyPlan, Submodule, with_submodules
from coding_agents.workspace.gitmodules import names_by_path, why_unusable
from coding_agents.workspace.listing import plan_repository
from coding_agents.workspace.source import Source, paths_of
from coding_agents.workspace.tree import Tree

MAX_SUBMODULES = 200
"""More stay empty: each costs a launch some twenty processes of git."""
MAX_DEPTH = 8

_MODULES_LIMIT_BYTES = 1 << 20
_GITDIR = b"gitdir: "
_PARTS = ("HEAD", "config", "objects", "refs")
_TRUE = frozenset({"true", "yes", "on", "1"})


def add_submodules(source: Source, plan: CopyPlan, gitlinks: Mapping[str, str]) -> CopyPlan:
    """`plan` of the repository of `source` with its submodules at the paths `gitlinks`, and theirs. Raises GitError."""
    finder = _Finder(source, plan.clean, [], {}, set())
    finder.descend(source, (), ".git", gitlinks)
    return with_submodules(plan, finder.found, finder.reasons)


class _LeftOutError(Exception):
    """Why a submodule does not go in, to be named to a person."""


class _Finder(msgspec.Struct):
    """`top` is what is launched; what was found so far, and why others do not go in, by path in the workspace."""

    top: Source
    clean: bool
    found: list[Submodule]
    reasons: dict[str, str]
    git_dirs: set[Path]

    def descend(
        self, outer: Source, places: tuple[str, ...], git_dir: str, gitlinks: Mapping[str, str]
    ) -> None:
        """Look at the submodules of `outer`, which stands at `places` and gets `git_dir` inside."""
        with self._tree(places) as tree:
            there = [path for path in sorted(gitlinks) if tree.stat(f"{path}/.git") is not None]
            if not there:
                return
            names = _names(outer, tree, clean=self.clean)
            active = _Active.read(outer)
            taken: list[str] = []
            for path in there:
                here = (*places, path)
                name = names.get(path, path)
                try:
                    if why := why_unusable(name, taken):
                        raise _LeftOutError(why)
                    repo = self._repository(outer, tree, here, gitlinks[path])
                    plan, inner = self._plan(repo, here)
                except _LeftOutError as error:
                    self.reasons["/".join(here)] = str(error)
                    continue
                except (GitError, WorkspaceError) as error:
                    self.reasons["/".join(here)] = error.message
                    continue
                taken.append(name)
                inside = f"{git_dir}/modules/{name}"
                is_active = active.names(name, path)
                self.found.append(Submodule(here, name, inside, is_active, repo, plan))
                self.descend(Source(repo, outer.env), here, inside, inner)

    def _tree(self, places: tuple[str, ...]) -> Tree:
        if self.top.repo.work_tree is None:
            raise WorkspaceError("there is no work tree")
        return Tree(self.top.repo.work_tree, inside="/".join(places))

    def _plan(self, repo: RepoFacts, here: tuple[str, ...]) -> tuple[CopyPlan, Mapping[str, str]]:
        try:
            with self._tree(here) as tree:
                return plan_repository(Source(repo, self.top.env), tree=tree, include=(), clean=self.clean)
        except OSError as error:
            raise _LeftOutError(f"it cannot be read: {error.strerror or error}") from error

    def _repository(self, outer: Source, tree: Tree, here: tuple[str, ...], recorded: str) -> RepoFacts:
        """The facts of the one at `here`. Raises _LeftOutError."""
        if len(self.found) >= MAX_SUBMODULES:
            raise _LeftOutError(f"{MAX_SUBMODULES} submodules go in at most")
        if len(here) > MAX_DEPTH:
            raise _LeftOutError(f"it is more than {MAX_DEPTH} submodules deep")
        if outer.repo.work_tree is None:
            raise _LeftOutError("there is no work tree around it")
        path = here[-1]
        place = outer.repo.work_tree / path
        try:
            git_dir = _git_dir(outer.repo, tree, path, place)
            _require_own(outer.repo, (place, place / ".git", git_dir, *(git_dir / part for part in _PARTS)))
        except OSError as error:
            raise _LeftOutError(f"its git directory cannot be read: {error.strerror or error}") from error
        if git_dir in self.git_dirs:
            raise _LeftOutError("it shares its git directory with another submodule")
        repo = replace(
            outer.repo,
            name=path.rpartition("/")[2],
            work_tree=place,
            git_dir=git_dir,
            common_dir=git_dir,
            branch=None,
            origin_url="",
            identity=None,
        )
        repo = replace(repo, head=self._head(Source(repo, outer.env), recorded))
        self.git_dirs.add(git_dir)
        return repo

    def _head(self, source: Source, recorded: str) -> Oid:
        """The commit on which the submodule stands or, for a clean copy, the one that is `recorded` for it."""
        asked = ("--path-format=absolute", "--git-common-dir", "--show-object-format", "HEAD^{commit}")
        answer = source.git(["rev-parse", *asked], check=False)
        if not answer.ok:
            raise _LeftOutError("git cannot read it, or it has no commit yet")
        common_dir, object_format, head = answer.text().removesuffix("\n").rsplit("\n", 2)
        if Path(os.path.realpath(common_dir)) != Path(os.path.realpath(source.repo.git_dir)):
            raise _LeftOutError("its git directory borrows from one elsewhere")
        if object_format != source.repo.object_format:
            raise _LeftOutError(f"its object format is {object_format}")
        if self.clean and head != recorded:
            # Only what HEAD contains: the id in a commit must not reach other branches of the submodule.
            held = source.git(["merge-base", "--is-ancestor", recorded, head], check=False)
            if not held.ok:
                raise _LeftOutError(f"it stands on {head[:12]}, which does not contain {recorded[:12]}")
            return Oid.parse(recorded)
        return Oid.parse(head)


def _git_dir(outer: RepoFacts, tree: Tree, path: str, place: Path) -> Path:
    """The git directory of the submodule at `path`. Raises _LeftOutError, OSError."""
    info = tree.stat(f"{path}/.git")
    if info is not None and stat.S_ISDIR(info.st_mode):
        return place / ".git"
    if info is None or not stat.S_ISREG(info.st_mode):
        raise _LeftOutError("its .git is neither a file nor a directory")
    said = tree.read(f"{path}/.git", _MODULES_LIMIT_BYTES)
    if not said.startswith(_GITDIR) or b"\0" in said:
        raise _LeftOutError("its .git does not name a git directory")
    git_dir = Path(os.path.realpath(place / os.fsdecode(said.removeprefix(_GITDIR).rstrip(b"\r\n"))))
    roots = {Path(os.path.realpath(one)) / "modules" for one in (outer.git_dir, outer.common_dir)}
    if roots.isdisjoint(git_dir.parents):
        raise _LeftOutError(f"its git directory is not this repository's: {str(git_dir)[:200]}")
    return git_dir


def _require_own(outer: RepoFacts, paths: tuple[Path, ...]) -> None:
    """Raises _LeftOutError for a link and for what is not the repository's owner's, OSError for what is missing."""
    for path in paths:
        info = path.lstat()
        if stat.S_ISLNK(info.st_mode):
            raise _LeftOutError(f"{path.name!r} of its git directory is a symbolic link")
        if info.st_uid != outer.owner_uid:
            raise _LeftOutError(f"{path.name!r} belongs to another user")


def _names(outer: Source, tree: Tree, *, clean: bool) -> dict[str, str]:
    """The names in `.gitmodules`: of the commit, or as git reads it, from disk before the index."""
    content = b"" if clean else tree.read(".gitmodules", _MODULES_LIMIT_BYTES)
    if not content:
        blob = f"{outer.repo.head if clean else ''}:.gitmodules"
        content = outer.git(["cat-file", "blob", blob], check=False).stdout[:_MODULES_LIMIT_BYTES]
    listed = outer.git(["config", "--file", "-", "--null", "--list"], stdin=content, check=False)
    return names_by_path(os.fsdecode(listed.stdout))


class _Active(msgspec.Struct):
    """Which submodules git takes for initialised (gitsubmodules(7), Active submodules)."""

    settings: Mapping[str, str]
    paths: frozenset[str] | None

    @classmethod
    def read(cls, outer: Source) -> _Active:
        """Raises GitError."""
        pattern = r"^submodule\.(.*\.(active|url)|active)$"
        listed = os.fsdecode(outer.git(["config", "--null", "--get-regexp", pattern], check=False).stdout)
        settings: dict[str, str] = {}
        patterns = []
        for record in filter(None, listed.split("\0")):
            key, found, value = record.partition("\n")
            settings[key] = value if found else "true"
            if key == "submodule.active":
                patterns.append(value)
        paths = None
        if patterns:
            paths = frozenset(paths_of(outer.git(["ls-files", "-z", "--", *patterns]).stdout))
        return cls(settings, paths)

    def names(self, name: str, path: str) -> bool:
        said = self.settings.get(f"submodule.{name}.active")
        if said is not None:
            return said.lower() in _TRUE
        return path in self.paths if self.paths is not None else f"submodule.{name}.url" in self.settings
