"""The seccomp profiles as data: whole, in date, and each conditional call answered in exactly one way."""

from __future__ import annotations

import errno
import json
import re
import socket
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.sandbox.seccomp import profile
from coding_agents.sandbox.seccomp import render as module
from coding_agents.sandbox.seccomp.render import HERE, ROLES, render
from coding_agents_guest.paths import WATERMARK_FAMILY
from coding_agents_guest.watermark import read_watermark

_SOURCE = tomllib.loads((HERE / "calls.toml").read_text())
_TABLE = (Path(__file__).parent / "data" / "syscalls-x86_64.txt").read_text().split()[1::2]
"""arch/x86/entry/syscalls/syscall_64.tbl of Linux 6.18 and what was added since, without the numbers of x32 and
the two that only the kernel's own trampolines call (uretprobe, uprobe)."""
# What design and threats refuse in every container, holder and all.
_NEVER = re.findall(
    r"\w+",
    """
setns mount umount2 pivot_root chroot move_mount open_tree fsopen fsmount fsconfig fspick mount_setattr bpf
perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register keyctl add_key request_key pidfd_getfd
open_by_handle_at name_to_handle_at kexec_load kexec_file_load init_module finit_module delete_module quotactl
quotactl_fd acct clone3 swapon reboot syslog iopl ioperm settimeofday fanotify_init
""",
)
_DEBUGGING = ["kcmp", "process_vm_readv", "process_vm_writev", "ptrace"]
_CONDITIONAL = {one["call"]: one for one in _SOURCE["conditional"]}


def _rules(role: str) -> list[dict[str, Any]]:
    return list(json.loads((HERE / f"{role}.json").read_text())["syscalls"])


def _answer(role: str, call: str, *args: int) -> int | None:
    """0 where the profile lets a call through, the error number where a rule has one, None where none speaks of it."""
    found = [
        rule
        for rule in _rules(role)
        if call in rule["names"]
        and all(args[one["index"]] & one["value"] == one["valueTwo"] for one in rule.get("args", ()))
    ]
    assert len(found) <= 1, f"{call}{args} has {len(found)} answers"
    if not found:
        return None
    return 0 if found[0]["action"] == "SCMP_ACT_ALLOW" else int(found[0]["errnoRet"])


@pytest.mark.parametrize("role", ROLES)
def test_the_files_are_what_the_table_says(role: str) -> None:
    assert (HERE / f"{role}.json").read_text() == render(role, _SOURCE)


def test_every_call_of_the_kernel_stands_somewhere_once() -> None:
    groups = [*_SOURCE["allow"], *_SOURCE["refuse"]]
    named = Counter([*(call for group in groups for call in group["calls"]), *_CONDITIONAL])
    assert [call for call, times in named.items() if times > 1] == []
    assert set(named) == set(_TABLE)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("call", _NEVER)
def test_what_is_refused_in_every_container(role: str, call: str) -> None:
    assert _answer(role, call) in (errno.EPERM, errno.ENOSYS)


@pytest.mark.parametrize("call", _DEBUGGING)
def test_debugging_is_for_those_who_asked(call: str) -> None:
    assert [_answer(role, call) for role in ROLES] == [errno.EPERM, 0, errno.EPERM]


def test_the_rest_is_unknown() -> None:
    for role in ROLES:
        document = json.loads((HERE / f"{role}.json").read_text())
        assert (document["defaultAction"], document["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", errno.ENOSYS)
        assert all(one["subArchitectures"] == [] for one in document["archMap"])  # no i386, no x32
        assert {rule["action"] for rule in document["syscalls"]} == {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"}


_INTS = st.one_of(st.integers(0, 50), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))


@given(family=_INTS, kind=_INTS, protocol=_INTS)
def test_sockets(family: int, kind: int, protocol: int) -> None:
    domain, proto = family & 0xFFFFFFFF, protocol & 0xFFFFFFFF  # all that the kernel reads (net/socket.c)
    for role, netlink in (("agent", {0}), ("ptrace", {0}), ("holder", {0, 12})):
        allowed = domain in (1, 2, 10) or (domain == socket.AF_NETLINK and proto in netlink)
        wanted = (
            0 if allowed else profile(role).watermark if domain == WATERMARK_FAMILY else errno.EAFNOSUPPORT
        )
        assert _answer(role, "socket", family, kind, protocol) == wanted


@given(flags=_INTS)
def test_namespaces(flags: int) -> None:
    new = 0x7E020000
    assert _answer("agent", "clone", flags) == (errno.EPERM if flags & new else 0)
    assert _answer("agent", "unshare", flags) == (errno.EPERM if flags & (new | 0x80) else 0)


@given(command=st.one_of(_INTS, st.sampled_from([0x5412, 0x541C, 0x1_0000_5412, 0x5413, 0x5401])))
def test_nothing_is_typed_into_a_terminal(command: int) -> None:
    refused = command & 0xFFFFFFFF in (0x5412, 0x541C)
    assert _answer("agent", "ioctl", 0, command) == (errno.EPERM if refused else 0)


@given(mode=st.one_of(_INTS, st.integers(0, 0o177777)))
def test_no_device_is_made(mode: int) -> None:
    allowed = mode & 0o170000 in (0, 0o100000, 0o010000, 0o140000)
    assert _answer("agent", "mknod", 0, mode, 0) == (0 if allowed else errno.EPERM)
    assert _answer("agent", "mknodat", 0, 0, mode, 0) == (0 if allowed else errno.EPERM)


@given(persona=_INTS)
def test_personalities(persona: int) -> None:
    usual = persona & 0xFFFFFFFF in (0, 0xFFFFFFFF)
    assert _answer("agent", "personality", persona) == (0 if usual else None)
    assert _answer("ptrace", "personality", 0x40000) == 0


def test_each_profile_has_a_watermark_of_its_own() -> None:
    marks = [profile(role).watermark for role in ROLES]
    assert len(set(marks)) == len(marks)
    assert all(2000 <= mark < 4000 for mark in marks)
    changed = {**_SOURCE, "allow": _SOURCE["allow"][1:]}
    assert json.loads(render("agent", changed))["syscalls"] != _rules("agent")
    assert f'"errnoRet": {marks[0]},' not in render("agent", changed)
    assert read_watermark() == errno.EAFNOSUPPORT  # on this host, which has none


def test_a_profile_is_known_again() -> None:
    one, other = profile("agent"), profile("ptrace")
    assert one.is_in(one.option)
    assert one.is_in(f"seccomp={one.text}")
    assert not one.is_in(other.option)
    assert not one.is_in(f"seccomp={other.text}")
    assert not one.is_in("seccomp=unconfined")


def test_a_name_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(KeyError, match="CLONE_NEWSOMETHING"):
        module._number("CLONE_NEWSOMETHING")
