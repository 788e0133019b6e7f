"""What gVisor's kernel says of itself: it answers the system calls there, without our profile, and not the host's."""

from __future__ import annotations

import os
from typing import Any

_READ_ALL = 3  # syslog(2), SYSLOG_ACTION_READ_ALL
_PR_GET_NO_NEW_PRIVS = 39
_AT_FDCWD, _AT_NO_AUTOMOUNT, _STATX_BASIC = -100, 0x800, 0x7FF
_LOG_BYTES = 4096
_STATX_BYTES = 256


def read_kernel() -> dict[str, Any]:
    """The kernel's own words and its answers to two calls, for a process that has no seccomp filter.

    `release` is uname(2)'s, `log` the beginning of the kernel's log ("" when it may not be read), `no_new_privs`
    whether no program can gain privileges (gVisor has no switch for it: it always answers yes), `statx` whether
    statx(2) takes a flag that `ls` needs. Raises OSError.
    """
    import ctypes  # where there is a filter nobody asks

    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(_LOG_BYTES)
    length = libc.klogctl(_READ_ALL, buffer, _LOG_BYTES)
    found = ctypes.create_string_buffer(_STATX_BYTES)
    stated = libc.statx(_AT_FDCWD, b"/", _AT_NO_AUTOMOUNT, _STATX_BASIC, found)
    return {
        "release": os.uname().release,
        "log": buffer.raw[: max(length, 0)].decode("ascii", "replace")[:200],
        "no_new_privs": libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
        "statx": stated == 0,
    }
