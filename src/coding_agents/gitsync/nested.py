"""Repositories inside a session's work tree: into the user's repository as refs, and from there to their own place.

The work of a submodule that went in comes back into the submodule itself, when that still stands where it stood: its
history is there, and where it is cut off, too.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import msgspec

from coding_agents.errors import BranchError, GitError, NotARepositoryError, WorkspaceError
from coding_agents.gitsync.base import appear
from coding_agents.gitsync.branches import checked_out, collision
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.packs import Store, bring, user_store
from coding_agents.gitsync.relay_repo import Relay
from coding_agents.model.refs import Branch, Oid
from coding_agents.model.repo import RepoFacts
from coding_agents.proc.git import Profile, git, owner_of
from coding_agents_guest.nestedref import GIVEN_HEADS, NESTED, is_nested_name, nested_path, repository_of

_MAX_DEPTH = 8

_GITLINK = re.compile(rb"(?:\A|(?<=\0))160000 [0-9a-f]+ \d\t([^\0]+)")
_DOT_GIT = frozenset({".git", "git~1"})


class Nested(msgspec.Struct, frozen=True):
    """One repository inside the work tree: its path there (hostile text), its ref in the user's repository, its tip.

    The path of a git directory (`libs/a/.git`) stands for what the repository has beside its HEAD: the tip's parents.
    `home` is the submodule that has the ref, None when it is the repository around it.
    """

    path: str
    ref: str
    tip: Oid
    home: RepoFacts | None = None


def bring_nested(repo: RepoFacts, relay: Relay, *, session: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """Bring what the relay has of nested repositories to refs of `session` in `repo` and in its submodules.

    Returns these refs. Raises GitError.
    """
    found = relay.store.refs(NESTED)
    if not found:
        return ()
    given = relay.store.refs(GIVEN_HEADS)
    around: dict[str, Oid] = {}
    brought = []
    for ref, oid in found.items():
        name = _safe(ref.removeprefix(NESTED))
        brought.append(f"{NESTED}{session}/{name}")
        inside = repository_of(name)
        start = given.get(f"{GIVEN_HEADS}{inside}")
        home = _submodule(repo, nested_path(inside), env) if start is not None else None
        if home is not None and start is not None and user_store(home, env).present([start]):
            _bring_refs(relay, user_store(home, env), {brought[-1]: oid}, [start], session)
        else:
            around[brought[-1]] = oid
    if around:
        _require_whole(relay, around)
        _bring_refs(relay, user_store(repo, env), around, [], session)
    return tuple(brought)


def _safe(name: str) -> str:
    """The name of a ref below NESTED; one that no guest may push (any more) is replaced by a digest of it."""
    if is_nested_name(name):
        return name
    return f"%7E{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}"


def _bring_refs(relay: Relay, user: Store, wanted: Mapping[str, Oid], known: list[Oid], session: str) -> None:
    """Let the refs `wanted` of `user` be what they should; `known` is what both sides have anyway."""
    here = user.refs(f"{NESTED}{session}/")
    bring(relay.store, user, tips=wanted.values(), known=[*known, *here.values()])
    new = {ref: oid for ref, oid in wanted.items() if here.get(ref) != oid}
    if new:
        user.update_refs(*(f"update {ref} {oid}" for ref, oid in new.items()))


def _require_whole(relay: Relay, wanted: Mapping[str, Oid]) -> None:
    """Raise GitError for a history that is cut off where no repository of the user's knows it: it would be broken."""
    try:
        ends = set((relay.git_dir / "shallow").read_text("ascii").split())
    except FileNotFoundError:
        return
    base = [f"^{relay.base}"] if relay.base is not None else []
    for ref, oid in wanted.items():
        listed = relay.store.git("rev-list", oid, *base, timeout_s=600.0).text().split()
        if not ends.isdisjoint(listed):
            path = nested_path(ref.removeprefix(NESTED).partition("/")[2])
            raise GitError(
                f"the shallow submodule {path!r} is not where it was when the session began: its work is kept in "
                f"{relay.git_dir}",
                hint="Check the submodule out at its path, then run `coding-agents recover`.",
            )


def list_nested(repo: RepoFacts, *, session: str, env: Mapping[str, str]) -> tuple[Nested, ...]:
    """The nested repositories of `session` that are in `repo` and its submodules, by path. Raises GitError."""
    prefix = f"{NESTED}{session}/"
    found = []
    for home in (None, *_submodules(repo, env)):
        for ref, tip in user_store(home or repo, env).refs(prefix).items():
            found.append(Nested(nested_path(ref.removeprefix(prefix)), ref, tip, home))
    return tuple(sorted(found, key=lambda one: one.path))


