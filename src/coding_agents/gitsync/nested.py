"""Repositories inside a session's work tree: into the user's repository as refs, and from there to their own place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import msgspec

from coding_agents.errors import BranchError, WorkspaceError
from coding_agents.gitsync.branches import checked_out, collision
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.packs import copy_closure, user_store
from coding_agents.gitsync.relay_repo import Relay
from coding_agents.model.refs import Branch, Oid
from coding_agents.model.repo import RepoFacts
from coding_agents.proc.git import Profile, git, owner_of
from coding_agents_guest.nestedref import NESTED, nested_path

MAX_BROUGHT = 1000
"""So many refs of nested repositories are brought home; a hostile guest can push more."""

_DOT_GIT = frozenset({".git", "git~1"})


class Nested(msgspec.Struct, frozen=True):
    """One repository inside the work tree: its path there (hostile text), its ref in the user's repository, its tip."""

    path: str
    ref: str
    tip: Oid


def bring_nested(repo: RepoFacts, relay: Relay, *, session: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """Bring what the relay has of nested repositories to refs of `session` in `repo`; returns these refs.

    Raises GitError.
    """
    found = relay.store.refs(NESTED)
    if not found:
        return ()
    user = user_store(repo, env)
    here = user.refs(f"{NESTED}{session}/")
    wanted = {f"{NESTED}{session}/{ref.removeprefix(NESTED)}": oid for ref, oid in found.items()}
    wanted = dict(list(wanted.items())[:MAX_BROUGHT])
    new = {ref: oid for ref, oid in wanted.items() if here.get(ref) != oid}
    if new:
        copy_closure(relay.store, user, tips=new.values(), known=user.present(here.values()))
        user.git(
            "update-ref",
            "--stdin",
            stdin="".join(f"update {ref} {oid}\n" for ref, oid in new.items()).encode(),
        )
    return tuple(wanted)


def list_nested(repo: RepoFacts, *, session: str, env: Mapping[str, str]) -> tuple[Nested, ...]:
    """The nested repositories of `session` that are in `repo`, by path. Raises GitError."""
    prefix = f"{NESTED}{session}/"
    refs = user_store(repo, env).refs(prefix)
    found = (Nested(nested_path(ref.removeprefix(prefix)), ref, tip) for ref, tip in refs.items())
    return tuple(sorted(found, key=lambda one: one.path))


def take_nested(
    repo: RepoFacts, nested: Nested, branch: Branch, *, into: Path, env: Mapping[str, str]
) -> bool:
    """Make `branch` at the tip of `nested` in the repository at `into`, which is made when nothing is there.

    No file is written into a work tree. Returns whether the repository was made. Raises WorkspaceError when
    something else is at `into`, BranchError when the branch cannot be moved there, GitError.
    """
    made = _make_room(into, branch, repo, env)
    target_facts = discover(into, env=env)
    target = user_store(target_facts, env)
    if target_facts.work_tree is None or not target_facts.work_tree.samefile(into):
        raise WorkspaceError(
            f"{str(into)!r} is a directory of another repository", hint="Name an empty place with --into."
        )
    refs = target.refs("refs/heads/")
    current = refs.get(branch.ref)
    where = None if made else checked_out(target, branch)
    if current != nested.tip:
        if where is not None:
            raise BranchError(
                f"{branch.short} is checked out in {where}", hint="Check out another branch there first."
            )
        if other := collision(target, branch, refs):
            raise BranchError(f"{branch.short} cannot exist beside the branch {other} in {str(into)!r}")
        copy_closure(user_store(repo, env), target, tips=[nested.tip], known=())
        if current is not None and not target.is_ancestor(current, nested.tip):
            raise BranchError(
                f"{branch.short} in {str(into)!r} has commits that the session's work does not contain",
                hint="Rename it there, then run the command again.",
            )
        target.git("update-ref", branch.ref, nested.tip, current or "0" * len(nested.tip))
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


def _make_room(into: Path, branch: Branch, repo: RepoFacts, env: Mapping[str, str]) -> bool:
    """Make a repository at `into` unless there is one; whether it was made."""
    if os.path.lexists(into / ".git"):
        return False
    if into.is_symlink() or (into.exists() and (not into.is_dir() or any(into.iterdir()))):
        raise WorkspaceError(f"{str(into)!r} is there already", hint="Name an empty place with --into.")
    parent = next(one for one in into.absolute().parents if one.is_dir())
    git(
        ("init", "--quiet", "--template=", f"--object-format={repo.object_format}",
         f"--initial-branch={branch.short}", os.fspath(into.absolute())),
        profile=Profile.USER_WRITE, env=env, cwd=parent, owner=owner_of(repo),
    )  # fmt: skip
    return True
