"""Attacks on other processes: reading, tracing, ending and starving them, and taking their places."""

from __future__ import annotations

import ctypes
import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress

from coding_agents.attacks.answers import all_pids, answer_of, bind, kernel_call, real_uid


def attack_process(pid: int) -> dict[str, str]:
    """The answers to reading, tracing and joining another process."""
    buffer = ctypes.create_string_buffer(8)
    span = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    tries: dict[str, Callable[[], object]] = {
        "attach": lambda: kernel_call("ptrace", 16, pid, None, None),
        "seize": lambda: kernel_call("ptrace", 0x4206, pid, None, None),
        "read memory": lambda: kernel_call("process_vm_readv", pid, span, 1, span, 1, 0),
        "write memory": lambda: kernel_call("process_vm_writev", pid, span, 1, span, 1, 0),
        "mem": lambda: os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR)),
        "environ": lambda: os.close(os.open(f"/proc/{pid}/environ", os.O_RDONLY)),
        "root": lambda: os.listdir(f"/proc/{pid}/root/"),
        "fds": lambda: os.listdir(f"/proc/{pid}/fd"),
        "take a descriptor": lambda: _take_descriptor(pid),
        "oom score": lambda: os.close(os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY)),
    }
    return {name: answer_of(one) for name, one in tries.items()}


def signal_process(pid: int, signals: list[int]) -> list[str]:
    """The answers to sending each signal."""
    return [answer_of(lambda n=number: os.kill(pid, n)) for number in signals]


def attack_user(uid: int) -> dict[str, str]:
    """`attack_process` on each process of a user."""
    return {f"{name} {pid}": one for pid in pids_of(uid) for name, one in attack_process(pid).items()}


def signal_user(uid: int, signals: list[int]) -> dict[str, str]:
    """`signal_process` on each process of a user."""
    return {
        f"{number} {pid}": one
        for pid in pids_of(uid)
        for number, one in zip(signals, signal_process(pid, signals), strict=True)
    }


def starve_process(pid: int) -> str:
    """The answer to taking all file descriptors from another process of our uid: the kernel allows it."""
    return answer_of(lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 3)))


def squat(directory: str, names: list[str], timeout_s: float) -> list[str]:
    """Put a socket of ours at each free name of the directory as soon as it is free; gives the answers."""
    answers = []
    for name in names:
        end = time.monotonic() + timeout_s
        while os.path.lexists(f"{directory}/{name}") and time.monotonic() < end:
            with suppress(OSError):
                os.unlink(f"{directory}/{name}")
            time.sleep(0.01)
        answers.append(answer_of(lambda path=f"{directory}/{name}": bind(path)))
    return answers


def pids_of(uid: int) -> list[int]:
    """The processes of a user."""
    found = []
    for pid in all_pids():
        with suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == uid or real_uid(pid) == uid:
                found.append(pid)
    return found


def _take_descriptor(pid: int) -> None:
    handle = kernel_call(434, pid, 0)  # pidfd_open
    try:
        kernel_call(438, handle, 0, 0)  # pidfd_getfd
    finally:
        os.close(handle)
