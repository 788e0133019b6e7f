"""The agent's process: a plain command, or a program in a tmux session that people can attach to."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.children import exit_status, start_child

TMUX_SESSION = "agent"

_TMUX_TIMEOUT_S = 20.0
_HUNG_UP = 128 + signal.SIGHUP  # what a program is told when the terminal under it goes away
_MAX_TOLD = 64
# Tells us through a FIFO its pid, then the status of the program in "$@". That it has ended, in whatever way,
# the kernel tells us: the end of the file. tmux is no witness: 3.3a misses the end of one program in twelve.
_WITNESS = 'exec 3>"$0"; echo $$ >&3; trap : INT QUIT TERM; "$@" 3>&-; echo $? >&3'


class SessionError(Exception):
    """The agent could not be started."""


class Session(ABC):
    """A started agent."""

    @property
    @abstractmethod
    def status(self) -> int | None:
        """The exit status (128+n for signal n), None while the agent runs."""

    @property
    def processes(self) -> Sequence[subprocess.Popen[bytes]]:
        """Children whose status is ours to collect."""
        return ()

    @property
    def files(self) -> Sequence[int]:
        """Descriptors that become readable when the status may have changed; else a SIGCHLD tells it."""
        return ()

    @abstractmethod
    def terminate(self) -> None:
        """Ask the agent to end (SIGTERM to its process group)."""

    def hang_up(self) -> None:
        """Tell it that its terminal goes away (SIGHUP): an interactive shell ignores SIGTERM (bash(1), SIGNALS)."""
        return

    @abstractmethod
    def kill(self) -> None:
        """End it now."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the session held, once it has ended."""


class CommandSession(Session):
    """A command whose output is the container's output."""

    def __init__(self, argv: tuple[str, ...], *, cwd: Path, env: Mapping[str, str]) -> None:
        try:
            self._process = start_child(argv, cwd=cwd, env=dict(env))
        except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
            raise SessionError(f"{' '.join(argv[:1])}: {error}") from error

    @property
    def status(self) -> int | None:
        returncode = self._process.poll()
        return None if returncode is None else exit_status(returncode)

    @property
    def processes(self) -> Sequence[subprocess.Popen[bytes]]:
        return (self._process,)

    def terminate(self) -> None:
        _signal_group(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        _signal_group(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        pass


class TmuxSession(Session):
    """The first pane of a detached tmux session. When its program ends, so does the session."""

    def __init__(self, argv: tuple[str, ...], *, cwd: Path, env: Mapping[str, str]) -> None:
        self._cwd, self._env = cwd, dict(env)
        self._directory = Path(tempfile.mkdtemp(prefix="session-"))
        self._told = b""
        self._status = _HUNG_UP
        self._fifo = -1
        try:
            self._start(argv)
        except BaseException:
            self.close()
            raise

    def _start(self, argv: tuple[str, ...]) -> None:
        fifo = self._directory / "status"
        os.mkfifo(fifo, 0o600)
        self._fifo = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        if not argv or shutil.which(argv[0], path=self._env.get("PATH")) is None:
            raise SessionError(f"{' '.join(argv[:1])}: no such program")
        witness = ("sh", "-c", _WITNESS, str(fifo), *argv)
        size = ("-x", "200", "-y", "50")
        self._tmux("new-session", "-d", "-s", TMUX_SESSION, *size, "--", *map(_literal, witness))
        with selectors.DefaultSelector() as selector:
            selector.register(self._fifo, selectors.EVENT_READ)
            if not selector.select(_TMUX_TIMEOUT_S):
                raise SessionError("tmux does not start the program")
        self._told = os.read(self._fifo, _MAX_TOLD)
        shutil.rmtree(self._directory)
        if not self._number(0):
            raise SessionError("tmux ended before the program started")

    @property
    def status(self) -> int | None:
        try:
            told = os.read(self._fifo, _MAX_TOLD)
        except BlockingIOError:
            return None
        if told:  # the end of the file comes next
            self._told = (self._told + told)[:_MAX_TOLD]
            return None
        number = self._number(1)
        return self._status if number is None else min(number, 255)

    @property
    def files(self) -> Sequence[int]:
        return (self._fifo,)

    def terminate(self) -> None:
        _signal_group(self._number(0) or 0, signal.SIGTERM)

    def hang_up(self) -> None:
        _signal_group(self._number(0) or 0, signal.SIGHUP)

    def kill(self) -> None:
        self._status = 128 + signal.SIGKILL
        _signal_group(self._number(0) or 0, signal.SIGKILL)

    def close(self) -> None:
        """Also ends whatever else people have opened in the session."""
        if self._told:
            with suppress(SessionError):
                self._tmux("kill-server")
        if self._fifo != -1:
            os.close(self._fifo)
            self._fifo = -1
        shutil.rmtree(self._directory, ignore_errors=True)

    def _number(self, line: int) -> int | None:
        """What the witness said in this line; the agent may have written there too."""
        lines = self._told.split(b"\n")
        return int(lines[line]) if line < len(lines) and lines[line].isdigit() else None

    def _tmux(self, *arguments: str) -> None:
        try:
            done = subprocess.run(
                ("tmux", *arguments),
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TMUX_TIMEOUT_S,
                check=False,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise SessionError(f"tmux: {error}") from error
        if done.returncode != 0:
            raise SessionError(f"tmux {arguments[0]}: {done.stderr.strip()}")


def _literal(word: str) -> str:
    # A word that ends in ";" would end the tmux command (tmux(1), COMMAND PARSING AND EXECUTION).
    return word[:-1] + "\\;" if word.endswith(";") else word


def _signal_group(pid: int, number: int) -> None:
    if pid > 1:  # 1 and 0 would mean every process, and our own group
        with suppress(ProcessLookupError, PermissionError, OverflowError):
            os.killpg(pid, number)
