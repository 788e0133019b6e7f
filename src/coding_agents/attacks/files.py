"""Attacks on the file system: what can be written, replaced, opened or made."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress

from coding_agents.attacks.answers import (
    answer_of,
    bind,
    can_make_a_file,
    directories,
    entries_in,
    kernel_call,
    names_in,
)


def mounts() -> list[dict[str, str]]:
    """/proc/self/mountinfo (proc_pid_mountinfo(5)): root, point, options, type and source of each mount."""
    found = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            before, after = left.split(), right.split()
            found.append(
                {
                    "root": before[3],
                    "point": before[4],
                    "options": before[5],
                    "type": after[0],
                    "source": after[1],
                }
            )
    return found


def writable_mounts() -> dict[str, str]:
    """The mounts in some directory of which a file can be made, by mount point, with that directory.

    Every directory of every mount is tried, of the kernel's trees only what is no process's own.
    """
    points = sorted((one["point"] for one in mounts()), key=len, reverse=True)
    found: dict[str, str] = {}
    for directory in directories("/"):
        if re.match(r"/proc/([0-9]+|self|thread-self)(/|$)", directory):
            continue
        if can_make_a_file(directory):
            point = next(p for p in points if p == "/" or directory == p or directory.startswith(p + "/"))
            found.setdefault(point, directory)
    return found


def refusals_in_the_root() -> dict[str, int]:
    """How making a file was refused, by the error's name, in each directory of the root file system."""
    device = os.lstat("/").st_dev
    counts: dict[str, int] = {}
    for directory in directories("/"):
        with suppress(FileNotFoundError):  # of a process that has just ended
            if os.lstat(directory).st_dev == device:
                refusal = answer_of(lambda at=directory: os.mkdir(at + "/hostile"))
                counts[refusal] = counts.get(refusal, 0) + 1
    return counts


def privileged_files() -> list[str]:
    """Programs that would run as somebody else, or with capabilities of their own."""
    found = []
    for directory in directories("/"):
        for entry in entries_in(directory):
            with suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    mode = entry.stat(follow_symlinks=False).st_mode
                    if mode & 0o6000 or (mode & 0o111 and "security.capability" in os.listxattr(entry.path)):
                        found.append(entry.path)
    return found


def sockets_and_devices() -> dict[str, list[str]]:
    """Every socket, block device and (as "path major:minor") character device in the file system."""
    found: dict[str, list[str]] = {"socket": [], "block": [], "character": []}
    kinds = {stat.S_IFSOCK: "socket", stat.S_IFBLK: "block", stat.S_IFCHR: "character"}
    for directory in directories("/"):
        for entry in entries_in(directory):
            with suppress(OSError):
                if (
                    entry.is_file(follow_symlinks=False)
                    or entry.is_symlink()
                    or entry.is_dir(follow_symlinks=False)
                ):
                    continue  # known from the directory, without a look at the file
                info = entry.stat(follow_symlinks=False)
                if kind := kinds.get(stat.S_IFMT(info.st_mode)):
                    number = f" {os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
                    found[kind].append(entry.path + (number if kind == "character" else ""))
    return {kind: sorted(paths) for kind, paths in found.items()}


def open_for_writing(trees: list[str]) -> list[str]:
    """Files below `trees`, less those of processes, that can be opened for writing. Nothing is written."""
    found = []
    for tree in trees:
        for directory in directories(tree):
            if re.match(r"/proc/([0-9]+|self|thread-self)(/|$)", directory):
                continue
            for name in names_in(directory):
                path = os.path.join(directory, name)
                with suppress(OSError):
                    if stat.S_ISREG(os.lstat(path).st_mode):
                        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                        found.append(path)
    return found


def masked_bytes(paths: list[str]) -> dict[str, int]:
    """How many bytes, or entries of a directory, each of the paths that exist gives away."""
    found = {}
    for path in paths:
        with suppress(FileNotFoundError, PermissionError):
            if os.path.isdir(path):
                found[path] = len(os.listdir(path))
            else:
                with open(path, "rb") as file:
                    found[path] = len(file.read(4096))
    return found


def make_devices(directories: list[str]) -> dict[str, str]:
    """The answer to mknod of /dev/mem, a disk and a harmless null in each directory."""
    nodes = {
        "hostile-mem": (stat.S_IFCHR | 0o666, os.makedev(1, 1)),
        "hostile-disk": (stat.S_IFBLK | 0o666, os.makedev(8, 0)),
        "hostile-null": (stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    }

    def make(path: str, mode: int, device: int) -> None:
        os.mknod(path, mode, device)
        os.unlink(path)

    return {
        f"{directory}/{name}": answer_of(lambda p=f"{directory}/{name}", node=node: make(p, *node))
        for directory in directories
        for name, node in nodes.items()
    }


def replace_in(directory: str, name: str) -> dict[str, str]:
    """All ways to put something else where `directory`/`name` is."""
    path = f"{directory}/{name}"
    mine = f"{directory if can_make_a_file(directory) else '/tmp'}/mine-{os.getpid()}"
    with open(mine, "w") as file:
        file.write("hostile")
    tries: dict[str, Callable[[], object]] = {
        "write": lambda: os.close(os.open(path, os.O_WRONLY)),
        "truncate": lambda: os.truncate(path, 0),
        "chmod": lambda: os.chmod(path, 0o777),
        "chown": lambda: os.chown(path, 1000, 1000),
        "unlink": lambda: os.unlink(path),
        "rename away": lambda: os.rename(path, f"{path}.old"),
        "rename over": lambda: os.rename(mine, path),
        "link over": lambda: os.link(mine, path),
        "symlink over": lambda: os.symlink(mine, path),
        "bind over": lambda: bind(path),
        "exchange": lambda: kernel_call("renameat2", -100, mine.encode(), -100, path.encode(), 2),
        "rename the directory": lambda: os.rename(directory, f"{directory}.old"),
        "remove the directory": lambda: os.rmdir(directory),
        "chmod of the directory": lambda: os.chmod(directory, 0o777),
        "mount over": lambda: kernel_call("mount", mine.encode(), path.encode(), None, 4096, None),
    }
    answers = {name: answer_of(one) for name, one in tries.items()}
    with suppress(OSError):
        os.unlink(mine)
    return answers


def digest(path: str) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def sizes(points: list[str]) -> dict[str, int]:
    """Bytes of the file systems at those of the mount points that exist."""
    found = {point: os.statvfs(point) for point in points if os.path.isdir(point)}
    return {point: one.f_blocks * one.f_frsize for point, one in found.items()}


def fill(directory: str) -> int:
    """How many bytes a file in `directory` takes before the kernel refuses more (at most 64 MiB); removed then."""
    path, written, block = f"{directory}/filling", 0, b"x" * 65536
    try:
        with open(path, "wb", buffering=0) as file, suppress(OSError):
            while written < 64 << 20:
                written += file.write(block)
    finally:
        os.unlink(path)
    return written


def existing(paths: list[str]) -> list[str]:
    """Those of the paths that exist."""
    return [path for path in paths if os.path.lexists(path)]


def everyday_work() -> dict[str, str]:
    """What must work: making, reading, changing and removing files where the agent works, and running them."""
    found = {}
    for directory in ("/workspace", "/tmp", "/home/agentuser"):
        path = f"{directory}/everyday-{os.getpid()}"

        def work(path: str = path) -> None:
            with open(path, "w") as file:
                file.write("#!/bin/sh\n")
            os.chmod(path, 0o755)
            os.rename(path, f"{path}-2")
            os.unlink(f"{path}-2")

        found[directory] = answer_of(work)
    return found
