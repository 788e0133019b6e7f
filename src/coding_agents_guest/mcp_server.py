"""`mcp-server`: the parent of an MCP server that holds a secret. The host starts it as user 1001, never the agent.

The first bytes of its standard input are the order: what to run, with which environment. So no secret stands in a
command line, in what the engine shows of an exec, or in anything that user 1000 can read. What follows is the server's
own input; the server writes to our standard output itself. When our input ends, the server is ended, with all that it
started.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.children import Signals, exit_status, taken_signals
from coding_agents_guest.privileges import (
    become_reaper,
    end_with_parent,
    refuse_inspection,
    remaining_privileges,
)
from coding_agents_guest.records import dataclass
from coding_agents_guest.wire import WireError, load_json

UID = 1001
AGENT_UID = AGENT_GID = 1000
MAX_ORDER = 1 << 20
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SCRATCH = "/tmp"  # a sticky tmpfs: what we make there, others neither read nor replace
_CHUNK = 64 * 1024
_GRACE_S = 3.0
_KILL_S = 2.0
_PARTS = re.compile(r"[\s:;=,]+")


class RefusedError(Exception):
    """The server is not started; the message says why and holds no value of its environment."""


@dataclass(frozen=True)
class Order:
    """A program with its words, its environment, and the directory of its copies ("": it has none)."""

    argv: Sequence[str]
    env: Mapping[str, str]
    directory: str = ""


def main(arguments: Sequence[str]) -> int:
    """Run one server to its end; takes no arguments. Returns its exit status, 1 when it was not started."""
    if arguments:
        print("mcp-server: takes no arguments", file=sys.stderr)
        return 2
    refuse_inspection()
    os.umask(0o077)
    home = ""
    try:
        _require_unprivileged()
        order = read_order()
        home = tempfile.mkdtemp(prefix="mcp-", dir=_SCRATCH)
        become_reaper()
        with taken_signals() as signals:
            return run(order, home, signals)
    except (RefusedError, OSError, WireError) as error:
        reason = error.strerror or "failed" if isinstance(error, OSError) else str(error)
        _answer(f"not started: {reason}")
        return 1
    finally:
        if home:
            shutil.rmtree(home, ignore_errors=True)


def run(order: Order, home: str, signals: Signals) -> int:
    """Start what `order` says, and carry our input to it until it or our input ends."""
    program = shutil.which(order.argv[0], path=_PATH)
    if program is None:
        raise RefusedError(f"{order.argv[0]} is no program of the image")
    require_out_of_reach(program, order)
    ours = {"PATH": _PATH, "HOME": home, "TMPDIR": home, "USER": "mcpuser", "SHELL": "/bin/sh"}
    ours["GIT_CONFIG_NOSYSTEM"] = (
        "1"  # else git takes the agent's repository for its own, with all that it names
    )
    child = subprocess.Popen(
        tuple(order.argv),
        executable=program,
        cwd=order.directory or home,
        env={"LANG": "C.UTF-8", **order.env, **ours},
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it may hold the secret, and nobody reads it
        start_new_session=True,
        preexec_fn=_begin,
    )
    try:
        _carry(child, signals)
    finally:
        _end_all(child)
    return exit_status(child.returncode)


def _begin() -> None:
    """In the child, before it is the server: nothing that the server writes may come before this answer."""
    end_with_parent()
    _answer("started")


def read_order() -> Order:
    """The order at the beginning of our input. Raises RefusedError, WireError."""
    size = int.from_bytes(_exactly(4), "big")
    if not 0 < size <= MAX_ORDER:
        raise RefusedError("the order has no such length")
    body = load_json(_exactly(size))
    argv, env, directory = body.get("argv"), body.get("env"), body.get("directory")
    if not isinstance(argv, list) or not isinstance(env, dict) or not isinstance(directory, str):
        raise RefusedError("the order is malformed")
    texts = (*argv, *env.values(), directory)
    if not all(isinstance(text, str) and "\0" not in text for text in texts) or not argv or not argv[0]:
        raise RefusedError("the order is malformed")
    return Order(tuple(argv), env, directory)


def require_out_of_reach(program: str, order: Order) -> None:
    """Raises RefusedError when the agent could change the program, or a file that its words or environment name."""
    parts = [part for text in (*order.argv[1:], *order.env.values()) for part in _PARTS.split(text)]
    for path in (program, order.directory, *parts):
        if path.startswith("/") and (place := in_reach(path)):
            raise RefusedError(f"{place} can be changed by the agent")


def in_reach(path: str) -> str:
    """What of `path`, all above it and all that it leads to is not root's alone to change; "" when nothing.

    What is mounted read-only nobody changes, whoever owns it: Podman gives a new volume to the container's user.
    """
    if "\0" in path or not os.path.lexists(path):
        return ""
    for start in {path, os.path.realpath(path)}:
        for place in (Path(start), *Path(start).parents):
            info = place.lstat()
            if stat.S_ISLNK(info.st_mode) or not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
                opened = False  # the mode of a link or a device says nothing about its place
            else:
                if os.statvfs(place).f_flag & os.ST_RDONLY:
                    continue
                opened = bool(info.st_mode & stat.S_IWOTH) or (
                    info.st_gid == AGENT_GID and bool(info.st_mode & stat.S_IWGRP)
                )
            if info.st_uid != 0 or opened:
                return str(place)
    return ""


def _require_unprivileged() -> None:
    problems = remaining_privileges(Path("/proc/self/status").read_text(), uid=UID, gid=UID)
    if problems:
        raise RefusedError("this container gives it more than it must have: " + "; ".join(problems))


def _exactly(size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            raise RefusedError("the order ended early")
        data += piece
    return data


def _answer(line: str) -> None:
    with suppress(OSError):
        os.write(1, line.replace("\n", " ")[:1000].encode("utf-8", "replace") + b"\n")


class _Feed:
    """What came in for the server and it has not taken yet, one piece at most."""

    def __init__(self, into: int) -> None:
        self.into = into
        self.pending = b""
        self.ended = False
        self._deaf = False
        os.set_blocking(into, False)

    def take(self) -> None:
        """Read the next piece."""
        piece = os.read(0, _CHUNK)
        self.ended = not piece
        self.pending = b"" if self._deaf else piece

    def give(self) -> None:
        """Write what the server takes."""
        try:
            self.pending = self.pending[os.write(self.into, self.pending) :]
        except BlockingIOError:
            pass
        except OSError:  # it listens no more, and may go on for all that
            self.pending, self._deaf = b"", True


def _carry(child: subprocess.Popen[bytes], signals: Signals) -> None:
    """Give `child` what comes in, as fast as it takes it, until it has ended.

    When nobody is there any more, its input ends; it has `_GRACE_S` to end, is told to, and is killed `_KILL_S` later.
    """
    if child.stdin is None:
        raise AssertionError("started with a pipe")
    feed, deadline, told = _Feed(child.stdin.fileno()), 0.0, False
    while child.poll() is None:
        gone = _step(feed, signals, deadline)
        if feed.ended and not feed.pending:
            child.stdin.close()
        if gone and not deadline:
            deadline = time.monotonic() + _GRACE_S
        elif deadline and time.monotonic() >= deadline:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL if told else signal.SIGTERM)
            deadline, told = time.monotonic() + _KILL_S, True


def _step(feed: _Feed, signals: Signals, deadline: float) -> bool:
    """Wait for what can be done, and do it; whether the other side is gone. A `deadline` of 0 is none."""
    poll = select.poll()
    poll.register(signals, select.POLLIN)
    if not feed.ended and not (feed.pending and deadline):
        poll.register(
            0, 0 if feed.pending else select.POLLIN
        )  # that nobody writes any more is told in any case
    if feed.pending:
        poll.register(feed.into, select.POLLOUT)
    ready = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000 if deadline else None))
    signals.acknowledge()
    if 0 in ready and not feed.pending:
        feed.take()
    if feed.into in ready:
        feed.give()
    hung = bool(ready.get(0, 0) & (select.POLLHUP | select.POLLERR))
    return feed.ended or hung or bool(signals.requests)


def _end_all(child: subprocess.Popen[bytes]) -> None:
    """Kill `child` and all below it; what lost its parent has become ours. They go before us, or with us."""
    give_up = time.monotonic() + _KILL_S
    while (ours := list(_children())) and time.monotonic() < give_up:
        for pid in ours:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.poll()
        with suppress(ChildProcessError):
            while (done := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if done.si_pid == child.pid:
                    child.poll()
                else:
                    os.waitpid(done.si_pid, 0)
        time.sleep(0.005)
    if child.poll() is None:
        child.kill()
        child.wait()


def _children() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[1]) == os.getpid():  # proc(5): state, ppid
                    yield int(entry.name)
