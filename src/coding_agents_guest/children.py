"""The duties of a container's first process: take signals, reap orphans, and see that all others end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SETTLE_S = 2.0


class Signals:
    """Signals as a file descriptor that becomes readable, and the list of requests to end, in order."""

    def __init__(self, wakeup: socket.socket) -> None:
        self.requests: list[int] = []
        self._wakeup = wakeup

    def fileno(self) -> int:
        return self._wakeup.fileno()

    def acknowledge(self) -> None:
        """Make the descriptor unreadable until the next signal."""
        with suppress(BlockingIOError):
            while self._wakeup.recv(4096):
                pass


@contextmanager
def taken_signals() -> Iterator[Signals]:
    """Within the block SIGTERM, SIGINT and SIGHUP are requests to end, and SIGCHLD wakes the reader up."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    signals = Signals(reading)

    def take(number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            signals.requests.append(number)

    previous = {number: signal.signal(number, take) for number in (*_END, signal.SIGCHLD)}
    wakeup = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in previous.items():
            signal.signal(number, handler)
        reading.close()
        writing.close()


def start_child(argv: Iterable[str], *, cwd: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, without standard input; its output goes where ours goes."""
    return subprocess.Popen(
        tuple(argv),
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_dies_first,
    )


def reap(ours: Iterable[subprocess.Popen[bytes]]) -> None:
    """Collect every process that has ended. Those of `ours` keep their status for their `Popen`."""
    known = {process.pid: process for process in ours}
    with suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in known:
                known[ended.si_pid].poll()
            else:
                os.waitpid(ended.si_pid, 0)


def end_all_others() -> None:
    """Kill every process of our uid in this container, so that nothing writes while we save.

    Only as the first process of a pid namespace, where -1 means just that (kill(2)); otherwise does nothing.
    """
    if os.getpid() != 1:
        return
    give_up = time.monotonic() + _SETTLE_S
    while others := _others_of_our_uid():
        if time.monotonic() > give_up:
            print(f"coding-agents: processes {others} do not end", file=sys.stderr, flush=True)
            return
        with suppress(ProcessLookupError, PermissionError):
            os.kill(-1, signal.SIGKILL)
        time.sleep(0.005)
        reap(())


def _others_of_our_uid() -> list[int]:
    """The living processes that kill(2) lets us end; the bridge, of another uid, is none of them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError, KeyError):
                lines = (entry / "status").read_text(errors="replace").splitlines()
                fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
                if int(fields["Uid"].split()[0]) == os.getuid() and not fields["State"].startswith("Z"):
                    found.append(int(entry.name))
    return found


def exit_status(returncode: int) -> int:
    """A status as a shell reports it: 128+n for a process that signal n ended."""
    return 128 - returncode if returncode < 0 else returncode


def _dies_first() -> None:
    # When memory runs out, the kernel shall choose what the agent started, not the one that saves its work.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
