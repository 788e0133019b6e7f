"""A start whose verb has died is ended, and no other."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from coding_agents.errors import EngineError
from coding_agents.supervisor import abandoned
from coding_agents.supervisor.abandoned import phase_at_gate, stop_abandoned


class Session:
    """A session that is being brought up; `busy` says of each look whether its verb lives."""

    def __init__(self, *busy: bool, phases: tuple[str, ...] = (), silent: int = 0) -> None:
        self.record: Any = SimpleNamespace(id="0" * 12, phase="starting", started_at="", container_id="c")
        self._busy, self._phases, self._silent = list(busy), list(phases), silent
        self.stopped = 0
        self.store = SimpleNamespace(is_busy=lambda _id: self._busy.pop(0) if self._busy else False)
        self.engine = SimpleNamespace(stop=self._stop)

    def reload(self) -> Any:
        if self._phases:
            self.record.phase = self._phases.pop(0)
        return self.record

    def _stop(self, container: str, *, timeout_s: int) -> None:
        assert (container, timeout_s) == ("c", 10)
        self.stopped += 1
        if self.stopped <= self._silent:
            raise EngineError("silent")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abandoned, "_LOOK_S", 0.0)


def _run(session: Any) -> None:
    asyncio.run(asyncio.wait_for(stop_abandoned(session), 5))


def test_it_is_stopped_once_its_verb_has_died() -> None:
    session = Session(True, True, False)
    _run(session)
    assert session.stopped == 1


def test_a_gate_that_was_opened_at_the_last_moment_is_left_alone() -> None:
    session = Session(True, False, phases=("running",))
    _run(session)
    assert session.stopped == 0


def test_an_engine_that_is_silent_is_asked_again() -> None:
    session = Session(False, silent=2)
    _run(session)
    assert session.stopped == 3


@pytest.mark.parametrize(
    ("phase", "started", "status", "enforced", "becomes"),
    [
        ("running", "then", None, {"user": "on"}, None),
        ("stopping", "then", None, {"user": "on"}, None),
        ("starting", "", None, {}, "failed"),  # a launch
        ("starting", "", 0, {"user": "on"}, "stopped"),
        ("starting", "", 143, {"user": "on"}, "stopped"),
        (
            "starting",
            "",
            None,
            {"user": "on"},
            None,
        ),  # it has run, was restarted by others, and nobody saved its work
    ],
)
def test_what_a_session_is_whose_gate_stayed_closed(
    phase: str, started: str, status: int | None, enforced: dict[str, str], becomes: str | None
) -> None:
    record: Any = SimpleNamespace(phase=phase, started_at=started, exit_status=status, enforced=enforced)
    assert phase_at_gate(record) == becomes
