"""Giving up privileges, by the kernel's own calls, and reading back from the kernel that they are gone."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522


class PrivilegeError(Exception):
    """The kernel refused to take a privilege away, or still reports one."""


def refuse_inspection() -> None:
    """No other process of our uid may trace us or read our memory (prctl(2), PR_SET_DUMPABLE)."""
    _prctl(_PR_SET_DUMPABLE, 0)


def become_reaper() -> None:
    """Orphans among our descendants become our children, also where an engine puts its init before us."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent() -> None:
    """We are killed when the thread that started us ends (prctl(2), PR_SET_PDEATHSIG)."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def drop_all_privileges(uid: int, gid: int) -> None:
    """Become `uid`:`gid` without capabilities for good. Needs SETUID, SETGID, SETPCAP; or PrivilegeError."""
    for capability in range(_last_capability() + 1):
        _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _clear_capabilities()  # leaving uid 0 clears the effective and permitted sets, not the inheritable one
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    refuse_inspection()
    problems = remaining_privileges(Path("/proc/self/status").read_text(), uid=uid, gid=gid)
    if problems:
        raise PrivilegeError("; ".join(problems))


def remaining_privileges(status: str, *, uid: int, gid: int) -> list[str]:
    """What `status`, the text of a /proc/PID/status, shows beyond an unprivileged `uid`:`gid`. Pure."""
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if fields.get("Groups", "").split() == [str(gid)]:  # an engine lists the group itself, too: nothing more
        fields["Groups"] = ""
    wanted = {
        "Uid": "\t".join([str(uid)] * 4),
        "Gid": "\t".join([str(gid)] * 4),
        "Groups": "",
        "NoNewPrivs": "1",
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16),
    }
    return [
        f"{name} is {fields.get(name, 'not reported')!r}"
        for name, value in wanted.items()
        if fields.get(name, "?").strip() != value
    ]


def _last_capability() -> int:
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def _clear_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, each twice 32 bits, all zero
    if _libc().capset(header, data) != 0:
        raise PrivilegeError(f"capset: {os.strerror(ctypes.get_errno())}")


def _prctl(option: int, argument: int) -> None:
    # prctl(2) takes unsigned longs; the unused ones must be zero.
    arguments = [ctypes.c_ulong(value) for value in (argument, 0, 0, 0)]
    if _libc().prctl(ctypes.c_int(option), *arguments) != 0:
        raise PrivilegeError(f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
