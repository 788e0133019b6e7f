"""The only way to run a process on the host.

A process is described by a frozen `Command` (argv, explicit environment, time and output limits) and
ends in an `Outcome`; the caller gives the exit status its meaning. No shell, no inherited environment,
standard input is empty unless given, and children get a session of their own, so that Ctrl-C reaches
us alone and half-done engine calls are undone in order instead of dying with the terminal.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import msgspec

from coding_agents.errors import ProgramNotFoundError, WorkspaceError
from coding_agents.model.masked import Masked
from coding_agents.proc.limits import ProcessLimits, limiting_words, restrict

if TYPE_CHECKING:
    import asyncio

_STDERR_LIMIT = 64 * 1024

_running: set[int] = set()
_running_lock = threading.Lock()


TURN_S = 0.5
"""The longest time for which a wait of the main thread may keep a signal from being handled."""


class Owner(msgspec.Struct, frozen=True):
    """The host user that a process runs as (root launching on a user's repository)."""

    uid: int
    gid: int


class Command(Masked, frozen=True):
    """One process to run.

    `env` is the whole environment. `timeout_s` ends the process group with SIGKILL. `stdin` is
    given in full; None means empty. `owner` switches the uid and drops supplementary groups.
    `limits` stand a moment after the start, and before the process gets the first byte of its input.
    """

    MASKED = frozenset({"env", "stdin"})

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path | None = None
    stdin: bytes | None = None
    timeout_s: float = 60.0
    owner: Owner | None = None
    pass_fds: tuple[int, ...] = ()
    limits: ProcessLimits | None = None

    def shown(self) -> str:
        """The command as a line that can be pasted into a shell."""
        return shlex.join(self.argv)


class Outcome(Masked, frozen=True):
    """What a finished process left: its exit status (negative: the signal), output and duration."""

    MASKED = frozenset({"stdout", "stderr"})

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes
    duration_s: float
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        return self.status == 0

    def text(self) -> str:
        """Standard output as text, undecodable bytes kept as surrogates."""
        return self.stdout.decode("utf-8", "surrogateescape")

    def describe(self) -> str:
        """Command, status and the end of its output, for an error's `details`."""
        tail = self.stderr[-4096:] or self.stdout[-4096:]
        end = "timed out" if self.timed_out else f"exit status {self.status}"
        shown = tail.decode("utf-8", "replace")
        return f"{shlex.join(self.argv)}\n{end} after {self.duration_s:.1f} s\n{shown}".rstrip()


def run(command: Command) -> Outcome:
    """Run `command` to its end. Raises ProgramNotFoundError; never raises for a non-zero status."""
    began = time.monotonic()
    stdin = subprocess.PIPE if command.stdin is not None else subprocess.DEVNULL
    with spawn(command, stdin=stdin) as process, interruptible(process.pid):
        timed_out = False
        try:
            out, err = _communicate(process, command)
        except subprocess.TimeoutExpired:
            timed_out = True
            kill_group(process.pid)
            out, err = process.communicate()
        except BaseException:
            kill_group(process.pid)
            raise
    return Outcome(command.argv, process.returncode, out, err, time.monotonic() - began, timed_out)


def _communicate(process: subprocess.Popen[bytes], command: Command) -> tuple[bytes, bytes]:
    """Its output at its end. Raises subprocess.TimeoutExpired when its time is over, and takes signals meanwhile.

    Python runs a signal's handler between two instructions: one that arrives in the moment before the system call
    that waits, or at another thread, would be handled when the wait is over. So no wait is longer than `TURN_S`.
    """
    stdin, deadline = command.stdin, time.monotonic() + command.timeout_s
    while True:
        left = deadline - time.monotonic()
        try:
            return process.communicate(stdin, timeout=min(TURN_S, max(left, 0.0)))
        except subprocess.TimeoutExpired:
            if left <= TURN_S:
                raise
            stdin = None  # what is left of it is sent by the next call


@contextmanager
def streaming(command: Command) -> Iterator[Streaming]:
    """Run `command` with its standard input and output as byte streams; ended by leaving the block.

    The time limit counts from here: a command that neither reads nor ends is killed, and whoever writes to
    it gets BrokenPipeError.
    """
    process = spawn(command, stdin=subprocess.PIPE)
    stream = Streaming(process, command, time.monotonic())
    limit = threading.Timer(command.timeout_s, stream.expire)
    limit.daemon = True
    limit.start()
    with interruptible(process.pid):
        try:
            yield stream
        except BaseException:
            kill_group(process.pid)
            raise
        finally:
            stream.finish()
            limit.cancel()


def end_running() -> None:
    """End every process that is under way here in any thread (Ctrl-C while steps run side by side).

    Their callers see an ordinary failure; what the processes had begun is for the caller to undo.
    """
    with _running_lock:
        for pid in _running:
            kill_group(pid)


@contextmanager
def interruptible(pid: int) -> Iterator[None]:
    """While the block runs, `end_running` ends the process group `pid`."""
    with _running_lock:
        _running.add(pid)
    try:
        yield
    finally:
        with _running_lock:
            _running.discard(pid)


class Streaming:
    """A running process whose standard streams the caller reads and writes."""

    def __init__(self, process: subprocess.Popen[bytes], command: Command, began: float) -> None:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("streaming needs pipes")
        self.stdin: IO[bytes] = process.stdin
        self.stdout: IO[bytes] = process.stdout
        self._process = process
        self._command = command
        self._began = began
        self._outcome: Outcome | None = None
        self._expired = False

    def expire(self) -> None:
        """Kill the process: its time is over."""
        self._expired = True
        kill_group(self._process.pid)

    def finish(self) -> Outcome:
        """Close standard input, collect the rest of the output and wait for the end."""
        if self._outcome is None:
            with suppress(BrokenPipeError):
                self.stdin.close()
            self._process.stdin = None
            out, err = self._process.communicate()
            self._outcome = Outcome(
                self._command.argv,
                self._process.returncode,
                out,
                err[-_STDERR_LIMIT:],
                time.monotonic() - self._began,
                self._expired,
            )
        return self._outcome


def start_detached(command: Command) -> int:
    """Start a process that outlives us: own session, no terminal. Returns its pid; `pass_fds` stay open."""
    process = spawn(command, stdin=subprocess.DEVNULL, output=subprocess.DEVNULL)
    process.returncode = 0  # not waited for: it belongs to init when we are gone
    return process.pid


async def start(command: Command, *, pipe_stderr: bool = True) -> asyncio.subprocess.Process:
    """Start `command` under the running event loop with all standard streams as pipes."""
    import asyncio  # a tenth of the start-up time of verbs that never need it

    identity = _identity(command.owner)
    with missing_program(command):
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            env=dict(command.env),
            cwd=command.cwd,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if pipe_stderr else asyncio.subprocess.DEVNULL,
            start_new_session=True,
            limit=1 << 20,
            user=identity.user,
            group=identity.group,
            extra_groups=identity.extra_groups,
        )
    if command.limits is not None:
        restrict(process.pid, command.limits)
    return process


