"""How verbs speak: the result on standard output, narration and errors on standard error.

Everything is escaped on its way out, since names, paths and messages may come from a repository or a
container. JSON is written in ASCII, so that it cannot hold a control character either.
"""

from __future__ import annotations

import json
from typing import TextIO

from coding_agents.errors import CodingAgentsError
from coding_agents.terminal.escape import escape
from coding_agents.terminal.streams import drop

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_CLEAR_LINE = "\r\x1b[K"


class Output:
    """The two standard streams of a verb."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._progress_shown = False

    def result(self, text: str) -> None:
        """Lines of the result, for people or for a pipe."""
        self.clear_progress()
        self._out.write(escape(text, keep="\n\t") + ("" if text.endswith("\n") else "\n"))

    def result_json(self, value: object) -> None:
        """A value of the result as one line of JSON."""
        self.result(json.dumps(value, ensure_ascii=True))

    def say(self, text: str) -> None:
        """A line of narration."""
        self.clear_progress()
        self._narrate(escape(text, keep="\n\t") + "\n")

    def aside(self, text: str) -> None:
        """A line of narration that nobody needs now: dim on a terminal."""
        self.clear_progress()
        line = escape(text)
        self._narrate(f"{_DIM}{line}{_PLAIN}\n" if self._err.isatty() else f"{line}\n")

    def ring(self, sequence: str) -> None:
        """A notice as `terminal.notice` makes it; on a terminal only."""
        if sequence and self._err.isatty():
            self.clear_progress()
            self._narrate(sequence)

    def progress(self, text: str) -> None:
        """What is being done right now, in place; on a terminal only."""
        if self._err.isatty():
            self._narrate(_CLEAR_LINE + escape(text))
            self._progress_shown = True

    def clear_progress(self) -> None:
        """Take the progress line away."""
        if self._progress_shown:
            self._narrate(_CLEAR_LINE)
            self._progress_shown = False

    def fail(self, error: CodingAgentsError, *, as_json: bool) -> int:
        """Tell an error and return the exit status to leave with."""
        self.clear_progress()
        self._narrate(error_json(error) if as_json else render_error(error))
        return error.exit_status

    def _narrate(self, text: str) -> None:
        """Write to standard error. That nobody listens is no reason to stop what is being done."""
        try:
            self._err.write(text)
            self._err.flush()
        except OSError:
            drop(self._err)


def error_json(error: CodingAgentsError) -> str:
    """The error as the one line that `--json` promises."""
    fields = {
        "code": error.code,
        "message": error.message,
        "details": _details(error),
        "hint": error.hint,
        "exit_status": error.exit_status,
    }
    return json.dumps({"error": fields}, ensure_ascii=True) + "\n"


def render_error(error: CodingAgentsError) -> str:
    """The error for people: what failed, its details indented, one thing to do."""
    lines = [f"error: {escape(error.message)}"]
    lines += [f"  {escape(line, keep=chr(9))}" for line in _details(error).split("\n") if line]
    if error.hint:
        lines.append(f"hint: {escape(error.hint)}")
    return "\n".join(lines) + "\n"


def _details(error: CodingAgentsError) -> str:
    # Failures of the clean-up after an error are its notes: they add to it, they never replace it.
    notes = getattr(error, "__notes__", [])
    return "\n".join(part for part in (error.details, *notes) if part)
