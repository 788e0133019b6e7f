"""How much of the host a relay takes: measured at each push, without reading again what earlier pushes left.

A pack never changes, so its sizes are noted once, in the file `packs` of the relay, one line a pack:
`NAME BYTES-ON-DISK BYTES-UNPACKED`. The file only spares work. What a crash kept out of it, a torn line or a lost
file is measured anew from the packs themselves.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from coding_agents.gitsync.pack_scan import MalformedPackError, PackBounds, PackScanner
from coding_agents.gitsync.relay_limits import Usage
from coding_agents.gitsync.relay_repo import Relay
from coding_agents.model.refs import Oid
from coding_agents.proc.tree import entries_below

DRAFT = "repack.new"
"""Where in a relay a repack writes; what is in there counts only when it is done (`gitsync.repack`)."""

_NOTES = "packs"
_LINE = re.compile(rb"(pack-[0-9a-f]{40,64}) ([0-9]{1,18}) ([0-9]{1,18})\n")
_NO_BOUNDS = PackBounds(object_bytes=1 << 62, unpacked_bytes=1 << 62, objects=1 << 32)
_PIECE = 1 << 20
_LEAST_DIRECTORY = 4096
_QUARANTINE = ("tmp_objdir-", "incoming-")  # what git names it since 2.36, and before


class RelayUsage:
    """The sizes of one relay, for any thread."""

    def __init__(self, relay: Relay) -> None:
        self._lock = threading.Lock()
        self._git_dir = relay.git_dir
        self._hash_bytes = 20
        self._packs: dict[str, tuple[int, int]] = {}
        self._noted = False

    def measure(self, refs: Mapping[str, Oid], *, arrived: int | None = None) -> Usage:
        """What the relay holds now, with its `refs`. Raises OSError.

        `arrived` is the unpacked size of the pack of the push that has just ended, when that is known.
        """
        with self._lock:
            self._hash_bytes = max((len(oid) // 2 for oid in refs.values()), default=self._hash_bytes)
            if not self._noted:
                self._packs, self._noted = self._notes(), True
            on_disk, unpacked = self._measure_packs(arrived)
        return Usage(on_disk + self._rest(self._git_dir), unpacked, refs)

    def note(self, name: str, on_disk: int, unpacked: int) -> None:
        """Take the measures of a pack from who has written it, before it is there."""
        with self._lock:
            self._note(name, on_disk, unpacked)

    def sweep(self, *, until: float) -> None:
        """Remove what killed pushes left behind; only where none that lives has begun before `until` (epoch)."""
        for entry in os.scandir(self._git_dir / "objects"):
            if entry.name.startswith(_QUARANTINE):
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime <= until:
                        shutil.rmtree(entry.path, ignore_errors=True)

    def _measure_packs(self, arrived: int | None) -> tuple[int, int]:
        """Bytes on disk and unpacked of everything in objects/pack; packs that are new are noted."""
        directory = self._git_dir / "objects" / "pack"
        names = {entry.name for entry in os.scandir(directory)}
        packs = {name.removesuffix(".idx") for name in names if name.endswith(".idx")}
        new = sorted(packs - self._packs.keys())
        for name in new:
            files = [directory / file for file in names if file.partition(".")[0] == name]
            known = arrived if len(new) == 1 else None
            unpacked = self._scan(directory / f"{name}.pack") if known is None else known
            self._note(name, sum(map(_size, files)), unpacked)
        # What a git of ours is writing is no pack yet.
        whole = (file for file in names if not file.startswith("tmp_"))
        others = (directory / file for file in whole if file.partition(".")[0] not in packs)
        sizes = [self._packs[name] for name in packs]
        return sum(size for size, _ in sizes) + sum(map(_size, others)), sum(size for _, size in sizes)

    def _scan(self, path: Path) -> int:
        """The unpacked size of a pack on disk; what is no pack counts as its own size."""
        scanner = PackScanner(_NO_BOUNDS, hash_bytes=self._hash_bytes)
        try:
            with path.open("rb") as file:
                while data := file.read(_PIECE):
                    scanner.feed(data)
        except MalformedPackError:
            return _size(path)
        return scanner.unpacked

    def _note(self, name: str, on_disk: int, unpacked: int) -> None:
        self._packs[name] = on_disk, unpacked
        with suppress(OSError):  # a full disk costs us the note, and later the measuring
            fd = os.open(
                self._git_dir / _NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600
            )
            try:
                os.write(fd, b"%s %d %d\n" % (name.encode(), on_disk, unpacked))
            finally:
                os.close(fd)

    def _notes(self) -> dict[str, tuple[int, int]]:
        try:
            text = (self._git_dir / _NOTES).read_bytes()
        except OSError:
            return {}
        found = (_LINE.fullmatch(line) for line in text.splitlines(keepends=True))
        return {match[1].decode(): (int(match[2]), int(match[3])) for match in found if match}

    def _rest(self, directory: Path) -> int:
        """Bytes of all files and directories but those in objects/pack and in a repack's draft."""
        but = (os.fspath(self._git_dir / "objects" / "pack"), os.fspath(self._git_dir / DRAFT))
        return sum(_size(entry.path) for entry in entries_below(directory, but=but))


def _size(path: str | Path) -> int:
    try:
        info = os.lstat(path)
    except FileNotFoundError:  # git's own temporary files come and go
        return 0
    # A name for a ref can be thousands of directories, in which a file system may see a few bytes.
    return max(info.st_size, _LEAST_DIRECTORY) if stat.S_ISDIR(info.st_mode) else info.st_size
