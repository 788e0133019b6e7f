"""The base store: a bare repository per source repository, holding exactly what agents were given.

It is the only thing that a relay borrows objects from. Whatever a hostile guest gets the relay to serve
or to accept by object id (`.have` lines, fetch by id, a push with an empty pack) is therefore something
that the guest was given anyway; borrowing from the user's repository would open all of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from coding_agents.errors import GitError
from coding_agents.gitsync.packs import Store, copy_closure, user_store
from coding_agents.gitsync.promisor import complete
from coding_agents.model.refs import Oid
from coding_agents.model.repo import RepoFacts
from coding_agents.proc.git import Profile, git
from coding_agents.proc.sync import sync_dir, sync_tree
from coding_agents.store.files import locked, make_dir, write_atomic

GIVEN = "refs/given"
_LOCK_WAIT_S = 1800.0  # another launch may be giving the whole history of a large repository


class BaseStore(msgspec.Struct, frozen=True):
    """The base store of one repository, ready to use."""

    git_dir: Path
    object_format: str
    env: Mapping[str, str]

    @property
    def store(self) -> Store:
        return Store(self.git_dir, Profile.OWN, self.env)


def open_base(data_dir: Path, repo: RepoFacts, *, env: Mapping[str, str]) -> BaseStore:
    """The base store of `repo` under `data_dir`, made when it is not there. Raises GitError, StoreError."""
    git_dir = data_dir / "bases" / f"{repo.repo_id}.git"
    make_dir(git_dir.parent)
    with locked(git_dir.with_suffix(".lock"), timeout_s=_LOCK_WAIT_S):
        init_bare(git_dir, object_format=repo.object_format, env=env)
    return BaseStore(git_dir, repo.object_format, env)


def give(base: BaseStore, repo: RepoFacts, oid: Oid) -> None:
    """Bring exactly the closure of commit `oid` from the user's repository into `base` and keep it.

    A shallow repository stays shallow at the same commits, and what a partial clone lacks is fetched first. Safe
    against concurrent launches; a call that was interrupted leaves no ref, so the next one completes it. Raises
    GitError for missing objects.
    """
    kept = f"{GIVEN}/{oid}"
    store = base.store
    with locked(base.git_dir.with_suffix(".lock"), timeout_s=_LOCK_WAIT_S):
        given = store.refs(GIVEN)
        if kept in given:
            return
        store.sweep()
        source = user_store(repo, base.env)
        known = source.present(given.values())
        complete(repo, oid, known=known, env=base.env)
        copy_closure(source, store, tips=[oid], known=known)
        _keep_shallow(repo.common_dir / "shallow", store)
        store.update_refs(f"update {kept} {oid}")


def init_bare(git_dir: Path, *, object_format: str, env: Mapping[str, str], branch: str = "main") -> None:
    """Make an empty bare repository of ours (0700) unless there is one; the caller sees to it that no other does.

    It appears whole or not at all. Raises GitError, StoreError.
    """
    if git_dir.exists():
        return
    draft = git_dir.with_name(f"{git_dir.name}.new")
    shutil.rmtree(draft, ignore_errors=True)  # left by an interrupted launch
    init_draft(draft, object_format=object_format, env=env, branch=branch)
    appear(draft, git_dir)


def init_draft(draft: Path, *, object_format: str, env: Mapping[str, str], branch: str = "main") -> None:
    """Make an empty bare repository (0700) at `draft`, for `appear`. Raises GitError, StoreError."""
    make_dir(draft)
    git(
        ("init", "--bare", "--quiet", "--template=", f"--object-format={object_format}",
         f"--initial-branch={branch}", os.fspath(draft)),
        profile=Profile.OWN,
        env=env,
        cwd=draft,
    )  # fmt: skip


def appear(draft: Path, git_dir: Path) -> None:
    """Give a complete repository its name, durably; git itself syncs neither HEAD nor config. Raises GitError."""
    try:
        sync_tree(draft)
        draft.rename(git_dir)
        sync_dir(git_dir.parent)
    except OSError as error:
        raise GitError(f"cannot make {git_dir}: {(error.strerror or str(error)).lower()}") from error


def _keep_shallow(source: Path, store: Store) -> None:
    """Mark those commits as shallow at which the source's history ends too (gitformat: one id a line)."""
    try:
        ends = [Oid.parse(line) for line in source.read_text("ascii").split()]
    except FileNotFoundError:
        return
    target = store.git_dir / "shallow"
    before = target.read_text("ascii").split() if target.exists() else []
    after = sorted({*before, *store.present(ends)})
    if after:
        write_atomic(target, "".join(f"{oid}\n" for oid in after).encode())
