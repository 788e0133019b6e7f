"""Where a repository keeps the content of large files (Git LFS), to read from and to add to.

The layout is git-lfs's own: `objects/aa/bb/<sha256>` below `<common dir>/lfs`, or where `lfs.storage` says. What is
added belongs to the repository's owner, appears whole or not at all, and replaces nothing. No link is passed on the
way there: root writes for other users, and what they can link to is not theirs. For the same reason root reads and
writes only what belongs to the repository's owner.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from coding_agents.errors import StoreError
from coding_agents.model.repo import RepoFacts, RepoKind
from coding_agents.proc.git import Profile, git, owner_of
from coding_agents_guest.lfspointer import Pointer

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECTORY = _FLAGS | os.O_RDONLY | os.O_DIRECTORY
_OBJECTS, _DRAFTS = "objects", "tmp"


class LfsStore(msgspec.Struct, frozen=True):
    """The directories `below` in `anchor`, which is trusted to be what it is; of the user `uid` and `gid`."""

    anchor: Path
    below: tuple[str, ...]
    uid: int
    gid: int

    @property
    def path(self) -> Path:
        """The directory that holds `objects`."""
        return self.anchor.joinpath(*self.below)

    @property
    def is_there(self) -> bool:
        """Whether anything was ever kept here."""
        return (self.path / _OBJECTS).is_dir()

    def open(self, pointer: Pointer) -> int | None:
        """The content of `pointer`, to read; None when it is not here with that size. To be closed by the caller."""
        with suppress(OSError, StoreError), self._directory(*_place(pointer.oid), make=False) as directory:
            file = os.open(pointer.oid, _FLAGS | os.O_RDONLY | os.O_NONBLOCK, dir_fd=directory)
            info = os.fstat(file)
            if stat.S_ISREG(info.st_mode) and info.st_size == pointer.size and self._may_be_used(info):
                return file
            os.close(file)
        return None

    def has(self, pointer: Pointer) -> bool:
        """Whether the content is here, by its name and size."""
        file = self.open(pointer)
        if file is not None:
            os.close(file)
        return file is not None

    def add(self, pointer: Pointer, content: Iterator[bytes]) -> bool:
        """Keep `content`, unless it is not what `pointer` names: that is False, and nothing is kept.

        Raises StoreError when it cannot be written, and when something else is there by its name.
        """
        if not self.below and not self._is_foreign:
            with suppress(OSError):  # git-lfs makes it, too; the next line tells what is wrong
                self.anchor.mkdir(parents=True, exist_ok=True)
        with (
            self._directory(_DRAFTS, make=True) as drafts,
            self._directory(*_place(pointer.oid), make=True) as directory,
        ):
            draft = f"coding-agents-{os.getpid()}-{pointer.oid}"
            try:
                if not self._write(drafts, draft, pointer, content):
                    return False
                _put(drafts, draft, directory, pointer.oid)
                os.fsync(directory)
            except OSError as error:
                raise StoreError(f"cannot write {self.path}/{_OBJECTS}: {error.strerror or error}") from error
            finally:
                with suppress(OSError):
                    os.unlink(draft, dir_fd=drafts)
        if not self.has(pointer):
            place = self.path.joinpath(*_place(pointer.oid), pointer.oid)
            raise StoreError(f"{place} is there and is not what it is called", hint="Move that file away.")
        return True

    def _write(self, drafts: int, draft: str, pointer: Pointer, content: Iterator[bytes]) -> bool:
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=drafts)
        descriptor = os.open(draft, _FLAGS | os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=drafts)
        with os.fdopen(descriptor, "wb") as file:
            sha256, left = hashlib.sha256(), pointer.size
            for chunk in content:
                left -= len(chunk)
                if left < 0:
                    return False
                sha256.update(chunk)
                file.write(chunk)
            if left or sha256.hexdigest() != pointer.oid:
                return False
            file.flush()
            self._give(descriptor, os.fstat(drafts).st_mode & 0o666)
            os.fsync(descriptor)
        return True

    @contextmanager
    def _directory(self, *names: str, make: bool) -> Iterator[int]:
        """The directory `names` below ours, opened without passing a link."""
        try:
            here = os.open(self.anchor, _DIRECTORY if self.below else _DIRECTORY & ~os.O_NOFOLLOW)
        except OSError as error:
            raise StoreError(f"cannot open {self.anchor}: {error.strerror}") from error
        at = self.anchor
        try:
            self._require_ours(here, at)
            for name in (*self.below, *names):
                at /= name
                inner = self._enter(here, name, at, make=make)
                os.close(here)
                here = inner
                self._require_ours(here, at)
            yield here
        finally:
            os.close(here)

    def _enter(self, parent: int, name: str, shown: Path, *, make: bool) -> int:
        try:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=parent)
                    made = os.open(name, _DIRECTORY, dir_fd=parent)
                    self._give(made, os.fstat(parent).st_mode & 0o2777)
                    return made
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError as error:
            if stat.S_ISLNK(_mode(parent, name)):
                raise StoreError(
                    f"{shown} is a symbolic link, through which nothing is written",
                    hint="Name the directory itself: `git config lfs.storage DIRECTORY`.",
                ) from error
            raise StoreError(f"cannot use the directory {shown}: {error.strerror}") from error

    def _give(self, descriptor: int, mode: int) -> None:
        """As visible as the directory above, and the owner's."""
        if self._is_foreign:
            os.fchown(descriptor, self.uid, self.gid)
        os.fchmod(descriptor, mode)

    def _require_ours(self, directory: int, shown: Path) -> None:
        if not self._may_be_used(os.fstat(directory)):
            raise StoreError(f"{shown} does not belong to the owner of the repository (uid {self.uid})")

    def _may_be_used(self, info: os.stat_result) -> bool:
        return not self._is_foreign or info.st_uid == self.uid

    @property
    def _is_foreign(self) -> bool:
        """Whether we are root in the repository of another user."""
        return os.geteuid() == 0 and self.uid != 0


def lfs_store(repo: RepoFacts, configured: str) -> LfsStore:
    """Where `repo` keeps large files; `configured` is the value of `lfs.storage`, "" when it is not set."""
    if not configured:
        return LfsStore(repo.common_dir, ("lfs",), repo.owner_uid, repo.owner_gid)
    return LfsStore(repo.common_dir / configured, (), repo.owner_uid, repo.owner_gid)


def find_lfs_store(repo: RepoFacts, env: Mapping[str, str]) -> LfsStore:
    """The same, with the configuration of the repository and its user. Raises GitError."""
    found = git(
        ("config", "--get", "lfs.storage"),
        profile=Profile.USER_READ if repo.kind is RepoKind.PATH else Profile.OWN,
        env=env, git_dir=repo.git_dir, owner=owner_of(repo), check=False,
    )  # fmt: skip
    return lfs_store(repo, os.fsdecode(found.stdout.removesuffix(b"\n")) if found.ok else "")


def _place(oid: str) -> tuple[str, str, str]:
    return _OBJECTS, oid[:2], oid[2:4]


def _put(drafts: int, draft: str, directory: int, name: str) -> None:
    """Give a finished draft its name, which must be free; where it is not, the content is there already."""
    with suppress(FileExistsError):
        try:
            os.link(draft, name, src_dir_fd=drafts, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if _mode(directory, name):
                return
            os.rename(draft, name, src_dir_fd=drafts, dst_dir_fd=directory)


def _mode(directory: int, name: str) -> int:
    """Type and mode of an entry, 0 when there is none."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except OSError:
        return 0
