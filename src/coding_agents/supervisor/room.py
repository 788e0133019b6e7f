"""How much room is left on the disk of a session's engine, and whether a session may go on with that."""

from __future__ import annotations

import os

import msgspec

from coding_agents.errors import EngineError
from coding_agents.model.limits import size_text
from coding_agents.supervisor.context import SessionContext

ENGINES_DISK = "the engine's disk"
_IMAGES_DISK = "the disk with the session's image"
_SMALL_DISK = 10  # of a disk that is smaller than ten reserves, a tenth is kept
_SHARE_OF_INODES = 50  # the fiftieth part of them is kept: containers that salvage need some, too


class Room(msgspec.Struct, frozen=True):
    """What anybody may still use of a file system, and how many bytes and inodes it has (0: those are not counted).

    `name` is what it is called.
    """

    free_bytes: int
    free_inodes: int
    size_bytes: int
    inodes: int
    name: str = ENGINES_DISK

    @classmethod
    def of(cls, path: str, name: str = ENGINES_DISK) -> Room | None:
        """Of the file system of `path`, None when it cannot be asked (its directory is another user's)."""
        try:
            found = os.statvfs(path)
        except OSError:
            return None
        return cls(
            found.f_bavail * found.f_frsize,
            found.f_favail,
            found.f_blocks * found.f_frsize,
            found.f_files,
            name,
        )

    def kept(self, reserve: int) -> int:
        """How many bytes sessions must leave free here."""
        return min(reserve, self.size_bytes // _SMALL_DISK)

    def lacks(self, reserve: int) -> str:
        """Why a session must not write on, with `reserve` bytes to be kept free; "" while it may."""
        if self.free_bytes < self.kept(reserve):
            return f"{self.name} has only {size_text(self.free_bytes >> 20 << 20)} left"
        if self.free_inodes < self.inodes // _SHARE_OF_INODES:
            return f"{self.name} has only {self.free_inodes} inodes left"
        return ""


def disk_of(session: SessionContext) -> str:
    """A path on the disk that the session fills, to ask for its room; "" when that is another machine's.

    It is the engine's, or with a file system of the session's own that with its image.
    """
    if session.record.quota:
        return os.fspath(session.directory)
    info = session.engine.info
    return info.data_root if info.is_local and Room.of(info.data_root) is not None else ""


def room_of(session: SessionContext) -> Room | None:
    """What is left there; None when nobody can say."""
    disk = disk_of(session)
    return Room.of(disk, _IMAGES_DISK if session.record.quota else ENGINES_DISK) if disk else None


def require_room(session: SessionContext) -> None:
    """Raise EngineError where the watch would end a session as soon as it has begun."""
    room = room_of(session)
    if room is not None and (lack := room.lacks(int(session.record.limits.get("disk_reserve", 0)))):
        raise EngineError(
            f"{lack}, and sessions must leave more than that",
            details=disk_of(session),
            hint="Free some room (`coding-agents prune` may), or lower the setting limits.disk_reserve.",
        )
