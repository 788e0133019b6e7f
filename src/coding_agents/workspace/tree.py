"""Reading below a directory without ever leaving it.

A repository may hold a symbolic link where git still tracks a directory (`lib -> /etc`), and it may change
while we read. So directories are opened one component at a time, without following links, and files
are named relative to an open directory: no path of the repository is ever resolved by the kernel.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that took the place of a file must not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Tree:
    """An open directory tree. Asked for directories in sorted order, it opens each of them once."""

    def __init__(self, root: Path, *, inside: str = "") -> None:
        """`inside` is the path below `root` of the tree that is meant; raises FileNotFoundError behind a link."""
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: list[tuple[str, int]] = []
        if inside:
            found = self.directory(inside)
            outer, self._root = self._root, -1 if found is None else os.dup(found)
            self._close_below(0)
            os.close(outer)
            if found is None:
                raise FileNotFoundError(f"{inside!r} is no directory of the work tree")

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_below(0)
        os.close(self._root)

    def directory(self, path: str) -> int | None:
        """A file descriptor for the directory `path` ("" is the root), valid until the next call.

        None when it does not exist, or is or lies behind a symbolic link. Raises PermissionError.
        """
        parts = path.split("/") if path else []
        if not {"", ".", ".."}.isdisjoint(parts):
            return None  # a crafted index may hold such a path; nothing outside is ever opened
        shared = 0
        while shared < min(len(parts), len(self._open)) and parts[shared] == self._open[shared][0]:
            shared += 1
        self._close_below(shared)
        for part in parts[shared:]:
            try:
                self._open.append((part, os.open(part, _DIRECTORY, dir_fd=self._top())))
            except PermissionError:
                raise
            except OSError:  # ENOENT; for a symbolic link ENOTDIR (Linux) or ELOOP (macOS)
                return None
        return self._top()

    def stat(self, path: str) -> os.stat_result | None:
        """What stands at `path`, links not followed; None when nothing does."""
        parent, _, name = path.rpartition("/")
        directory = self.directory(parent)
        if directory is not None:
            with suppress(FileNotFoundError, NotADirectoryError):
                return os.stat(name, dir_fd=directory, follow_symlinks=False)
        return None

    def read(self, path: str, limit_bytes: int) -> bytes:
        """The beginning of the regular file `path`; empty when it cannot be read."""
        parent, _, name = path.rpartition("/")
        with suppress(OSError):
            directory = self.directory(parent)
            if directory is not None:
                file = open_file(directory, name)
                try:
                    return os.read(file, limit_bytes)
                finally:
                    os.close(file)
        return b""

    def _top(self) -> int:
        return self._open[-1][1] if self._open else self._root

    def _close_below(self, depth: int) -> None:
        while len(self._open) > depth:
            os.close(self._open.pop()[1])


def open_file(directory: int, name: str) -> int:
    """Open `name` in an open directory for reading, not through a link. Raises OSError."""
    return os.open(name, _FILE, dir_fd=directory)


def mtime_s(info: os.stat_result) -> int:
    """The modification time in whole seconds, rounded down as git does."""
    return info.st_mtime_ns // 1_000_000_000


def read_whole(root: Path, name: str) -> tuple[bytes, int]:
    """Content and modification time (whole seconds) of the file `name` in `root`. Raises OSError."""
    with Tree(root) as tree:
        directory = tree.directory("")
        if directory is None:
            raise FileNotFoundError(root)
        with os.fdopen(open_file(directory, name), "rb") as file:
            return file.read(), mtime_s(os.fstat(file.fileno()))
