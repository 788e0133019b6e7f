"""How objects arrive in a repository: in a directory of their own, out of which finished packs are moved.

A git that is killed, or whose disk is full, leaves its half-written pack behind, and in the user's repository nobody
can tell it from one that another git is writing. So ours writes below `objects/tmp_objdir-coding-agents-*`, as git does
with what is pushed. That directory goes with us however we end; when we are killed, the next of us that looks removes
it, for it is locked while its maker lives.

Root works here in directories of other users. It follows a link of theirs into their own directories only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from coding_agents.proc.git import cannot_write
from coding_agents.proc.runner import Owner

_PREFIX = "tmp_objdir-coding-agents-"  # what begins with tmp_ `git prune` removes when it is two weeks old
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FRESH_S = 10.0  # younger ones may be about to be locked
_KINDS = (".pack", ".rev", ".idx")  # in this order: with its index a pack is known


class Arrival(msgspec.Struct, frozen=True):
    """The directory `name` in `objects`, open as `here` and there as `parent`, of `owner` (None: ours)."""

    objects: Path
    name: str
    parent: int
    here: int
    owner: Owner | None

    def env(self, *, alone: bool) -> Mapping[str, str]:
        """What lets a git write here. With `alone` it does not see what the repository has: it completes no thin pack
        from that, and does not stop at an object there that is damaged."""
        place = {"GIT_OBJECT_DIRECTORY": os.fspath(self.objects / self.name)}
        return place if alone else {**place, "GIT_ALTERNATE_OBJECT_DIRECTORIES": as_alternate(self.objects)}

    def keep(self) -> None:
        """Make finished packs part of the repository. Raises GitError.

        One of the same name, which is the hash of its content, is replaced: it may be damaged.
        """
        with _telling(self.objects), _entered(self.here, "pack", owner=self.owner) as arrived:
            with suppress(FileExistsError):
                _make("pack", self.parent, self.owner, mode=os.fstat(self.parent).st_mode & 0o2777)
            with _entered(self.parent, "pack", owner=self.owner) as packs:
                for kind in _KINDS:
                    for name in os.listdir(arrived):  # noqa: PTH208 - of a descriptor
                        if name.endswith(kind):
                            os.rename(name, name, src_dir_fd=arrived, dst_dir_fd=packs)


@contextmanager
def arriving(git_dir: Path, owner: Owner | None) -> Iterator[Arrival]:
    """A place for objects that arrive in `git_dir`, whose owner is `owner`; gone after the block. Raises GitError."""
    foreign = owner if owner is not None and os.geteuid() == 0 and owner.uid != 0 else None
    objects = git_dir / "objects"
    clear_arrivals(git_dir)
    name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    with _telling(objects):
        parent = _enter(objects, owner=foreign)
    try:
        with _telling(objects):
            _make(name, parent, foreign, mode=0o700)
            here = _enter(name, parent, owner=foreign, flags=os.O_NOFOLLOW)
        try:
            with suppress(OSError):  # where directories cannot be locked nobody of us removes one
                fcntl.flock(here, fcntl.LOCK_SH)
            with _telling(objects):
                _make("pack", here, foreign, mode=0o700)
            yield Arrival(objects, name, parent, here, foreign)
        finally:
            os.close(here)
            shutil.rmtree(name, ignore_errors=True, dir_fd=parent)
    finally:
        os.close(parent)


def clear_arrivals(git_dir: Path) -> None:
    """Remove what those of us left in the repository who were killed while objects arrived."""
    for left in (git_dir / "objects").glob(f"{_PREFIX}*"):
        with suppress(OSError):
            fd = _enter(left, flags=os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while its maker lives
                if time.time() - os.fstat(fd).st_mtime > _FRESH_S:
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(fd)


def as_alternate(path: Path) -> str:
    """An object directory for GIT_ALTERNATE_OBJECT_DIRECTORIES, where `:` separates unless the path is quoted."""
    text = str(path)
    if ":" not in text and not text.startswith('"'):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _make(name: str, parent: int, owner: Owner | None, *, mode: int) -> None:
    """A directory in `parent`, of `owner` and of the group that the directory above hands on."""
    os.mkdir(name, 0o700, dir_fd=parent)
    fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        if owner is not None:
            os.fchown(fd, owner.uid, -1 if os.fstat(parent).st_mode & stat.S_ISGID else owner.gid)
        os.fchmod(fd, mode | os.fstat(fd).st_mode & stat.S_ISGID)
    finally:
        os.close(fd)


@contextmanager
def _entered(parent: int, name: str, *, owner: Owner | None = None) -> Iterator[int]:
    """The directory `name` in `parent` for the block; of nobody but `owner` when one is named. Raises OSError."""
    fd = _enter(name, parent, owner=owner)
    try:
        yield fd
    finally:
        os.close(fd)


def _enter(path: Path | str, parent: int | None = None, *, owner: Owner | None = None, flags: int = 0) -> int:
    fd = os.open(path, _DIRECTORY | flags, dir_fd=parent)
    if owner is not None and os.fstat(fd).st_uid != owner.uid:
        os.close(fd)
        raise PermissionError(errno.EPERM, "it belongs to another user")
    return fd


@contextmanager
def _telling(objects: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(objects, error) from error
