"""What no kernel bounds for us while a session runs: its time, and the room that is left on the engine's disk.

Both are looked at each second. A disk that is nearly full ends the session at once, by a kill: whatever saves inside
would write still more, and salvage reads the volume without writing to it. Time that is up ends it as `stop` does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import msgspec

from coding_agents.errors import EngineError
from coding_agents.model.limits import duration_text, size_text
from coding_agents.model.session import Deadline
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.deadline import seconds_left

_LOOK_S = 1.0
_WARN_S = 300.0  # and never before nine tenths of the time have passed
_SMALL_DISK = 10  # of a disk that is smaller than ten reserves, a tenth is kept
_SHARE_OF_INODES = 50  # the fiftieth part of them is kept: containers that salvage need some, too


class Room(msgspec.Struct, frozen=True):
    """What anybody may still use of a file system, and how many bytes and inodes it has (0: those are not counted)."""

    free_bytes: int
    free_inodes: int
    size_bytes: int
    inodes: int

    @classmethod
    def of(cls, path: str) -> Room | None:
        """Of the file system of `path`, None when it cannot be asked (its directory is another user's)."""
        try:
            found = os.statvfs(path)
        except OSError:
            return None
        return cls(
            found.f_bavail * found.f_frsize, found.f_favail, found.f_blocks * found.f_frsize, found.f_files
        )

    def lacks(self, reserve: int) -> str:
        """Why a session must not write on, with `reserve` bytes to be kept free; "" while it may."""
        wanted = min(reserve, self.size_bytes // _SMALL_DISK)
        if self.free_bytes < wanted:
            return f"the engine's disk has only {size_text(self.free_bytes >> 20 << 20)} left"
        if self.free_inodes < self.inodes // _SHARE_OF_INODES:
            return f"the engine's disk has only {self.free_inodes} inodes left"
        return ""


def disk_of(session: SessionContext) -> str:
    """The path by which the room of the engine's disk can be asked, "" when it is another machine's."""
    info = session.engine.info
    return info.data_root if info.is_local and Room.of(info.data_root) is not None else ""


def require_room(session: SessionContext) -> None:
    """Raise EngineError where the watch would end a session as soon as it has begun."""
    disk = disk_of(session)
    room = Room.of(disk) if disk else None
    if room is not None and (lack := room.lacks(int(session.record.limits.get("disk_reserve", 0)))):
        raise EngineError(
            f"{lack}, and sessions must leave more than that",
            details=disk,
            hint="Free some room (`coding-agents prune` may), or lower the setting limits.disk_reserve.",
        )


class BoundsWatch:
    """One session's. `deadline` gives the instant at which its time is up, `room` what is left on the engine's disk.

    `on_end` is told once why the session must end, and whether at once; `on_warning` that its time is nearly up.
    """

    def __init__(
        self,
        *,
        deadline: Callable[[], Deadline | None],
        time_limit_s: int,
        room: Callable[[], Room | None],
        reserve: int,
        on_end: Callable[[str, bool], None],
        on_warning: Callable[[str], None],
    ) -> None:
        self._deadline = deadline
        self._time_limit_s = time_limit_s
        self._room = room
        self._reserve = reserve
        self._on_end = on_end
        self._on_warning = on_warning
        self._warned = False

    async def watch(self) -> None:
        """Until a bound is reached; the caller cancels it when the session has ended otherwise."""
        while True:
            if self.look():
                return
            await asyncio.sleep(_LOOK_S)

    def look(self) -> bool:
        """Look once; whether the session was told to end."""
        room = self._room()
        if room is not None and (lack := room.lacks(self._reserve)):
            self._on_end(lack, True)
            return True
        deadline = self._deadline()
        if deadline is None:
            return False
        left = seconds_left(deadline)
        if left <= 0:
            self._on_end(f"its time of {duration_text(self._time_limit_s)} is up", False)
            return True
        if not self._warned and left <= min(_WARN_S, self._time_limit_s / 10):
            self._warned = True
            self._on_warning(f"its time is up in {duration_text(round(left) or 1)}")
        return False
