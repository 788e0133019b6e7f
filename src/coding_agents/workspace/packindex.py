"""Looking up objects in the index of a pack (gitformat-pack(5), version 2) without a process of git."""

from __future__ import annotations

import os
import struct
from bisect import bisect_left
from pathlib import Path
from typing import BinaryIO

from coding_agents.errors import GitError
from coding_agents.model.refs import Oid

_HEADER = b"\377tOc\0\0\0\2"
_FANOUT_BYTES = 256 * 4


def holds(index: Path, oid: Oid) -> bool:
    """Whether the pack of `index` holds `oid`. Raises GitError for another format, OSError."""
    wanted = bytes.fromhex(oid)
    with index.open("rb") as file:
        head = file.read(len(_HEADER) + _FANOUT_BYTES)
        if not head.startswith(_HEADER) or len(head) < len(_HEADER) + _FANOUT_BYTES:
            raise GitError(f"{os.fspath(index)!r} is no index of a pack")
        fanout = struct.unpack_from(">256I", head, len(_HEADER))
        first = fanout[wanted[0] - 1] if wanted[0] else 0
        names = _Names(file, len(head) + first * len(wanted), fanout[wanted[0]] - first, len(wanted))
        place = bisect_left(names, wanted)
        return place < len(names) and names[place] == wanted


class _Names:
    """The sorted ids of `count` objects, each of `size` bytes, that begin at `start` of `file`."""

    def __init__(self, file: BinaryIO, start: int, count: int, size: int) -> None:
        self._file, self._start, self._count, self._size = file, start, count, size

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> bytes:
        self._file.seek(self._start + place * self._size)
        return self._file.read(self._size)
