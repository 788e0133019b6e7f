"""Whether an answer hands the turn back to the agent's user: it asked for no tool. For display alone."""

from __future__ import annotations

_CALLS = (b'"tool_use"', b'"tool_calls":[', b'"tool_calls": [', b'_call"', b'"functionCall"')
"""Marks of a tool call in the answers of the APIs; a text in which one of them stands is escaped there."""

_LONGEST = max(map(len, _CALLS)) - 1


class TurnReader:
    """Looks through the pieces of an answer. `calls` tells whether a tool call was seen."""

    def __init__(self) -> None:
        self._end = b""
        self.calls = False

    def feed(self, data: bytes) -> None:
        """Look at the next bytes."""
        if not self.calls:
            seen = self._end + data
            self.calls = any(mark in seen for mark in _CALLS)
            self._end = seen[-_LONGEST:]
