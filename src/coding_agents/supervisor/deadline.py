"""When a session's time is up: an instant of a clock that nobody sets, so that no change of the date moves it.

CLOCK_BOOTTIME goes on while the machine sleeps (clock_gettime(2)). After a restart of this machine the instant says
nothing; a session that still runs then, on another machine's engine, is held to the wall clock.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from coding_agents.model.limits import NO_TIME
from coding_agents.model.session import Deadline, SessionRecord

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # random(4)
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS has no such clock


def deadline_in(seconds: int) -> Deadline:
    """The instant in `seconds` from now."""
    ms = seconds * 1000
    return Deadline(_boot(), _ms(time.clock_gettime_ns(_CLOCK)) + ms, _ms(time.time_ns()) + ms)


def deadline_of(limits: Mapping[str, str]) -> Deadline | None:
    """The deadline of a start that begins now, by the limits of the session's record; None without such a limit."""
    seconds = int(limits.get("time_s", NO_TIME))
    return deadline_in(seconds) if seconds < NO_TIME else None


def deadline_in_force(record: SessionRecord) -> Deadline | None:
    """The deadline of the start that runs behind an open gate: until then the record has that of an earlier start."""
    return record.deadline if record.phase == "running" else None


def seconds_left(deadline: Deadline) -> float:
    """How long it is until then, negative when it has passed."""
    if deadline.boot == _boot():
        return (deadline.boottime_ms - _ms(time.clock_gettime_ns(_CLOCK))) / 1000
    return (deadline.wall_ms - _ms(time.time_ns())) / 1000


def is_overdue(deadline: Deadline | None) -> bool:
    """Whether a session with this deadline should have ended; without one it never should."""
    return deadline is not None and seconds_left(deadline) <= 0


def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _ms(nanoseconds: int) -> int:
    return nanoseconds // 1_000_000
