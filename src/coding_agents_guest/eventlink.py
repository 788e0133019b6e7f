"""The entry point's end of the `events` service: lines of JSON over the bridge's socket."""

from __future__ import annotations

import socket
from pathlib import Path

from coding_agents_guest.events import MAX_LINE, Event, Report, encode_event, parse_event
from coding_agents_guest.peer import connect
from coding_agents_guest.wire import WireError

_SEND_TIMEOUT_S = 10.0


class EventLink:
    """A connection to the host. Every method raises OSError when it is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    @classmethod
    def connect(cls, path: Path, *, owner_uid: int) -> EventLink:
        """Connect to the bridge at `path`. Raises OSError when there is none that `owner_uid` runs.

        The agent could have put a socket of its own there while no bridge was running.
        """
        connection, uid = connect(path, timeout_s=_SEND_TIMEOUT_S)
        if uid != owner_uid:
            connection.close()
            raise PermissionError(f"{path} belongs to user {uid}")
        return cls(connection)

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()

    def send(self, report: Report) -> None:
        """Send one report; waits for the host to take it."""
        self._connection.sendall(encode_event(report))

    def receive(self) -> list[Event]:
        """Wait for bytes; returns the events that are now complete. Raises ConnectionError at the end."""
        data = self._connection.recv(MAX_LINE)
        if not data:
            raise ConnectionResetError("the host has closed the event stream")
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > MAX_LINE:
            raise ConnectionAbortedError("event line too long")
        try:
            return [parse_event(line) for line in lines]
        except WireError as error:
            raise ConnectionAbortedError(f"unreadable event: {error}") from error
