"""Ends what ran on a terminal that has gone: an engine does not tell the program that its client was killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Hang up the programs on a terminal whose environment has the one argument, `NAME=VALUE`."""
    if len(arguments) != 1 or "=" not in arguments[0]:
        print("hangup: takes NAME=VALUE", file=sys.stderr)
        return 2
    for pid in leaders(arguments[0], Path("/proc")):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGHUP)
            os.kill(pid, signal.SIGCONT)  # a stopped one would not hear it
    return 0


def leaders(mark: str, proc: Path) -> Iterator[int]:
    """The processes with `mark` in their environment that lead the session of a terminal.

    What they have started in the background on purpose is not among them: it has another session, or no terminal.
    """
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            session, terminal = int(fields[3]), int(fields[4])
            marked = mark.encode() in (entry / "environ").read_bytes().split(b"\0")
            if marked and session == int(entry.name) and terminal != 0:
                yield session
