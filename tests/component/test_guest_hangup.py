"""The programs on a terminal that has gone are hung up, and no others."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_agents_guest.hangup import leaders, main

MARK = "CODING_AGENTS_TERMINAL=00112233"
_WAITS = "import time; print('.', end='', flush=True); time.sleep(60)"


@pytest.fixture
def marked() -> Iterator[int]:
    """A program on a terminal of its own, with the mark in its environment."""
    name, value = MARK.split("=")
    pid, fd = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
        os.execve(sys.executable, (sys.executable, "-c", _WAITS), {name: value})
    assert os.read(fd, 1) == b"."
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)


def test_it_finds_the_leader_of_the_marked_terminal_alone(marked: int) -> None:
    name, value = MARK.split("=")
    with subprocess.Popen(  # in the background: a session of its own, and no terminal
        (sys.executable, "-c", _WAITS), env={name: value}, stdout=subprocess.PIPE, start_new_session=True
    ) as other:
        try:
            assert other.stdout
            assert other.stdout.read(1) == b"."
            assert list(leaders(MARK, Path("/proc"))) == [marked]
            assert list(leaders(MARK[:-1], Path("/proc"))) == []
        finally:
            other.kill()


def test_it_hangs_up(marked: int) -> None:
    assert main([MARK]) == 0
    ended = os.waitid(os.P_PID, marked, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert ended.si_status == signal.SIGHUP


@pytest.mark.parametrize("arguments", [[], ["x"], ["a=b", "c=d"]])
def test_it_wants_one_mark(arguments: list[str]) -> None:
    assert main(arguments) == 2
