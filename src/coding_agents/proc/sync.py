"""Make directory entries durable, and walk below a directory without following a link.

A file that was synced is not there after a power cut unless the directory that names it was synced, too
(fsync(2)). git syncs files and never directories, so whoever moves objects or refs calls this afterwards.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# What a file system says that cannot sync directories: there is nothing more that we could do.
_CANNOT = (errno.EINVAL, errno.ENOTSUP)


def sync_dir(path: Path) -> None:
    """Make the entries of the directory `path` durable. Raises OSError."""
    fd = os.open(path, _DIRECTORY)
    try:
        _sync(fd)
    finally:
        os.close(fd)


def on_the_way(paths: Iterable[str]) -> set[PurePosixPath]:
    """The directories above each of the relative `paths`, up to the top, which is `.`."""
    return {parent for path in paths for parent in PurePosixPath(path).parents}


def sync_below(top: Path, directories: Iterable[PurePosixPath]) -> None:
    """Make durable the entries of these directories below `top`, the deepest first.

    What is gone meanwhile is left out. No link below `top` is followed. Raises OSError.
    """
    for directory in sorted(directories, key=lambda one: len(one.parts), reverse=True):
        try:
            with opened_below(top, directory) as fd:
                _sync(fd)
        except (FileNotFoundError, NotADirectoryError):
            continue


def sync_tree(top: Path) -> None:
    """Make every file and directory of the tree `top` durable. Raises OSError."""
    for directory, _, names in os.walk(top, topdown=False):
        for name in names:
            path = Path(directory, name)
            if path.is_symlink():
                continue
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                _sync(fd)
            finally:
                os.close(fd)
        sync_dir(Path(directory))


@contextmanager
def opened_below(top: Path, directory: PurePosixPath) -> Iterator[int]:
    """A descriptor of `directory` below `top` for the block; no link on the way is followed. Raises OSError."""
    fd = os.open(top, _DIRECTORY)
    try:
        for part in directory.parts:
            below = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _sync(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
