"""The filter that the kernel really runs, on both engines: read back from a process and computed for every call."""

from __future__ import annotations

import errno
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from coding_agents.sandbox.seccomp import profile
from coding_agents.sandbox.seccomp.render import HERE
from support.bpf import ALLOW, AUDIT_ARCH_I386, ERRNO, KILL_PROCESS, KILL_THREAD, Program, answer, filters_of
from support.engines import EngineUnderTest

pytestmark = pytest.mark.engine

_DATA = Path(__file__).parent.parent / "unit" / "data"
_TABLE = {
    name: int(number)
    for number, name in (line.split() for line in (_DATA / "syscalls-x86_64.txt").read_text().splitlines())
}
_X32 = 0x40000000


@pytest.fixture(scope="module")
def filters(engine: EngineUnderTest) -> Iterator[dict[str, list[Program]]]:
    """The filters of a container of ours, of one with debuggers, and of one as the engine makes it by itself."""
    found, made = {}, []
    try:
        for name in ("agent", "ptrace", "holder", ""):
            options = (f"--security-opt=seccomp={profile(name).path}",) if name else ()
            container = _start(engine, *options)
            made.append(container)
            state = engine.api.inspect(container)
            assert state is not None
            found[name or "engine"] = filters_of(state.pid)
        yield found
    finally:
        for container in made:
            engine.api.kill(container)  # Podman's own removal waits for a first process that heeds no signal
            engine.api.remove(container, force=True)


def _start(engine: EngineUnderTest, *options: str) -> str:
    argv = (
        "create", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", *options,
        "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", engine.image, "sleep", "300",
    )  # fmt: skip
    container = engine.api.run("create", argv).stdout.decode().strip()
    engine.api.start(container)
    return container


def _verdict(word: int) -> int | str:
    """0 for a call that goes through, the error number of a refused one, or "killed"."""
    action = word & 0xFFFF0000
    if action == ALLOW:
        return 0
    return (
        word & 0xFFFF if action == ERRNO else "killed" if action in (KILL_PROCESS, KILL_THREAD) else hex(word)
    )


def _verdicts(filters: Sequence[Program], *args: int) -> dict[str, int | str]:
    return {name: _verdict(answer(filters, number, args)) for name, number in _TABLE.items()}


@pytest.mark.parametrize("role", ["agent", "ptrace", "holder"])
def test_the_kernel_answers_as_the_profile_says(filters: dict[str, list[Program]], role: str) -> None:
    rules = json.loads((HERE / f"{role}.json").read_text())["syscalls"]
    said = {name: rule.get("errnoRet", 0) for rule in rules if not rule.get("args") for name in rule["names"]}
    got = _verdicts(filters[role])
    # A call that is younger than the engine's own list is unknown to it, so ENOSYS: to be allowed later does no harm.
    wrong = {name: (got[name], want) for name, want in said.items() if got[name] not in (want, errno.ENOSYS)}
    assert wrong == {}
    assert sum(got[name] == 0 for name, want in said.items() if want == 0) > 270


def test_what_no_table_knows_is_not_there(filters: dict[str, list[Program]]) -> None:
    assert {_verdict(answer(filters["agent"], number)) for number in range(600, 700)} == {errno.ENOSYS}


def test_other_abis_end_the_program(filters: dict[str, list[Program]]) -> None:
    for number in (
        1,
        11,
        26,
        102,
        120,
        179,
    ):  # exit, execve, ptrace, socketcall, clone, rt_sigsuspend of i386
        assert _verdict(answer(filters["agent"], number, arch=AUDIT_ARCH_I386)) == "killed"
    for number in (0, 1, 39, 512, 520):
        assert _verdict(answer(filters["agent"], _X32 | number)) in ("killed", errno.ENOSYS)


