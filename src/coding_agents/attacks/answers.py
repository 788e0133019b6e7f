"""What all attacks share: making a call and telling what the kernel answered.

Nothing here judges.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator

_PATIENCE_S = 1.5
_libc = ctypes.CDLL(None, use_errno=True)


def answer_of(attempt: Callable[[], object]) -> str:
    """Empty when the attempt succeeded, else the name of the kernel's error."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return ""


def run_program(argv: tuple[str, ...]) -> str:
    """Empty when the program did its work, else how it ended; one that waits for somebody has not."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    return "" if done.returncode == 0 else f"status {done.returncode}"


def kernel_call(what: object, *arguments: object) -> int:
    """A C function by its name, or a system call by its number. Raises OSError when it returns -1."""
    function, given = (
        (_libc.syscall, (what, *arguments)) if isinstance(what, int) else (_libc[str(what)], arguments)
    )
    result = function(*given)
    if result == -1:
        raise OSError(ctypes.get_errno(), str(what))
    return int(result)


def in_a_child(attempt: Callable[[], object]) -> str:
    """`answer` in a process of its own, which is over when its namespaces have changed."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writable, answer_of(attempt).encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def bind(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path)


def can_make_a_file(directory: str) -> bool:
    path = f"{directory}/hostile-{os.getpid()}"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError:
        return False
    os.unlink(path)
    return True


def directories(top: str) -> Iterator[str]:
    """All directories that can be reached, links not followed."""
    for directory, names, _ in os.walk(top):
        names.sort()
        yield directory


def names_in(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def entries_in(directory: str) -> list[os.DirEntry[str]]:
    """The entries of a directory, with the kinds that it knows of them."""
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []


def holds(path: str, wanted: bytes) -> bool:
    try:
        if path.startswith("/proc/") or stat.S_ISREG(os.lstat(path).st_mode):
            with open(path, "rb") as file:
                return wanted in file.read()
    except OSError:
        pass
    return False


def all_pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def real_uid(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Uid:"))
