"""Kernel limits of the processes that we run on what a guest or a repository gave us."""

from __future__ import annotations

import os
import resource
from contextlib import suppress

import msgspec

_OPTIONS = {
    resource.RLIMIT_CPU: "cpu",
    resource.RLIMIT_AS: "as",
    resource.RLIMIT_FSIZE: "fsize",
    resource.RLIMIT_NOFILE: "nofile",
}


class ProcessLimits(msgspec.Struct, frozen=True):
    """Kernel limits of a process and, each by itself, of those that it starts: seconds of CPU, bytes of address
    space and of one file, open files; and how far it stands back for others (`nice`)."""

    cpu_s: int
    memory_bytes: int
    file_bytes: int
    open_files: int
    niceness: int = 0


def restrict(pid: int, limits: ProcessLimits) -> None:
    """Put a running process of ours, and all that it starts from now on, under `limits`; none is ever raised.

    Between fork and exec Python code may not run beside threads, and a program in front that sets limits takes
    longer than this system call; so they come a moment after the start. Whoever feeds the process hostile bytes
    does it afterwards.
    """
    with suppress(ProcessLookupError):  # it has ended already
        for kind, most in _wanted(limits):
            lowest = _lowest(most, resource.prlimit(pid, kind)[1])
            resource.prlimit(pid, kind, (lowest, lowest))
        if limits.niceness > os.getpriority(os.PRIO_PROCESS, pid):
            os.setpriority(os.PRIO_PROCESS, pid, limits.niceness)


def limiting_words(limits: ProcessLimits) -> tuple[str, ...]:
    """The words in front of a command run as somebody else: prlimit(1), which sets what `restrict` sets but `nice`.

    The limits of another user's process only that user may set, or who has CAP_SYS_RESOURCE (prlimit(2)).
    """
    words = (
        f"--{_OPTIONS[kind]}={_lowest(most, resource.getrlimit(kind)[1])}" for kind, most in _wanted(limits)
    )
    return ("prlimit", *words, "--")


def _lowest(most: int, hard: int) -> int:
    return most if hard == resource.RLIM_INFINITY else min(most, hard)


def _wanted(limits: ProcessLimits) -> tuple[tuple[int, int], ...]:
    return (
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
    )
