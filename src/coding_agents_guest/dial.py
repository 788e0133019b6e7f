"""`dial PORT`: carry our standard streams to a port of the container's loopback, for a login that waits there.

The login's program runs in the container and its user's browser on the host: what that sends to the port there comes
in here.
"""

from __future__ import annotations

import _socket
import sys
from collections.abc import Sequence

from coding_agents_guest.relay_client import splice


def main(arguments: Sequence[str]) -> int:
    """Returns 0 when the other end has closed, 1 when nobody listens there, 2 for a port that is none."""
    if len(arguments) != 1 or not arguments[0].isdecimal() or not 0 < int(arguments[0]) < 65536:
        print("usage: guest.pyz dial PORT", file=sys.stderr)
        return 2
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        connection.connect(("127.0.0.1", int(arguments[0])))
    except OSError as error:
        print(f"dial: nobody listens on port {arguments[0]}: {error.strerror}", file=sys.stderr)
        connection.close()
        return 1
    splice(connection, 0, 1)
    return 0
