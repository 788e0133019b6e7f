"""Talk to a session's supervisor from a verb, starting it when it is not there."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from coding_agents.errors import AnswerLostError, StoreError, SupervisorError, SupervisorGoneError
from coding_agents.proc.runner import Command, start_detached
from coding_agents.store.files import locked
from coding_agents.supervisor.protocol import MAX_LINE, Op, decode, encode, raise_failure

_START_TIMEOUT_S = 60.0  # a slow machine that is busy with other things; one that ends is noticed at once
_LEAVE_S = 10.0
_TRIES = 3


class SupervisorClient:
    """The way to one session's supervisor. `socket_path` is its control socket."""

    def __init__(self, session_dir: Path, socket_path: Path, env: Mapping[str, str]) -> None:
        self._session_dir = session_dir
        self._socket_path = socket_path
        self._env = env

    def running(self) -> bool:
        """Whether a supervisor answers."""
        try:
            self.call(Op.STATUS, timeout_s=5.0)
        except SupervisorError:
            return False
        return True

    def ensure(self) -> None:
        """Start the supervisor unless one runs; returns when it is ready. Raises SupervisorError."""
        if self.running():
            return
        ready, ready_end = os.pipe()
        try:
            argv = (sys.executable, "-m", "coding_agents.supervisor", str(self._session_dir), str(ready_end))
            start_detached(Command(argv, env=self._env, cwd=Path("/"), pass_fds=(ready_end,)))
            os.close(ready_end)
            ready_end = -1
            if not self._wait_until_ready(ready):
                raise SupervisorError(
                    "the session's supervisor did not start",
                    details=_tail(self._session_dir / "supervisor.log"),
                    hint=f"See {self._session_dir / 'supervisor.log'}.",
                )
        finally:
            os.close(ready)
            if ready_end >= 0:
                os.close(ready_end)

    def _wait_until_ready(self, ready: int) -> bool:
        """Whether the supervisor that we started, or one that somebody else started first, is ready."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            readable, _, _ = select.select([ready], [], [], 0.5)
            if readable:
                return os.read(ready, 1) == b"+" or self.running()
            if self.running():
                return True
        return False

    def quit(self) -> None:
        """Ask the supervisor, if there is one, to leave, and return when it has. Raises SupervisorError."""
        with suppress(SupervisorError):  # none is there, or it was leaving; who stays is told by the wait
            self.call(Op.QUIT)
        self._until_gone()

    def _until_gone(self) -> None:
        if not self._session_dir.exists():
            return
        try:
            with locked(self._session_dir / "supervisor.lock", timeout_s=_LEAVE_S):
                pass
        except StoreError as error:
            raise SupervisorError("the session's supervisor does not end") from error

    def ask(self, op: Op, *, timeout_s: float | None = 60.0, **fields: object) -> dict[str, Any]:
        """`call` a supervisor that is started when there is none, also when one leaves at this very moment."""
        for _ in range(_TRIES):
            self.ensure()
            with suppress(SupervisorGoneError):
                return self.call(op, timeout_s=timeout_s, **fields)
        raise SupervisorError(
            "the session's supervisor does not stay", details=_tail(self._session_dir / "supervisor.log")
        )

    def call(self, op: Op, *, timeout_s: float | None = 60.0, **fields: object) -> dict[str, Any]:
        """Send one request and return its answer.

        Raises the error that the answer carries, SupervisorGoneError when nobody took the request, AnswerLostError
        when somebody may have.
        `timeout_s` None waits for as long as the supervisor lives.
        """
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(timeout_s)
                connection.connect(str(self._socket_path))
                connection.sendall(encode({"op": op.value, **fields}))
                line = _read_line(connection)
        except TimeoutError as error:
            raise AnswerLostError(
                f"the supervisor did not answer {op.value!r} in {timeout_s:.0f} s"
            ) from error
        except OSError as error:
            raise SupervisorGoneError("no supervisor answers for this session", details=str(error)) from error
        return raise_failure(decode(line))


def _read_line(connection: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = connection.recv(65536)
        if not chunk or len(line) > MAX_LINE:
            raise AnswerLostError("the supervisor ended while it was asked")
        line += chunk
    return bytes(line)


def _tail(path: Path) -> str:
    try:
        return path.read_bytes()[-2000:].decode("utf-8", "replace")
    except OSError:
        return ""
