"""The agent's process: a plain command, or a program in a tmux session that people can attach to."""

from __future__ import annotations

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.children import exit_status, start_child

TMUX_SESSION = "agent"
_TMUX_TIMEOUT_S = 10.0
_ENDED = "coding-agents-ended"
_UNKNOWN = 128 + signal.SIGHUP  # what a program is told when the terminal under it goes away


class SessionError(Exception):
    """The agent could not be started."""


class Session(ABC):
    """A started agent. `process` is ours to wait for; its end is the end of the session."""

    process: subprocess.Popen[bytes]

    @abstractmethod
    def status(self) -> int:
        """The exit status, once `process` has ended."""

    @abstractmethod
    def terminate(self) -> None:
        """Ask the agent to end (SIGTERM to its process group)."""

    @abstractmethod
    def kill(self) -> None:
        """End it now."""


class CommandSession(Session):
    """A command whose output is the container's output."""

    def __init__(self, argv: tuple[str, ...], *, cwd: Path, env: Mapping[str, str]) -> None:
        try:
            self.process = start_child(argv, cwd=cwd, env=dict(env))
        except (OSError, ValueError) as error:
            raise SessionError(f"{argv[0]}: {error}") from error

    def status(self) -> int:
        return exit_status(self.process.returncode)

    def terminate(self) -> None:
        _signal_group(self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        _signal_group(self.process.pid, signal.SIGKILL)


class TmuxSession(Session):
    """The first pane of a detached tmux session. When its program ends, so does the session."""

    def __init__(self, argv: tuple[str, ...], *, cwd: Path, env: Mapping[str, str]) -> None:
        self._cwd, self._env = cwd, dict(env)
        # tmux gives a single word to a shell and runs several words as they are: with env there are several.
        program = ("env", "--", *argv)
        pane = ("-p", "-t", f"{TMUX_SESSION}:")
        self._tmux(
            *(
                "new-session",
                "-d",
                "-s",
                TMUX_SESSION,
                "-x",
                "200",
                "-y",
                "50",
                "--",
                *map(_literal, program),
                ";",
            ),
            *(
                "set-option",
                *pane,
                "remain-on-exit",
                "on",
                ";",
            ),  # keeps the exit status until we have read it
            *("set-hook", *pane, "pane-died", f"wait-for -S {_ENDED}"),
        )
        self._pane = self._tmux("display-message", "-p", "-t", f"{TMUX_SESSION}:", "#{pane_id}")
        self._status = _UNKNOWN
        # Ends when the pane's program has ended, or when the server is gone.
        self.process = start_child(("tmux", "wait-for", _ENDED), cwd=cwd, env=self._env)

    def status(self) -> int:
        with suppress(SessionError, ValueError):
            shown = self._tmux(
                "display-message", "-p", "-t", self._pane, "#{pane_dead_status}:#{pane_dead_signal}"
            )
            status, number = shown.split(":")
            self._status = int(status) if status else 128 + int(number)
            self._tmux("kill-server")
        return self._status

    def terminate(self) -> None:
        with suppress(SessionError, ValueError):
            _signal_group(
                int(self._tmux("display-message", "-p", "-t", self._pane, "#{pane_pid}")), signal.SIGTERM
            )

    def kill(self) -> None:
        with suppress(SessionError, ValueError):
            _signal_group(
                int(self._tmux("display-message", "-p", "-t", self._pane, "#{pane_pid}")), signal.SIGKILL
            )

    def _tmux(self, *arguments: str) -> str:
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
        return done.stdout.strip()


def _literal(word: str) -> str:
    # A word that ends in ";" would end the tmux command (tmux(1), COMMAND PARSING AND EXECUTION).
    return word[:-1] + "\\;" if word.endswith(";") else word


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
