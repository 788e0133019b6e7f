"""Opening a file of a hostile tree: no link is followed, no pipe waited for, no directory or device taken for one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_MAX_SMALL = 1 << 16


@contextmanager
def open_regular(path: Path) -> Iterator[IO[bytes] | None]:
    """The regular file at `path`, to read; None when something else stands there. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Before a file object is made: of a directory there is none, and its descriptor would stay open.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            yield None
            return
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_small(path: Path, limit: int = _MAX_SMALL) -> bytes:
    """The content of a regular file of at most `limit` bytes; b"" for everything else."""
    with suppress(OSError), open_regular(path) as file:
        if file is not None:
            data = file.read(limit + 1)
            return data if len(data) <= limit else b""
    return b""
