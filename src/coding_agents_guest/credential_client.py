"""`git-credential get`: git's `credential.helper`, which asks the host and passes on what it says.

It holds nothing, and what it may ask for is decided on the host. `store` and `erase` are for helpers that keep
something. After a refusal git goes on to its other helpers, so the reason goes to standard error and nothing else out.
"""

from __future__ import annotations

import _socket
import os
import sys
from collections.abc import Sequence

_SOCKET = "/run/coding-agents/credential.sock"
_MAX_REQUEST = 16 * 1024
_MAX_ANSWER = 64 * 1024
_CHUNK = 16 * 1024
_PATIENCE_S = 30.0  # the host gives its own helpers less
ANSWERED = b"credential\n"


def main(arguments: Sequence[str], path: str = _SOCKET) -> int:
    """Serve git once on our standard streams: 0, also where there is no credential; 2 for other words than git's."""
    if len(arguments) != 1:
        print("git-credential: wants get, store or erase", file=sys.stderr)
        return 2
    question = _read(0, _MAX_REQUEST + 1)
    if arguments[0] != "get":
        return 0
    try:
        answer = _ask(path, question)
    except OSError as error:
        print(f"coding-agents: no credential: the host is not reachable: {_why(error)}", file=sys.stderr)
        return 0
    if answer.startswith(ANSWERED):
        os.write(1, answer[len(ANSWERED) :])
    else:
        reason = answer.decode("utf-8", "replace").partition("\n")[0]
        print(f"coding-agents: no credential: {reason or 'refused'}", file=sys.stderr)
    return 0


def _ask(path: str, question: bytes) -> bytes:
    host = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        host.settimeout(_PATIENCE_S)
        host.connect(path)
        host.sendall(question)
        host.shutdown(_socket.SHUT_WR)
        answer = b""
        while len(answer) < _MAX_ANSWER and (data := host.recv(_CHUNK)):
            answer += data
        return answer
    finally:
        host.close()


def _read(descriptor: int, limit: int) -> bytes:
    data = b""
    while len(data) < limit and (part := os.read(descriptor, limit - len(data))):
        data += part
    return data


def _why(error: OSError) -> str:
    return error.strerror or "it does not answer"
