"""A start waits for what the holder reports after this very start, not for what an earlier one left in its log."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coding_agents.app import start as module
from coding_agents.app.bring_up import Guarding
from coding_agents.app.steps import Trace


class Engine:
    """A container that has ended, and a holder whose log holds two earlier reports."""

    def inspect(self, container: str) -> Any:
        return SimpleNamespace(running=False, config=SimpleNamespace(dns=("192.0.2.1",)))

    def logs(self, container: str) -> bytes:
        return b"ready\nready\n"

    def start(self, container: str) -> None:
        pass

    def stop(self, container: str, *, timeout_s: int) -> None:
        pass


def test_reports_of_earlier_starts_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    record = SimpleNamespace(
        id="0" * 12, name="demo-x", container_id="c", holder_id="h", private=(), agent="demo", guest_volume="v",
        mode="command", command=("true",), asked=(), started_at="", phase="stopped",
    )  # fmt: skip
    session: Any = SimpleNamespace(
        record=record, engine=Engine(), reload=lambda: record, update=lambda **changes: None,
        store=SimpleNamespace(lock=lambda session_id: nullcontext()),
        env=SimpleNamespace(config_dir=Path("/nonexistent")),
    )  # fmt: skip
    seen: list[Guarding] = []
    for name, stub in {
        "_await_settled": lambda session: None,
        "_plan": lambda session, guarding: SimpleNamespace(holder=SimpleNamespace(name="h")),
        "load_manifest": lambda *args: None,
        "restart_config": lambda *args: None,
        "bring_up": lambda *args, guarding, asked: seen.append(guarding),
    }.items():
        monkeypatch.setattr(module, name, stub)
    module.start(session, Trace())
    assert seen == [Guarding(("192.0.2.1",), (), earlier=2)]
