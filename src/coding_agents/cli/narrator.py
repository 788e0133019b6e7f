"""Narration on the console."""

from __future__ import annotations

import sys

from coding_agents.cli.context import AppContext
from coding_agents.cli.output import Output


class ConsoleNarrator:
    """Narration of a launch on the console; asks on a terminal only."""

    def __init__(self, app: AppContext) -> None:
        self._env = app.env
        self._output: Output = app.output

    def say(self, text: str) -> None:
        self._output.say(text)

    def progress(self, text: str) -> None:
        self._output.progress(text)

    def confirm(self, question: str) -> bool:
        if not (self._env.stdin_tty and self._env.stderr_tty):
            return False
        self._output.say(f"{question} [y/N]")
        return sys.stdin.readline().strip().lower() in ("y", "yes")
