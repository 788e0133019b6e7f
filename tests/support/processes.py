"""Processes as /proc shows them, and killing one of them and no other."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from pathlib import Path


def pids() -> list[int]:
    """Every process."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def namespace(pid: int) -> str:
    """The pid namespace of a process, "" when it has ended."""
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    return ""


def command_line(pid: int) -> str:
    """Its words, each with a blank behind it; "" when it has ended."""
    with suppress(OSError):
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).replace("\0", " ")
    return ""


def parent(pid: int) -> int:
    """Its parent, 0 when it has ended."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    return 0


class Victim:
    """A process that is to be killed, and nobody who has its number later."""

    def __init__(self, pid: int) -> None:
        self._file = -1
        with suppress(ProcessLookupError):
            self._file = os.pidfd_open(pid)

    def kill(self) -> bool:
        """SIGKILL; False when it has ended by itself."""
        if self._file < 0:
            return False
        try:
            ended, _, _ = select.select([self._file], [], [], 0)
            if ended:
                return False
            signal.pidfd_send_signal(self._file, signal.SIGKILL)
        except ProcessLookupError:
            return False
        finally:
            os.close(self._file)
        return True
