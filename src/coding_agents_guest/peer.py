"""Who is at the other end of a socket. Apart from `sockets`, so that the entry point starts without asyncio."""

from __future__ import annotations

import socket
import struct

UNKNOWN_UID = 2**32 - 1  # (uid_t)-1: nobody's

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end of a Unix socket, as the kernel knows it; `UNKNOWN_UID` over TCP."""
    if connection.family != socket.AF_UNIX:
        return UNKNOWN_UID
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])