async def run_limited(command: Command) -> Outcome:
    """`run` for the event loop, under the command's limits; who cancels it ends the process and what it started."""
    import asyncio  # as in `start`

    began, timed_out = time.monotonic(), False
    process = await start(command)
    try:
        async with asyncio.timeout(command.timeout_s):
            out, err = await process.communicate(command.stdin or b"")
    except BaseException as error:
        kill_group(process.pid)
        out, err = await process.communicate()
        if not isinstance(error, TimeoutError):
            raise
        timed_out = True
    status = process.returncode or 0
    return Outcome(command.argv, status, out, err[-_STDERR_LIMIT:], time.monotonic() - began, timed_out)


def spawn(command: Command, *, stdin: int | None, output: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own; for this package, which sees to its end."""
    identity = _identity(command.owner)
    is_ours = identity.user is None
    with missing_program(command):
        process = subprocess.Popen(
            command.argv
            if command.limits is None or is_ours
            else (*limiting_words(command.limits), *command.argv),
            env=dict(command.env),
            cwd=command.cwd,
            stdin=stdin,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=command.pass_fds,
            user=identity.user,
            group=identity.group,
            extra_groups=identity.extra_groups,
        )
    if command.limits is not None and is_ours:
        restrict(process.pid, command.limits)
    return process


class _Identity(NamedTuple):
    """The user to become, in the words of subprocess; None: stay who we are."""

    user: int | None = None
    group: int | None = None
    extra_groups: tuple[int, ...] | None = None


def _identity(owner: Owner | None) -> _Identity:
    if owner is None or owner.uid == os.geteuid():
        return _Identity()
    return _Identity(owner.uid, owner.gid, ())


@contextmanager
def missing_program(command: Command) -> Iterator[None]:
    """Around a start: a program that is not there, or may not be run, raises ProgramNotFoundError."""
    try:
        yield
    except FileNotFoundError as error:
        if command.cwd is not None and not command.cwd.is_dir():
            raise WorkspaceError(
                f"{command.cwd} is gone", hint="Put it back, or work without what needs it."
            ) from error
        raise ProgramNotFoundError(
            f"{command.argv[0]} is not installed", hint=f"Install {command.argv[0]} and try again."
        ) from error
    except PermissionError as error:
        raise ProgramNotFoundError(
            f"{command.argv[0]} cannot be run: permission denied",
            hint="Check the modes of that program and of the directories above it.",
        ) from error


def kill_group(pid: int) -> None:
    """End a process that we started, and what it started itself (an engine's client runs ssh)."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