@pytest.mark.parametrize("high", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_arguments_are_compared_as_the_kernel_reads_them(
    filters: dict[str, list[Program]], high: int
) -> None:
    def got(call: str, *args: int, role: str = "agent") -> int | str:
        return _verdict(answer(filters[role], _TABLE[call], [value | high for value in args]))

    assert got("ioctl", 0, 0x5412) == errno.EPERM
    assert got("ioctl", 0, 0x541C) == errno.EPERM
    assert got("ioctl", 0, 0x5413) == 0
    for family in range(64):
        wanted = 0 if family in (1, 2, 10, 16) else errno.EAFNOSUPPORT
        assert got("socket", family, 1, 0) == wanted, family
    for protocol in range(1, 32):
        assert got("socket", 16, 3, protocol) == errno.EAFNOSUPPORT
        assert got("socket", 16, 3, protocol, role="holder") == (0 if protocol == 12 else errno.EAFNOSUPPORT)
    for bit in range(32):
        namespace = 1 << bit & 0x7E020000
        assert got("clone", 1 << bit) == (errno.EPERM if namespace else 0), bit
        assert got("unshare", 1 << bit) == (errno.EPERM if namespace or bit == 7 else 0), bit
    for kind in range(16):
        allowed = kind in (0, 1, 8, 12)
        assert got("mknodat", 0, 0, kind << 12 | 0o666) == (0 if allowed else errno.EPERM)
    assert got("personality", 0) == got("personality", 0xFFFFFFFF) == 0
    assert got("personality", 8) != 0
    assert got("personality", 0x40000, role="ptrace") == 0


def test_the_whole_difference_to_the_engines_own_profile(
    engine: EngineUnderTest, filters: dict[str, list[Program]]
) -> None:
    """By data: what an engine lets through and we do not, and the other way round. Arguments are 0 here."""
    ours, theirs = _verdicts(filters["agent"]), _verdicts(filters["engine"])
    differs = {
        "closed by us": sorted(name for name in _TABLE if theirs[name] == 0 and ours[name] != 0),
        "opened by us": sorted(name for name in _TABLE if ours[name] == 0 and theirs[name] != 0),
    }
    golden = json.loads((_DATA / "engine" / f"seccomp-difference-{engine.name}.json").read_text())
    assert set(differs["opened by us"]) <= set(golden["opened by us"])
    if engine.api.info.version.startswith(golden["version"]):  # another has other calls open
        assert {"version": golden["version"], **differs} == golden


def test_programs_live_with_it(engine: EngineUnderTest) -> None:
    """A 32-bit program is ended, and threads, children and pipes of python work."""
    code = "import os, threading, subprocess; threading.Thread(target=os.getpid).start(); subprocess.run(['true'])"
    argv = (
        "run", "--rm", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges",
        f"--security-opt=seccomp={profile('agent').path}", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024",
        engine.image, "python3", "-c", code,
    )  # fmt: skip
    assert engine.api.run("run", argv).ok


def test_a_filter_is_read_as_the_kernel_runs_it() -> None:
    """The machine itself, on a process whose filter is known: strict seccomp of our own making."""
    code = (
        "import ctypes, struct, sys, time; p = ctypes.CDLL(None)\n"
        "f = b''.join(struct.pack('=HBBI', *i) for i in"
        " [(0x20,0,0,0),(0x15,0,1,101),(6,0,0,0x50001),(6,0,0,0x7fff0000)])\n"
        "b = ctypes.create_string_buffer(f); g = struct.pack('HxxxxxxQ', 4, ctypes.addressof(b))\n"
        "p.prctl(38, 1, 0, 0, 0); p.prctl(22, 2, ctypes.c_char_p(g)); print('set', flush=True); time.sleep(30)"
    )
    with subprocess.Popen(("python3", "-c", code), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"set\n"
            found = filters_of(process.pid)
            assert [_verdict(answer(found, number)) for number in (100, 101, 102)] == [0, errno.EPERM, 0]
        finally:
            process.kill()
