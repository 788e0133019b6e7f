"""Attacks on resources: what the limits are, and what becomes of who goes beyond."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import signal
import time
from contextlib import suppress


def limits() -> dict[str, int]:
    """The cgroup's limits as the kernel words them: bytes, processes, and CPU microseconds a 100 000; -1 for none."""
    files = {
        "memory": ("memory.max", "memory/memory.limit_in_bytes"),
        "memory and swap": ("", "memory/memory.memsw.limit_in_bytes"),
        "swap": ("memory.swap.max", ""),
        "pids": ("pids.max", "pids/pids.max"),
        "cpu quota": ("", "cpu/cpu.cfs_quota_us"),
        "cpu period": ("", "cpu/cpu.cfs_period_us"),
        "cpu": ("cpu.max", ""),
    }
    version = 0 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1
    found = {}
    for name, paths in files.items():
        with suppress(OSError, IndexError):
            if paths[version]:
                with open(f"/sys/fs/cgroup/{paths[version]}") as file:
                    words = file.read().split()
                first = -1 if words[0] == "max" else int(words[0])
                found.update({name: first} if len(words) == 1 else
                             {"cpu quota": first, "cpu period": int(words[1])})  # fmt: skip
    return found


def rlimits() -> dict[str, list[int]]:
    """Soft and hard limits of our own process (getrlimit(2)); -1 where there is none."""
    names = {"core": resource.RLIMIT_CORE, "files": resource.RLIMIT_NOFILE, "size": resource.RLIMIT_FSIZE}
    return {name: list(resource.getrlimit(number)) for name, number in names.items()}


def end_by_memory(most_bytes: int) -> str:
    """How a child ends that takes so much memory: "lived" when it was given all of it."""
    child = os.fork()
    if child == 0:
        with suppress(MemoryError):
            hoard(most_bytes)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    return "lived" if status == 0 else "killed" if os.WIFSIGNALED(status) else "refused"


def bomb(most: int, hold_s: float) -> dict[str, object]:
    """Fork until the kernel refuses (or `most`), stay so for a while, then end the children again."""
    children: list[int] = []
    refused = ""
    while len(children) < most and not refused:
        try:
            child = os.fork()
        except OSError as error:
            refused = errno.errorcode[error.errno or 0]
            break
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
    time.sleep(hold_s)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return {"children": len(children), "refused": refused}


def flood_descriptors(processes: int, hold_s: float) -> dict[str, list[object]]:
    """Open files without end in so many processes at once, and stay so for a while; what each had and was told.

    A process that the kernel ended tells "killed".
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    readable, writable = os.pipe()
    children = []
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            count, refused = 0, ""
            while not refused:
                try:
                    os.open("/dev/null", os.O_RDONLY)
                    count += 1
                except OSError as error:
                    refused = errno.errorcode[error.errno or 0]
            os.write(writable, f"{count} {refused}\n".encode())
            time.sleep(60)
            os._exit(0)
        children.append(child)
    os.close(writable)
    time.sleep(hold_s)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with os.fdopen(readable) as pipe:
        told = [line.split() for line in pipe]
    answers: list[object] = [refused for _, refused in told]
    return {
        "opened": [int(count) for count, _ in told],
        "refused": answers + ["killed"] * (processes - len(told)),
    }


def disk_seconds(path: str, size: int) -> dict[str, float]:
    """How long it takes to write so many bytes to the disk itself, and to read them from it."""
    piece = 1 << 20
    began = time.monotonic()
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    for _ in range(size // piece):
        os.write(descriptor, os.urandom(piece))
    os.fsync(descriptor)
    os.close(descriptor)
    written = time.monotonic()
    with mmap.mmap(-1, piece) as aligned:  # O_DIRECT wants its memory at the beginning of a page
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        while os.readv(descriptor, [aligned]):
            pass
        os.close(descriptor)
    read = time.monotonic()
    os.unlink(path)
    return {"write": written - began, "read": read - written}


def hoard(most_bytes: int) -> int:
    """Take memory and touch it; returns how much there was, if one lives to tell."""
    held = []
    for _ in range(most_bytes >> 24):
        held.append(b"x" * (1 << 24))
    return len(held) << 24