def _submodules(repo: RepoFacts, env: Mapping[str, str], depth: int = 0) -> Iterator[RepoFacts]:
    """The submodules of `repo` that are checked out, and theirs."""
    if repo.work_tree is None or depth >= _MAX_DEPTH:
        return
    store = Store(repo.git_dir, Profile.USER_WRITE, env, owner_of(repo))
    for path in _GITLINK.findall(store.git("ls-files", "-z", "--stage").stdout):
        found = _submodule(repo, os.fsdecode(path), env)
        if found is not None:
            yield found
            yield from _submodules(found, env, depth + 1)


def _submodule(repo: RepoFacts, path: str, env: Mapping[str, str]) -> RepoFacts | None:
    """The repository that is checked out at `path` of the work tree, None when none is."""
    try:
        place = place_of(repo, path)
        if not (place / ".git").exists():
            return None
        found = discover(place, env=env)
    except (GitError, WorkspaceError, NotARepositoryError, OSError):
        return None
    here = found.work_tree is not None and found.work_tree.samefile(place)
    return found if here and found.common_dir != repo.common_dir else None


def take_nested(
    repo: RepoFacts, nested: Nested, branch: Branch, *, into: Path, env: Mapping[str, str]
) -> bool:
    """Make `branch` at the tip of `nested` in the repository at `into`, which is made when nothing is there.

    No file is written into a work tree. Returns whether the repository was made. Raises WorkspaceError when
    something else is at `into`, BranchError when the branch cannot be moved there, GitError.
    """
    made = _make_room(into, branch, repo, nested, env)
    target_facts = discover(into, env=env)
    target = user_store(target_facts, env)
    if target_facts.work_tree is None or not target_facts.work_tree.samefile(into):
        raise WorkspaceError(
            f"{str(into)!r} is a directory of another repository", hint="Name an empty place with --into."
        )
    refs = target.refs("refs/heads/")
    current = refs.get(branch.ref)
    # What HEAD names while there is neither a commit nor an index is no work of anybody's: the repository is new.
    fresh = current is None and not (target_facts.git_dir / "index").exists()
    where = None if fresh else checked_out(target, branch)
    if current != nested.tip:
        if where is not None:
            raise BranchError(
                f"{branch.short} is checked out in {where}", hint="Check out another branch there first."
            )
        if other := collision(target, branch, refs):
            raise BranchError(f"{branch.short} cannot exist beside the branch {other} in {str(into)!r}")
        _copy(repo, nested, target)
        if current is not None and not target.is_ancestor(current, nested.tip):
            raise BranchError(
                f"{branch.short} in {str(into)!r} has commits that the session's work does not contain",
                hint="Rename it there, then run the command again.",
            )
        target.update_refs(f"update {branch.ref} {nested.tip} {current or '0' * len(nested.tip)}")
    return made


def place_of(repo: RepoFacts, path: str) -> Path:
    """Where the nested repository at `path` belongs in the user's work tree. Raises WorkspaceError.

    The path is the guest's: it must stay inside, and pass no link and no git directory.
    """
    if repo.work_tree is None:
        raise WorkspaceError(
            "the session's repository has no work tree", hint="Name a directory with --into."
        )
    parts = PurePosixPath(path).parts
    bad = not parts or path.startswith("/") or "\0" in path or not {".", ".."}.isdisjoint(parts)
    if bad or any(part.lower().rstrip(" .") in _DOT_GIT for part in parts):
        raise WorkspaceError(f"{path!r} is no place in a work tree", hint="Name a directory with --into.")
    place = repo.work_tree
    for part in parts:
        place /= part
        if place.is_symlink():
            raise WorkspaceError(f"{str(place)!r} is a symbolic link", hint="Name a directory with --into.")
    return place


def _copy(repo: RepoFacts, nested: Nested, target: Store) -> None:
    bring(user_store(nested.home or repo, target.env), target, tips=[nested.tip])


def _make_room(into: Path, branch: Branch, repo: RepoFacts, nested: Nested, env: Mapping[str, str]) -> bool:
    """Make a repository with the objects of `nested` at `into` unless there is one; whether it was made."""
    if os.path.lexists(into / ".git"):
        return False
    if into.is_symlink() or (into.exists() and (not into.is_dir() or any(into.iterdir()))):
        raise WorkspaceError(f"{str(into)!r} is there already", hint="Name an empty place with --into.")
    into = into.absolute()
    draft = into.with_name(f".{into.name}.coding-agents-new")
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
    parent = next(one for one in into.parents if one.is_dir())
    try:
        git(
            ("init", "--quiet", "--template=", f"--object-format={repo.object_format}",
             f"--initial-branch={branch.short}", os.fspath(draft)),
            profile=Profile.USER_WRITE, env=env, cwd=parent, owner=owner_of(repo),
        )  # fmt: skip
        _copy(repo, nested, user_store(discover(draft, env=env), env))
        appear(draft, into)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return True
