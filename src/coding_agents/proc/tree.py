"""Walk and remove trees of which somebody else has chosen the depth: without recursion, through no link.

A ref of git may be two thousand directories deep; `os.walk` and `shutil.rmtree` end at a thousand (CPython 3.11).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def entries_below(top: Path, *, but: Collection[str] = ()) -> Iterator[os.DirEntry[str]]:
    """All that is below `top`, except below the directories `but`. What goes away meanwhile is left out."""
    left = [os.fspath(top)]
    while left:
        directory = left.pop()
        if directory in but:
            continue
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)


def remove_tree(top: Path) -> None:
    """Remove the directory `top` with all that is in it. Raises OSError.

    Each directory is moved up to `top` before it is emptied, so that neither its depth nor the length of its path
    matters.
    """
    mark = secrets.token_hex(8)
    fd = os.open(top, _DIRECTORY)
    try:
        left = _empty(fd, fd, mark, 0)
        made = len(left)
        while left:
            name = left.pop()
            inner = os.open(name, _DIRECTORY, dir_fd=fd)
            try:
                found = _empty(inner, fd, mark, made)
            finally:
                os.close(inner)
            made += len(found)
            left += found
            os.rmdir(name, dir_fd=fd)
    finally:
        os.close(fd)
    top.rmdir()


def _empty(directory: int, top: int, mark: str, number: int) -> list[str]:
    """Remove the files of `directory` and move its directories to `top`; returns what they are called there."""
    with os.scandir(directory) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    names: list[str] = []
    for name, is_dir in entries:
        if is_dir:
            names.append(f"{mark}-{number + len(names)}")
            os.rename(name, names[-1], src_dir_fd=directory, dst_dir_fd=top)
        else:
            os.unlink(name, dir_fd=directory)
    return names
