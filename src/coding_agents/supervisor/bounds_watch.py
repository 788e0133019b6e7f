"""What no kernel bounds for us while a session runs: its time, and the room that is left on the engine's disk.

Both are looked at each second. A disk that is nearly full ends the session at once, by a kill: whatever saves inside
would write still more, and salvage reads the volume without writing to it. Time that is up ends it as `stop` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coding_agents.model.limits import NO_TIME, duration_text
from coding_agents.model.session import Deadline
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.deadline import deadline_in_force, seconds_left
from coding_agents.supervisor.room import Room, disk_of, room_of

_LOOK_S = 1.0
_WARN_S = 300.0  # and never before nine tenths of the time have passed


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


def watch_of(
    session: SessionContext, *, on_end: Callable[[str, bool], None], on_warning: Callable[[str], None]
) -> BoundsWatch:
    """The watch over the bounds that a session's record has."""
    limits = session.record.limits
    watched = bool(disk_of(session))
    return BoundsWatch(
        deadline=lambda: deadline_in_force(session.record),
        time_limit_s=int(limits.get("time_s", NO_TIME)),
        room=lambda: room_of(session) if watched else None,
        reserve=int(limits.get("disk_reserve", 0)),
        on_end=on_end,
        on_warning=on_warning,
    )
