"""The host's side of the `events` service, and an entry point process that talks to it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coding_agents_guest.events import Event, encode_event, parse_event
from coding_agents_guest.place import Place
from coding_agents_guest.records import asdict
from support.agentrepo import PATH

SOURCES = Path(__file__).parents[2] / "src"
_TIMEOUT_S = 60.0
# The real entry point in an isolated interpreter, but with the paths of the test.
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from coding_agents_guest.entrypoint import run
from coding_agents_guest.place import Place
values = dict(item.split("=", 1) for item in sys.argv[2:])
paths = {name: Path(values[name]) for name in ("workspace", "home", "sockets")}
sys.exit(run(Place(**{**values, **paths, "bridge_uid": int(values["bridge_uid"])})))
"""


class FakeHost:
    """A listening events socket as the bridge makes it."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.settimeout(_TIMEOUT_S)
        self._listener.bind(str(path))
        self._listener.listen()
        self._connection: socket.socket | None = None
        self._lines = b""

    def accept(self) -> None:
        """Take the entry point's next connection."""
        self.hang_up()
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(_TIMEOUT_S)
        self._lines = b""

    def send(self, event: Event) -> None:
        self.send_raw(encode_event(event))

    def send_raw(self, data: bytes) -> None:
        assert self._connection is not None
        self._connection.sendall(data)

    def next(self) -> Event | None:
        """The next event, None at the end of the stream."""
        assert self._connection is not None
        while b"\n" not in self._lines:
            data = self._connection.recv(65536)
            if not data:
                return None
            self._lines += data
        line, self._lines = self._lines.split(b"\n", 1)
        return parse_event(line)

    def until(self, kind: type[Event]) -> list[Event]:
        """Events up to the first of `kind`, included."""
        taken: list[Event] = []
        while not (taken and isinstance(taken[-1], kind)):
            event = self.next()
            assert event is not None, taken
            taken.append(event)
        return taken

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        self.hang_up()
        self._listener.close()


@contextmanager
def fake_host(place: Place) -> Iterator[FakeHost]:
    """A host that listens at the place of the events socket."""
    host = FakeHost(place.events)
    try:
        yield host
    finally:
        host.close()
        place.events.unlink(missing_ok=True)


@contextmanager
def entry_point(place: Place, *, wrapper: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """The entry point as a process (run by `wrapper`, if given); ended after the block if it still runs.

    Its output goes to the files `stdout` and `stderr` beside the workspace.
    """
    values = [f"{name}={value}" for name, value in asdict(place).items()]
    root = place.workspace.parent
    with (root / "stdout").open("wb") as stdout, (root / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            (*wrapper, sys.executable, "-IS", "-c", _PROGRAM, str(SOURCES), *values),
            env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    try:
        yield process
    finally:
        for _ in range(100):  # each request after the first kills the agent at once
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.1)
                break
        process.kill()
        process.wait()
