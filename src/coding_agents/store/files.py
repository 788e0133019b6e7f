"""The only way to write a file of record: whole or not at all, synced, private, never through a symlink."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from coding_agents.errors import StoreError
from coding_agents.proc.sync import sync_dir

_POLL_S = 0.02
_TEMPORARY_S = 600.0
MAX_RECORD = 1 << 20
"""Bytes of a record that is read back; what is longer is not written either."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


def private_dir(path: Path) -> Path:
    """Make sure that `path` is a directory of ours with mode 0700, and return it.

    Parents may be symlinks (people move ~/.local to another disk); `path` itself may not. Raises
    StoreError when it belongs to somebody else: a squatter in /tmp must not read or swap our sockets.
    """
    make_dir(path)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise StoreError(f"{path} is not a directory of ours but a link", hint="Remove it and try again.")
    if info.st_uid != os.geteuid():
        raise StoreError(
            f"{path} belongs to uid {info.st_uid}, not to uid {os.geteuid()}",
            hint="Remove it, or set XDG_STATE_HOME to a directory of your own.",
        )
    if info.st_mode & 0o077:
        path.chmod(0o700)
    return path


def make_dir(path: Path) -> Path:
    """Make the directory `path` (new ones with mode 0700), durably, and return it. Raises StoreError."""
    if path.is_dir():
        return path
    missing = [one for one in (path, *path.parents) if not one.exists()]
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for one in missing:
            sync_dir(one.parent)
    except OSError as error:
        _fail(error, f"cannot make the directory {path}")
    return path


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `data` so that a reader, or a power cut, sees the old content or the new one.

    The file and its directory are synced; what a writer left that was killed is removed when it is ten minutes old.
    Raises StoreError and leaves the old content as it was.
    """
    temporary = ""
    try:
        _sweep_temporaries(path)
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        Path(temporary).replace(path)
        temporary = ""
        sync_dir(path.parent)
    except OSError as error:
        _fail(error, f"cannot write {path}")
    finally:
        if temporary:
            with suppress(OSError):
                Path(temporary).unlink()


def rename_durably(source: Path, target: Path) -> None:
    """Rename `source` to `target`, and make that durable in both directories. Raises OSError."""
    source.rename(target)
    sync_dir(target.parent)
    if source.parent != target.parent:
        sync_dir(source.parent)


def remove_durably(path: Path) -> None:
    """Remove the file `path`, so that it stays gone. A missing one is fine. Raises StoreError."""
    try:
        path.unlink(missing_ok=True)
        sync_dir(path.parent)
    except OSError as error:
        _fail(error, f"cannot remove {path}")


def append_fd(fd: int, data: bytes) -> None:
    """Append to an open file and sync it; a short write is taken back. Raises the OSError."""
    before = os.fstat(fd).st_size
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        sync_data(fd)
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, before)
        raise


def sync_data(fd: int) -> None:
    """Flush a file's data; macOS has no fdatasync, and its fsync leaves data in the drive's cache."""
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        fcntl.fcntl(fd, full_sync)
    else:
        os.fdatasync(fd)


def read_record(path: Path, *, limit: int = MAX_RECORD) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises StoreError; FileNotFoundError passes."""
    try:
        # O_NONBLOCK: a FIFO planted under this name must not hang us.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise StoreError(f"{path} is not a regular file")
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        _fail(error, f"cannot read {path}")
    if len(data) > limit:
        raise StoreError(f"{path} is larger than {limit} bytes")
    return data


@contextmanager
def locked(path: Path, *, timeout_s: float = 10.0, shared: bool = False) -> Iterator[int]:
    """Hold the advisory lock of the file `path` for the block; yields its descriptor, open for appending.

    The kernel drops the lock when the holder dies, so no lock is ever stale. `timeout_s` 0 tries once.
    Raises StoreError when another process keeps it.
    """
    deadline = time.monotonic() + timeout_s
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        fd = _try_lock(path, kind)
        if fd is not None:
            break
        if time.monotonic() >= deadline:
            raise StoreError(
                f"{path} is locked by another coding-agents process",
                hint="Wait until it has finished, then try again.",
            )
        time.sleep(_POLL_S)
    try:
        yield fd
    finally:
        os.close(fd)


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock of `path` now. A missing file is not locked."""
    if not path.exists():
        return False
    fd = _try_lock(path, fcntl.LOCK_SH)
    if fd is None:
        return True
    os.close(fd)
    return False


def _try_lock(path: Path, kind: int) -> int | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        _fail(error, f"cannot open the lock {path}")
    held = False
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        # The holder before us may have removed the file: a lock on an unlinked inode locks nobody out.
        here = os.fstat(fd)
        there = path.lstat()
        held = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
    except (BlockingIOError, FileNotFoundError):
        held = False
    except OSError as error:
        _fail(error, f"cannot lock {path}")
    finally:
        if not held:
            os.close(fd)
    return fd if held else None


def _sweep_temporaries(path: Path) -> None:
    """Remove temporary files of `write_atomic` for `path` that no living writer can still mean to rename."""
    for entry in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - entry.lstat().st_mtime > _TEMPORARY_S:
                entry.unlink()


def _fail(error: OSError, what: str) -> NoReturn:
    hint = {
        errno.ENOSPC: "Free some space on that disk and try again.",
        errno.EDQUOT: "Your disk quota is used up: free some space and try again.",
        errno.EROFS: "That file system is read-only: set XDG_STATE_HOME to another directory.",
        errno.EACCES: "Check the owner and the mode of that directory.",
        errno.EPERM: "Check the owner and the mode of that directory.",
        errno.ELOOP: "Files of record are never followed through symbolic links: remove it.",
    }.get(error.errno or 0, "")
    reason = "the disk is full" if error.errno in _FULL else (error.strerror or str(error)).lower()
    raise StoreError(f"{what}: {reason}", hint=hint) from error
