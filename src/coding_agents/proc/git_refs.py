"""The only way to move refs: durable when the call returns, and past the locks that a killed git left behind.

git makes `REF.lock` and renames it, and so with `packed-refs`. When it is killed in between, the lock stays and every
later git refuses to touch that ref; git itself leaves it to a person to remove the file. We remove it when nobody can
hold it any more: in our own repositories, and for refs/coding-agents/ in the user's, when it is ten seconds old, which
we wait for (our gits hold a lock for milliseconds); for anything else in the user's repository, which the user's own
git may hold, when it has not changed for ten minutes. Until then the error names the file.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from coding_agents.errors import GitError
from coding_agents.proc.git import Profile, git, require_ok
from coding_agents.proc.runner import Outcome, Owner
from coding_agents.proc.sync import opened_below, sync_below

OWN_LOCK_S = 10.0
USER_LOCK_S = 600.0
_POLL_S = 0.1
_OURS = "refs/coding-agents/"
# `packed-refs.new` is no lock, but git makes it anew and stops when it is there.
_SHARED = ("packed-refs.lock", "packed-refs.new", "HEAD.lock")


def update_refs(
    commands: Sequence[str],
    *,
    profile: Profile,
    env: Mapping[str, str],
    git_dir: Path,
    owner: Owner | None = None,
) -> None:
    """Carry out commands of `git update-ref --stdin` as one transaction: `update REF NEW [OLD]`, `create`, `delete`.

    A crash leaves each ref where it was or where it was to go. Raises GitError; then no ref was moved.
    """
    refs = [command.split(" ", 2)[1] for command in commands]
    stdin = "".join(f"{command}\n" for command in commands).encode()

    def attempt() -> Outcome:
        return git(
            ("update-ref", "--stdin"),
            profile=profile,
            env=env,
            git_dir=git_dir,
            owner=owner,
            stdin=stdin,
            check=False,
        )

    outcome = attempt()
    if not outcome.ok and _clear_stale(git_dir, refs, all_ours=profile is Profile.OWN):
        outcome = attempt()
    if not outcome.ok and (left := [lock for lock in _locks(refs) if _seen(git_dir, lock)]):
        raise GitError(
            f"{refs[0]} cannot be written: {git_dir / left[0]} is in the way",
            details=outcome.describe(),
            hint="Another git is at work there, or was killed: then remove that file, or try again in ten minutes.",
        )
    require_ok(outcome, "git update-ref")
    sync_refs(git_dir, refs)


def sync_refs(git_dir: Path, refs: Sequence[str]) -> None:
    """Make durable where `refs` of the repository are now, which git leaves to the file system. Raises GitError."""
    sync_entries(git_dir, refs)


def sync_objects(git_dir: Path) -> None:
    """Make durable that the packs of the repository are there; their content git has synced. Raises GitError."""
    sync_entries(git_dir, ("objects/pack/any",))


def sync_entries(git_dir: Path, paths: Sequence[str]) -> None:
    """Make the directories on the way to `paths` durable. Raises GitError."""
    try:
        sync_below(git_dir, paths)
    except OSError as error:
        raise GitError(
            f"cannot sync {git_dir}: {(error.strerror or str(error)).lower()}",
            hint="Check that disk, then try again.",
        ) from error


def _locks(refs: Sequence[str]) -> Iterator[str]:
    """The paths in the git directory that stop a transaction over `refs` when they are there."""
    yield from (f"{ref}.lock" for ref in refs)
    yield from _SHARED


def _clear_stale(git_dir: Path, refs: Sequence[str], *, all_ours: bool) -> bool:
    """Remove the locks that nobody holds any more; whether one went away, here or by itself."""
    gone = False
    for lock in _locks(refs):
        ours = all_ours or lock.startswith(_OURS)
        if (seen := _seen(git_dir, lock)) is not None:
            gone |= _outlive(git_dir, lock, seen, OWN_LOCK_S if ours else USER_LOCK_S, wait=ours)
    return gone


def _outlive(git_dir: Path, lock: str, seen: tuple[int, int, float], age_s: float, *, wait: bool) -> bool:
    """Remove the lock `seen` once it is `age_s` seconds old; with `wait`, watch it for so long. Whether it is gone."""
    deadline = time.monotonic() + (age_s if wait else 0.0)
    while time.time() - seen[2] < age_s and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        if _seen(git_dir, lock) != seen:
            return True  # its holder lives
    # A wrong clock may have dated it after now: what did not change while we watched is as good as old.
    if time.time() - seen[2] < age_s and not wait:
        return False
    with suppress(FileNotFoundError), opened_below(git_dir, PurePosixPath(lock).parent) as fd:
        os.unlink(PurePosixPath(lock).name, dir_fd=fd)
    return True


def _seen(git_dir: Path, lock: str) -> tuple[int, int, float] | None:
    """Device, inode and time of change of a lock; None when there is no such file."""
    path = PurePosixPath(lock)
    try:
        with opened_below(git_dir, path.parent) as fd:
            info = os.stat(path.name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return None
    return (info.st_dev, info.st_ino, info.st_mtime) if stat.S_ISREG(info.st_mode) else None
