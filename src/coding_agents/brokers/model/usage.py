"""Count the tokens of an answer as it streams past, without holding it up."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

_MAX_LINE = 4 << 20
_TOLD = (b'"usage"', b'"usageMetadata"')


class Usage(msgspec.Struct, frozen=True):
    """Tokens: read (`cached` of them from the provider's cache) and written."""

    read: int = 0
    cached: int = 0
    written: int = 0

    @property
    def total(self) -> int:
        return self.read + self.written

    def plus(self, other: Usage) -> Usage:
        return Usage(self.read + other.read, self.cached + other.cached, self.written + other.written)

    def at_least(self, other: Usage) -> Usage:
        """The larger of both, field by field: events of a stream tell totals, and some leave fields out."""
        return Usage(
            max(self.read, other.read), max(self.cached, other.cached), max(self.written, other.written)
        )


def whole(value: object) -> int:
    """A number of tokens, 0 for whatever is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def estimate(sent_bytes: int, received_bytes: int) -> Usage:
    """What a request took that broke off before it was told, from four bytes a token: more, rather than less."""
    return Usage(read=-(-sent_bytes // 4), written=-(-received_bytes // 4))


class UsageReader:
    """Reads an answer's bytes, a stream of server-sent events or one JSON text. `found` is None until it is told."""

    def __init__(self, usage_of: Callable[[Mapping[str, Any]], Usage | None], *, stream: bool) -> None:
        self._usage_of = usage_of
        self._stream = stream
        self._line = bytearray()
        self._skipping = False
        self.found: Usage | None = None

    def feed(self, data: bytes) -> None:
        """Look at the next bytes."""
        if not self._stream:
            self._hold(data)
            return
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._hold(line)
            self._end_line()
        self._hold(rest)

    def finish(self) -> None:
        """Look at what is left at the end."""
        self._end_line()

    def _hold(self, data: bytes) -> None:
        self._skipping = self._skipping or len(self._line) + len(data) > _MAX_LINE
        if not self._skipping:
            self._line += data

    def _end_line(self) -> None:
        line, skipping = bytes(self._line), self._skipping
        self._line.clear()
        self._skipping = False
        if skipping or not any(word in line for word in _TOLD):
            return
        try:
            event = json.loads(line.removeprefix(b"data:") if self._stream else line)
        except (ValueError, RecursionError):
            return
        for one in event if isinstance(event, list) else (event,):
            told = self._usage_of(one) if isinstance(one, dict) else None
            if told is not None:
                self.found = told if self.found is None else self.found.at_least(told)
