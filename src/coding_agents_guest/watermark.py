"""Which seccomp profile is in force: asked of the kernel, because a file that an engine was given proves nothing.

Each profile of ours answers one call that no program makes with an error number of its own.
"""

from __future__ import annotations

import socket

from coding_agents_guest.paths import WATERMARK_FAMILY


def read_watermark() -> int | None:
    """The error number of the profile in force; without one of ours, that of the kernel or of another profile."""
    try:
        socket.socket(WATERMARK_FAMILY, socket.SOCK_STREAM).close()
    except OSError as error:
        return error.errno
    return None
