"""`mcp NAME`: what an agent's CLI runs in the place of a server that holds a secret.

It asks the host for that server and carries the CLI's bytes to it and back. It holds nothing, and what it may ask for
is decided on the host.
"""

from __future__ import annotations

import _socket
import re
import sys
from collections.abc import Sequence

from coding_agents_guest.relay_client import splice

_SOCKET = "/run/coding-agents/mcp.sock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_MAX_ANSWER = 1024
STARTED = b"started"


def main(arguments: Sequence[str], path: str = _SOCKET) -> int:
    """Be the server that `arguments` name on our standard streams; 1 with the host's reason when it refuses."""
    if len(arguments) != 1 or not _NAME.fullmatch(arguments[0]):
        print("mcp: wants the name of a server", file=sys.stderr)
        return 2
    host = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        host.connect(path)
        host.sendall(f"{arguments[0]}\n".encode())
        answer = _line(host)
    except OSError as error:
        print(f"mcp: {arguments[0]}: the host is not reachable: {error.strerror}", file=sys.stderr)
        return 1
    if answer != STARTED:
        print(f"mcp: {arguments[0]}: {answer.decode(errors='replace') or 'refused'}", file=sys.stderr)
        return 1
    splice(host, 0, 1)
    return 0


def _line(host: _socket.socket) -> bytes:
    """The host's first line, and not a byte of what follows it."""
    line = b""
    while len(line) < _MAX_ANSWER and (byte := host.recv(1)) not in (b"", b"\n"):
        line += byte
    return line
