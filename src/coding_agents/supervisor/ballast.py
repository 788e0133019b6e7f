"""The ballast of a running session: room on the disk that it fills, which its end is sure of.

A disk may be full to its last block by the time a session is killed for it, and there an engine cannot even make the
container that salvages its work. So while a session runs a file holds some room, which is given back before anything is
saved. It lies beside the session's data and not among it: the guest neither sees nor reaches it, and the engine removes
it with the volume, should we not come to it. Where the engine's directories are not ours to write in there is none.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from pathlib import Path

from msgspec.structs import replace

from coding_agents.errors import CodingAgentsError
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.room import disk_of, room_of

BALLAST = "coding-agents.ballast"
_BYTES = 64 << 20  # for a container, and for what is saved where that goes to the same disk
_SHARE = 64  # and at most this part of the disk


def hold_ballast(session: SessionContext) -> None:
    """Take the room, where it is not what the session needs to go on. Does nothing where that cannot be done."""
    with suppress(OSError, CodingAgentsError):
        room = room_of(session)
        if room is None:
            return
        size = min(_BYTES, room.size_bytes // _SHARE)
        without = replace(room, free_bytes=room.free_bytes - size)
        if not without.lacks(int(session.record.limits.get("disk_reserve", 0))):
            with closing(_Directory(_beside(session))) as directory:
                directory.hold(size)


def drop_ballast(session: SessionContext) -> None:
    """Give the room back; it is free when this returns. Does nothing where none is held."""
    with suppress(OSError, CodingAgentsError), closing(_Directory(_beside(session))) as directory:
        directory.drop()


def _beside(session: SessionContext) -> Path:
    """The directory that holds the session's data: its own, or the one in which the engine keeps the volume.

    Both engines have volumes in `volumes`; a Podman that is told otherwise has no such directory. Raises OSError for
    an engine of another machine, and the errors of `session.engine`.
    """
    disk = disk_of(session)
    if not disk:
        raise FileNotFoundError(f"session {session.record.name} fills no disk of this machine")
    return Path(disk) if session.record.quota else Path(disk, "volumes", session.record.volumes.workspace)


class _Directory:
    """A directory of this user's, held open. Raises OSError for what is none, and for another user's."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.fstat(self._fd).st_uid != os.geteuid():
            self.close()
            raise PermissionError(f"{path} is another user's")

    def close(self) -> None:
        os.close(self._fd)

    def hold(self, size: int) -> None:
        new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(BALLAST, new, 0o600, dir_fd=self._fd)
        try:
            os.posix_fallocate(file, 0, size)
        except OSError:
            self.drop()
            raise
        finally:
            os.close(file)

    def drop(self) -> None:
        os.unlink(BALLAST, dir_fd=self._fd)
        os.fsync(self._fd)  # a journal gives blocks back when it commits
