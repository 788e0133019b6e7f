"""Git's settings of a session, which the bridge writes where the image's own /etc/gitconfig includes them.

Those in COMMITS are for the session's own repository alone; the others include them there.
"""

from __future__ import annotations

import binascii
import os
import stat
import zlib
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.sockets import UnsafeDirectoryError

NAME = "gitconfig"
COMMITS = "gitconfig-commits"
MAX_TEXT = 512 * 1024


def unpack(argument: str) -> bytes:
    """The text in the bridge's argument: base64 of a zlib stream. Raises ValueError."""
    try:
        packed = zlib.decompressobj()
        text = packed.decompress(binascii.a2b_base64(argument.encode("ascii")), MAX_TEXT)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"git's settings are damaged: {error}") from None
    if not packed.eof:
        raise ValueError("git's settings are damaged or too long")
    return text


def write_settings(directory: Path, text: bytes, name: str = NAME) -> None:
    """Put `text` at `directory`/`name`, whole, readable by all; one of ours that is there is replaced.

    Raises UnsafeDirectoryError when something of another user is in the way, OSError.
    """
    path = directory / name
    with suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise UnsafeDirectoryError(f"{path} belongs to somebody else")
    # In a sticky directory nobody can foresee this name and nobody but us can move what has it.
    draft = directory / f".{name}.{os.urandom(8).hex()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        draft.rename(path)
    except BaseException:
        draft.unlink()
        raise
