"""The notices of a session's supervisor, for a terminal that is attached to it: asked for and waited for, one after
the other, without blocking."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

from coding_agents.errors import CodingAgentsError
from coding_agents.model.notice import Notice
from coding_agents.supervisor.protocol import MAX_LINE, Op, decode, encode, raise_failure, read_notices

_AGAIN_S = 2.0  # after a supervisor that is not there, or leaves


class NoticeFeed:
    """A question to the supervisor at `path` (its control socket) that is answered with the next notices.

    It starts no supervisor. What happens while none is there is not told.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._link: socket.socket | None = None
        self._line = b""
        self._seen: int | None = None
        self._not_before = 0.0

    @property
    def fd(self) -> int | None:
        """What becomes readable when `take` has something to do; None while there is no supervisor."""
        if self._link is None and time.monotonic() >= self._not_before:
            self._ask()
        return None if self._link is None else self._link.fileno()

    def take(self) -> tuple[Notice, ...]:
        """The notices that have arrived; asks for the next ones."""
        if self._link is None:
            return ()
        try:
            data = self._link.recv(65536)
        except BlockingIOError:
            return ()
        except OSError:
            data = b""
        self._line += data
        if data and not self._line.endswith(b"\n") and len(self._line) <= MAX_LINE:
            return ()
        line, self._line = self._line, b""
        self.close()
        try:
            answer: dict[str, Any] = raise_failure(decode(line))
            notices, number = read_notices(answer)
        except CodingAgentsError:
            self._seen, self._not_before = None, time.monotonic() + _AGAIN_S
            return ()
        self._seen = number
        return notices

    def close(self) -> None:
        """Ask no more, until `fd` is looked at again."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _ask(self) -> None:
        link = socket.socket(socket.AF_UNIX)
        link.setblocking(False)
        try:
            link.connect(str(self._path))
            link.send(encode({"op": Op.NOTICES.value, "after": self._seen}))
        except OSError:
            link.close()
            self._not_before = time.monotonic() + _AGAIN_S
            return
        self._link = link
