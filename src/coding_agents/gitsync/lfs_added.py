"""What one session has added to the user's large files (Git LFS), in the file `large-files` of its relay.

One line `SHA-256 SIZE` for each, durable before the file itself is written, and never taken back: a ref of the relay
that named a large file may name another one a moment later, and the file is still there. So a crash in between counts a
file that is not there; it is brought again for nothing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from coding_agents.errors import StoreError
from coding_agents.proc.sync import sync_dir
from coding_agents.store.files import append_fd
from coding_agents_guest.lfspointer import Pointer

_NAME = "large-files"
_LINE = re.compile(rb"([0-9a-f]{64}) ([0-9]{1,18})")
_LEAST = 4096  # the smallest file takes as much of a disk


class Added:
    """The files that the session of the relay `git_dir` has added. Raises StoreError."""

    def __init__(self, git_dir: Path) -> None:
        self._path = git_dir / _NAME
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            text = b""
        except OSError as error:
            raise StoreError(f"cannot read {self._path}: {error.strerror}") from error
        lines = filter(None, map(_LINE.fullmatch, text.split(b"\n")))
        self._files = {Pointer(line[1].decode("ascii"), int(line[2])) for line in lines}
        self.bytes = sum(max(pointer.size, _LEAST) for pointer in self._files)
        """What all of them take."""

    def cost(self, pointer: Pointer) -> int:
        """By how much `bytes` grows with this one."""
        return 0 if pointer in self._files else max(pointer.size, _LEAST)

    def add(self, pointer: Pointer) -> None:
        """Count one that is about to be written. Raises StoreError; then it must not be."""
        if pointer in self._files:
            return
        try:
            fd = os.open(
                self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            try:
                # On a line of its own, whatever a crash has left of the last one.
                append_fd(fd, b"\n%s %d\n" % (pointer.oid.encode("ascii"), pointer.size))
            finally:
                os.close(fd)
            if not self._files:
                sync_dir(self._path.parent)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror}") from error
        self.bytes += self.cost(pointer)
        self._files.add(pointer)
