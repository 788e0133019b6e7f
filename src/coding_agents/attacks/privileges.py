"""Attacks on privileges: becoming somebody else, or holding a capability."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from coding_agents.attacks.answers import all_pids, answer_of, kernel_call, run_program


def statuses() -> list[dict[str, str]]:
    """/proc/PID/status of every process, our own among them."""
    found = []
    for pid in all_pids():
        with suppress(OSError), open(f"/proc/{pid}/status") as file:
            lines = (line.rstrip("\n").split(":\t", 1) for line in file)
            found.append({line[0]: line[1].strip() for line in lines if len(line) == 2})
    return found


def become_root() -> dict[str, str]:
    """The answers to the calls and programs that make root of somebody."""
    tries: dict[str, Callable[[], object]] = {
        "setuid": lambda: os.setuid(0),
        "setresuid": lambda: os.setresuid(0, 0, 0),
        "setgid": lambda: os.setgid(0),
        "setgroups": lambda: os.setgroups([0]),
        "become the bridge": lambda: os.setuid(1002),
        "capset": _raise_capabilities,
        "ambient": lambda: kernel_call("prctl", 47, 2, 12, 0, 0),
        "clear no-new-privs": lambda: kernel_call("prctl", 38, 0, 0, 0, 0),
    }
    programs = {"sudo": ("sudo", "-n", "id"), "su": ("su", "-c", "id"), "newgrp": ("newgrp", "root"),
                "pkexec": ("pkexec", "id"), "setpriv": ("setpriv", "--reuid=0", "id"),
                "chroot": ("chroot", "/", "id")}  # fmt: skip
    with ThreadPoolExecutor(len(programs)) as pool:  # some are slow to say no
        ended = dict(zip(programs, pool.map(run_program, programs.values()), strict=True))
    return {name: answer_of(one) for name, one in tries.items()} | ended


def _raise_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    full = (ctypes.c_uint32 * 6)(*([0xFFFFFFFF] * 6))
    kernel_call("capset", header, full)
