"""Branches of the user's repository: what stands where a session's branch will be, and making room for it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from coding_agents.errors import BranchError, GitError
from coding_agents.gitsync.packs import Store, user_store
from coding_agents.model.refs import Branch, Oid
from coding_agents.model.repo import RepoFacts

_HEADS = "refs/heads/"


class BranchState(msgspec.Struct, frozen=True):
    """`tip` is None when the branch does not exist; `checked_out` is the work tree that has it checked out.

    `unmerged` counts its commits that the base does not contain. `collides_with` is the short name of
    another branch because of which git could not create it, or an empty string.
    """

    tip: Oid | None
    checked_out: Path | None
    unmerged: int
    collides_with: str


def branch_names(repo: RepoFacts, *, env: Mapping[str, str]) -> tuple[str, ...]:
    """Short names of all local branches."""
    return tuple(ref.removeprefix(_HEADS) for ref in user_store(repo, env).refs(_HEADS))


def branch_state(repo: RepoFacts, branch: Branch, *, base: Oid | None, env: Mapping[str, str]) -> BranchState:
    """What the user's repository has at `branch`, compared with the commit `base`. Raises GitError."""
    store = user_store(repo, env)
    refs = store.refs(_HEADS)
    tip = refs.get(branch.ref)
    unmerged = 0
    if tip is not None:
        unlike = ("--not", base) if base is not None else ()
        unmerged = int(store.git("rev-list", "--count", tip, *unlike, timeout_s=600.0).text())
    return BranchState(tip, _work_trees(store).get(branch.ref), unmerged, collision(store, branch, refs))


def archive_existing(repo: RepoFacts, branch: Branch, *, now_ms: int, env: Mapping[str, str]) -> str:
    """Rename `branch` to `<branch>-archived-<UTC time>`; returns the new short name.

    Raises BranchError when it is checked out or changes meanwhile; then nothing was renamed.
    """
    store = user_store(repo, env)
    refs = store.refs(_HEADS)
    tip = refs.get(branch.ref)
    if tip is None:
        raise BranchError(f"the branch {branch.short} does not exist")
    if (work_tree := _work_trees(store).get(branch.ref)) is not None:
        raise BranchError(
            f"the branch {branch.short} is checked out in {work_tree}",
            hint="Check out another branch there, or choose another name with -b.",
        )
    stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d-%H%M%S")
    name = f"{branch.short}-archived-{stamp}"
    names = (name, *(f"{name}-{number}" for number in range(2, len(refs) + 3)))
    # What has this very tip is what an earlier call left that was killed between the two refs.
    name = next(free for free in names if refs.get(f"{_HEADS}{free}") in (None, tip))
    known = refs.get(f"{_HEADS}{name}") or "0" * len(tip)
    try:
        store.update_refs(f"update {_HEADS}{name} {tip} {known}", f"delete {branch.ref} {tip}")
    except GitError as error:
        what = f"the branch {branch.short} cannot be renamed: {error.message}"
        raise BranchError(what, details=error.details, hint=error.hint) from error
    return name


def is_merged(repo: RepoFacts, branch: Branch, *, env: Mapping[str, str]) -> bool:
    """Whether another local or remote-tracking branch contains all of `branch` (or it does not exist)."""
    store = user_store(repo, env)
    tip = store.resolve(branch.ref)
    if tip is None:
        return True
    containing = store.git(
        "for-each-ref", f"--contains={tip}", "--format=%(refname)", _HEADS, "refs/remotes/", timeout_s=600.0
    )
    return bool(set(containing.text().split()) - {branch.ref})


def delete_branch(repo: RepoFacts, branch: Branch, *, expected: Oid, env: Mapping[str, str]) -> bool:
    """Delete `branch` if it still is at `expected` and nowhere checked out; whether it was deleted."""
    store = user_store(repo, env)
    if branch.ref in _work_trees(store):
        return False
    try:
        store.update_refs(f"delete {branch.ref} {expected}")
    except GitError:
        return False
    return True


def collision(store: Store, branch: Branch, refs: Mapping[str, Oid]) -> str:
    """The short name in `refs` because of which `branch` cannot be made, or an empty string.

    `a` and `a/b` cannot both exist; where the file system ignores letter case, nor can `a` and `A`.
    """
    ignore_case = store.git("config", "--type=bool", "core.ignoreCase", check=False).text().strip() == "true"

    def norm(ref: str) -> str:
        return ref.lower() if ignore_case else ref

    mine = norm(branch.ref)
    for ref in refs:
        other = norm(ref)
        same = other == mine and ref != branch.ref
        if same or other.startswith(f"{mine}/") or mine.startswith(f"{other}/"):
            return ref.removeprefix(_HEADS)
    return ""


def checked_out(store: Store, branch: Branch) -> Path | None:
    """The work tree that has `branch` checked out."""
    return _work_trees(store).get(branch.ref)


def _work_trees(store: Store) -> dict[str, Path]:
    """The branch of each work tree (git-worktree(1), "Porcelain Format") that has one."""
    found: dict[str, Path] = {}
    path = Path()
    for line in store.git("worktree", "list", "--porcelain").text().split("\n"):
        key, _, value = line.partition(" ")
        if key == "worktree":
            path = Path(value)
        elif key == "branch":
            found[value] = path
    return found
