"""Who is at the other end of a socket. Apart from `sockets`, so that the entry point starts without asyncio."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path

UNKNOWN_UID = 2**32 - 1  # (uid_t)-1: nobody's
UNTOLD_UID = 2**32 - 2
"""What stands for a peer where the kernel (gVisor's) tells everybody of himself."""

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end of a Unix socket, as the kernel knows it; `UNKNOWN_UID` over TCP, or `UNTOLD_UID`."""
    if connection.family != socket.AF_UNIX:
        return UNKNOWN_UID
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(credentials)
    return UNTOLD_UID if pid == os.getpid() else int(uid)  # none of us connects to itself


def connect(path: Path, *, timeout_s: float) -> tuple[socket.socket, int]:
    """Connect to the Unix socket at `path`; the connection, and whose the other end is. Raises OSError.

    Where the kernel does not tell, it is the owner of the socket, which nobody else can replace in a directory like
    ours (`sockets.check_directory`).
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        before = path.lstat()
        connection.connect(os.fspath(path))
        uid = peer_uid(connection)
        if uid == UNTOLD_UID:
            after = path.lstat()
            same = stat.S_ISSOCK(after.st_mode) and os.path.samestat(before, after)
            uid = after.st_uid if same else UNKNOWN_UID
    except BaseException:
        connection.close()
        raise
    return connection, uid
