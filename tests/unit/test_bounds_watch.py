"""What ends a running session beside its own end: time that is up, and a disk that is nearly full."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coding_agents.errors import EngineError
from coding_agents.model.limits import GIB, MIB, NO_TIME
from coding_agents.model.session import Deadline
from coding_agents.supervisor import deadline as clock
from coding_agents.supervisor.bounds_watch import BoundsWatch
from coding_agents.supervisor.deadline import (
    deadline_in,
    deadline_in_force,
    deadline_of,
    is_overdue,
    seconds_left,
)
from coding_agents.supervisor.room import Room, disk_of, require_room, room_of

_PLENTY = Room(free_bytes=50 * GIB, free_inodes=10**6, size_bytes=100 * GIB, inodes=10**7)


class Told:
    """What the watch said, in order."""

    def __init__(
        self, *, deadline: Deadline | None = None, room: Room | None = _PLENTY, limit_s: int = 7200
    ) -> None:
        self.said: list[object] = []
        self.deadline, self.room = deadline, room
        self.watch = BoundsWatch(
            deadline=lambda: self.deadline,
            time_limit_s=limit_s,
            room=lambda: self.room,
            reserve=5 * GIB,
            on_end=lambda reason, at_once: self.said.append((reason, at_once)),
            on_warning=self.said.append,
        )


def test_nothing_is_said_while_there_is_room_and_time() -> None:
    told = Told(deadline=deadline_in(7200))
    assert not told.watch.look()
    assert told.said == []


@pytest.mark.parametrize(
    ("room", "ends"),
    [
        (Room(5 * GIB, 10**6, 100 * GIB, 10**7), ""),
        (Room(5 * GIB - 1, 10**6, 100 * GIB, 10**7), "the engine's disk has only 5119m left"),
        (Room(2 * GIB, 10**6, 10 * GIB, 10**7), ""),  # a tenth of a small disk is enough
        (Room(GIB - 1, 10**6, 10 * GIB, 10**7), "the engine's disk has only 1023m left"),
        (Room(50 * GIB, 199_999, 100 * GIB, 10**7), "the engine's disk has only 199999 inodes left"),
        (Room(50 * GIB, 0, 100 * GIB, 0), ""),  # btrfs counts none
    ],
)
def test_a_disk_that_is_nearly_full_ends_it_at_once(room: Room, ends: str) -> None:
    told = Told(room=room)
    assert told.watch.look() == bool(ends)
    assert told.said == ([(ends, True)] if ends else [])


def test_a_disk_that_cannot_be_asked_ends_nothing() -> None:
    told = Told(room=None)
    assert not told.watch.look()
    assert Room.of("/nonexistent/place") is None
    here = Room.of("/")
    assert here is not None
    assert here.size_bytes > here.free_bytes > MIB


def test_time_is_told_once_before_it_is_up_and_then_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told, now = Told(deadline=deadline_in(7200)), time.clock_gettime_ns
    for passed, said in ((6800, 0), (6950, 1), (7000, 1), (7201, 2)):
        monkeypatch.setattr(clock.time, "clock_gettime_ns", lambda which, p=passed: now(which) + p * 10**9)
        assert told.watch.look() == (passed > 7200)
        assert len(told.said) == said, passed
    assert told.said[1] == ("its time of 2h is up", False)


def test_a_short_time_is_told_when_a_tenth_of_it_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    told, now = Told(deadline=deadline_in(60), limit_s=60), time.clock_gettime_ns
    for passed, said in ((50, 0), (55, 1)):
        monkeypatch.setattr(clock.time, "clock_gettime_ns", lambda which, p=passed: now(which) + p * 10**9)
        assert not told.watch.look()
        assert len(told.said) == said


def test_the_date_moves_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline, wall = deadline_in(600), time.time_ns
    for jump in (-(10**6), 10**6):
        monkeypatch.setattr(clock.time, "time_ns", lambda j=jump: wall() + j * 10**9)
        assert 590 < seconds_left(deadline) <= 600


def test_after_a_restart_of_this_machine_the_wall_clock_counts() -> None:
    before = Deadline(boot="another boot", boottime_ms=10**15, wall_ms=time.time_ns() // 10**6 - 1000)
    assert is_overdue(before)
    assert not is_overdue(Deadline("another boot", 0, time.time_ns() // 10**6 + 60_000))
    assert not is_overdue(None)


def test_limits_of_the_record_make_the_deadline() -> None:
    assert deadline_of({}) is None
    assert deadline_of({"time_s": str(NO_TIME)}) is None
    made = deadline_of({"time_s": "600"})
    assert made is not None
    assert 590 < seconds_left(made) <= 600


@pytest.mark.parametrize(("local", "found"), [(True, "/"), (False, "")])
def test_only_a_disk_of_this_machine_is_asked(local: bool, found: str) -> None:
    info = SimpleNamespace(data_root="/", is_local=local)
    session: Any = SimpleNamespace(engine=SimpleNamespace(info=info), record=SimpleNamespace(quota=False))
    assert disk_of(session) == found


def test_with_a_file_system_of_its_own_the_disk_of_its_image_is_asked() -> None:
    info = SimpleNamespace(data_root="/proc", is_local=True)
    record = SimpleNamespace(quota=True, limits={"disk_reserve": str(1 << 50)})
    session: Any = SimpleNamespace(engine=SimpleNamespace(info=info), record=record, directory=Path("/"))
    room = room_of(session)
    assert room is not None
    assert room.size_bytes > 0  # which those of /proc are not
    assert room.lacks(1 << 60) == "" or room.lacks(1 << 60).startswith(
        "the disk with the session's image has only"
    )


@pytest.mark.parametrize(("phase", "holds"), [("running", True), ("starting", False), ("stopped", False)])
def test_the_deadline_of_an_earlier_start_is_not_that_of_the_next(phase: str, holds: bool) -> None:
    deadline = deadline_in(-10)
    record: Any = SimpleNamespace(phase=phase, deadline=deadline)
    assert deadline_in_force(record) is (deadline if holds else None)


@pytest.mark.parametrize(("reserve", "refused"), [(64 << 20, False), (1 << 50, True)])
def test_nothing_is_started_on_a_disk_on_which_it_would_be_ended(
    monkeypatch: pytest.MonkeyPatch, reserve: int, refused: bool
) -> None:
    nearly_full = Room(free_bytes=GIB, free_inodes=10**6, size_bytes=100 * GIB, inodes=10**7)
    monkeypatch.setattr(Room, "of", lambda *_: nearly_full)
    info = SimpleNamespace(data_root="/", is_local=True)
    record = SimpleNamespace(limits={"disk_reserve": str(reserve)}, quota=False)
    session: Any = SimpleNamespace(engine=SimpleNamespace(info=info), record=record)
    if refused:
        with pytest.raises(EngineError, match="the engine's disk has only 1g left"):
            require_room(session)
    else:
        require_room(session)
