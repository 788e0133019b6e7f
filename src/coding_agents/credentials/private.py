"""Reading files that hold secrets: only those that nobody but their owner can read, write or replace."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from coding_agents.errors import CredentialError

MAX_FILE = 1 << 20


def read_private(path: Path, *, home: Path, follow: bool) -> bytes:
    """The content of a regular file of the user. FileNotFoundError passes; else raises CredentialError.

    `home` is the user's home directory, whose owner may own the file as well: root reads for a person under sudo.
    `follow` takes a symlink of the user's own (people keep settings in one place and link them).
    """
    owners = {os.geteuid(), _owner(home)}
    try:
        _check_way(path, owners, follow=follow)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        # O_NONBLOCK: a FIFO under this name must not hang us.
        with os.fdopen(os.open(path, flags), "rb") as file:
            _check(path, os.fstat(file.fileno()), owners)
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CredentialError(
            f"cannot read {path}: {(error.strerror or str(error)).lower()}",
            hint=f"Check owner and mode of {path}.",
        ) from error
    if len(data) > MAX_FILE:
        raise CredentialError(f"{path} is larger than {MAX_FILE >> 20} MiB", hint="It is no file of secrets.")
    return data


def _check_way(path: Path, owners: set[int], *, follow: bool) -> None:
    """Refuse a link that is not the user's, and a directory in which others could put another file in its place."""
    info = path.lstat()
    if stat.S_ISLNK(info.st_mode) and (not follow or info.st_uid not in owners):
        raise CredentialError(f"{path} is a symbolic link", hint=f"Put the file itself at {path}.")
    above = path.parent.stat()  # its group is often the user's own, by a umask of 002
    if above.st_mode & 0o002 and not above.st_mode & stat.S_ISVTX:
        raise CredentialError(
            f"others can write to {path.parent}, and replace {path.name}", hint=f"chmod o-w {path.parent}"
        )


def _check(path: Path, info: os.stat_result, owners: set[int]) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise CredentialError(f"{path} is not a regular file", hint=f"Put a file at {path}.")
    if info.st_uid not in owners:
        raise CredentialError(
            f"{path} belongs to uid {info.st_uid}, not to you", hint=f"Put a file of your own at {path}."
        )
    if info.st_mode & 0o077:
        raise CredentialError(
            f"{path} can be read or written by others (mode {stat.S_IMODE(info.st_mode):04o})",
            hint=f"chmod 600 {path}, and think about whether somebody has read it.",
        )


def _owner(home: Path) -> int:
    try:
        return home.stat().st_uid
    except OSError:
        return os.geteuid()
