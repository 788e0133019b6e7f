"""The only way to move refs: durable when the call returns, and past the locks that a killed git left behind.

git makes `REF.lock` and renames it, and so with `packed-refs`. When it is killed in between, the lock stays and every
later git, the user's too, refuses to touch that ref; git itself leaves it to a person to remove the file. So:

- In our own repositories no lock is older than our gits, which hold one for milliseconds: what does not change for
  OWN_LOCK_S is removed, when it is in the way, and before a relay is served again.
- In the user's repository a note in the git directory, locked as long as we live, says which refs we are about to
  move. A note whose writer died makes the locks on these refs ours; they go in the same way, and then the note.
  No other lock there is ever touched: the error names it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from coding_agents.errors import GitError
from coding_agents.proc.git import Profile, cannot_write, git, require_ok
from coding_agents.proc.runner import Outcome, Owner
from coding_agents.proc.sync import on_the_way, opened_below, sync_below
from coding_agents.proc.tree import entries_below

OWN_LOCK_S = 10.0
_POLL_S = 0.1
_OURS = "refs/coding-agents/"
_NOTE = "coding-agents-moving-"
_MAX_NOTE = 1 << 20
# `packed-refs.new` is no lock, but git makes it anew and stops when it is there.
_SHARED = ("packed-refs.lock", "packed-refs.new", "HEAD.lock")
_Seen = tuple[int, int, float]


def update_refs(
    commands: Sequence[str],
    *,
    profile: Profile,
    env: Mapping[str, str],
    git_dir: Path,
    owner: Owner | None = None,
    message: str = "",
) -> None:
    """Carry out commands of `git update-ref --stdin` as one transaction: `update REF NEW [OLD]`, `create`, `delete`.

    `message` is for the reflogs. A crash leaves each ref where it was or where it was to go. Raises GitError; then no
    ref was moved.
    """
    refs = [command.split(" ", 2)[1] for command in commands]
    stdin = "".join(f"{command}\n" for command in commands).encode("utf-8", "surrogateescape")

    def attempt() -> Outcome:
        return git(
            ("update-ref", *(("-m", message) if message else ()), "--stdin"),
            profile=profile,
            env=env,
            git_dir=git_dir,
            owner=owner,
            stdin=stdin,
            check=False,
        )

    locks = _locks(refs)
    changing = _changing(git_dir, commands)
    if profile is Profile.OWN:
        outcome = attempt()
        if not outcome.ok and _clear(git_dir, locks):
            outcome = attempt()
    else:
        clear_abandoned(git_dir)
        with _note(git_dir, refs, owner):
            outcome = attempt()
            ours = locks if outcome.status < 0 else [lock for lock in locks if lock.startswith(_OURS)]
            if not outcome.ok and _clear(git_dir, ours):
                outcome = attempt()
    if not outcome.ok and (left := [lock for lock in locks if _seen(git_dir, lock)]):
        raise GitError(
            f"{refs[0]} cannot be written: {git_dir / left[0]} is in the way",
            details=outcome.describe(),
            hint="Another git is at work there, or was killed: when none runs any more, remove that file.",
        )
    require_ok(outcome, "git update-ref")
    _sync(git_dir, changing)


def sweep_locks(git_dir: Path) -> None:
    """Remove every lock on refs that a killed git left in a repository of ours. Waits for those that are fresh."""
    found = (entry.path for entry in entries_below(git_dir / "refs") if entry.name.endswith(".lock"))
    _clear(git_dir, [*(os.path.relpath(path, git_dir) for path in found), *_SHARED])


def clear_abandoned(git_dir: Path) -> None:
    """Remove the locks that our gits left in the user's repository when they were killed together with us."""
    for note in git_dir.glob(f"{_NOTE}*"):
        try:
            fd = os.open(note, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            refs = os.read(fd, _MAX_NOTE).decode("utf-8", "surrogateescape").splitlines()
            _clear(git_dir, _locks([ref for ref in refs if ref.startswith("refs/") and ".." not in ref]))
            note.unlink(missing_ok=True)
        except BlockingIOError:
            continue  # its writer lives
        finally:
            os.close(fd)


def sync_refs(git_dir: Path, refs: Sequence[str]) -> None:
    """Make durable where `refs` of the repository are now, which git leaves to the file system. Raises GitError."""
    _sync(git_dir, on_the_way(refs))


def sync_objects(git_dir: Path) -> None:
    """Make durable that the packs of the repository are there; their content git has synced. Raises GitError."""
    _sync(git_dir, on_the_way(("objects/pack/any",)))


def _changing(git_dir: Path, commands: Sequence[str]) -> set[PurePosixPath]:
    """The directories whose entries these commands are about to change."""
    directories = {PurePosixPath(command.split(" ", 2)[1]).parent for command in commands}
    above = {parent for directory in directories for parent in (directory, *directory.parents)}
    made = {directory.parent for directory in above if not (git_dir / directory).is_dir()}
    packed = {PurePosixPath()} if any(command.startswith("delete ") for command in commands) else set()
    return directories | made | packed


def _sync(git_dir: Path, directories: Iterable[PurePosixPath]) -> None:
    try:
        sync_below(git_dir, directories)
    except OSError as error:
        raise GitError(
            f"cannot sync {git_dir}: {(error.strerror or str(error)).lower()}",
            hint="Check that disk, then try again.",
        ) from error


@contextmanager
def _note(git_dir: Path, refs: Sequence[str], owner: Owner | None) -> Iterator[None]:
    """Say for the block, to whoever comes after us, that we move `refs`. Raises GitError."""
    name = f"{_NOTE}{os.getpid()}-{secrets.token_hex(4)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(git_dir / name, flags, 0o600)
    except OSError as error:
        raise cannot_write(git_dir, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if owner is not None and os.geteuid() == 0:
            os.fchown(fd, owner.uid, owner.gid)
        with suppress(OSError):  # on a full disk git says so itself
            os.write(fd, "".join(f"{ref}\n" for ref in refs).encode("utf-8", "surrogateescape"))
            os.fsync(fd)
        yield
    finally:
        (git_dir / name).unlink(missing_ok=True)
        os.close(fd)


def _locks(refs: Sequence[str]) -> list[str]:
    """The paths in the git directory that stop a transaction over `refs` when they are there."""
    return [*(f"{ref}.lock" for ref in refs), *_SHARED]


def _clear(git_dir: Path, locks: Sequence[str]) -> bool:
    """Remove those of `locks` that nobody holds any more; whether one went away, here or by itself.

    A wrong clock may have dated one after now: what does not change while we watch is as good as old.
    """
    seen = {lock: one for lock in locks if (one := _seen(git_dir, lock)) is not None}
    deadline = time.monotonic() + OWN_LOCK_S
    for lock, one in seen.items():
        while time.time() - one[2] < OWN_LOCK_S and time.monotonic() < deadline:
            if _seen(git_dir, lock) != one:
                break  # its holder lives
            time.sleep(_POLL_S)
        else:
            with suppress(FileNotFoundError), opened_below(git_dir, PurePosixPath(lock).parent) as fd:
                os.unlink(PurePosixPath(lock).name, dir_fd=fd)
    return bool(seen)


def _seen(git_dir: Path, lock: str) -> _Seen | None:
    """Device, inode and time of change of a lock; None when there is no such file."""
    path = PurePosixPath(lock)
    try:
        with opened_below(git_dir, path.parent) as fd:
            info = os.stat(path.name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return None
    return (info.st_dev, info.st_ino, info.st_mtime) if stat.S_ISREG(info.st_mode) else None
