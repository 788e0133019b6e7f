"""A restarted holder is believed only when it has reported its guard once more than before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from coding_agents.app.holder import guard_problems, times_ready
from coding_agents.engine.api import Engine
from coding_agents.proc.runner import Outcome


class RulesReadError(Exception):
    """The rules were about to be read back."""


@dataclass
class RestartedHolder:
    """An engine whose holder's log holds one earlier report, and from the third look on the new one."""

    looks: int = field(default=0)

    def logs(self, container: str, *, tail: int | None = None) -> bytes:
        self.looks += 1
        return b"ready\n" * (2 if self.looks >= 3 else 1)

    def inspect(self, container: str) -> Any:
        return type("State", (), {"running": True})

    def network_subnets(self, network: str) -> tuple[str, ...]:
        return ()

    def exec(self, *args: object, **options: object) -> Outcome:
        raise RulesReadError


def test_the_report_of_an_earlier_start_does_not_count() -> None:
    engine = RestartedHolder()
    with pytest.raises(RulesReadError):
        guard_problems(cast(Engine, engine), "holder", network="net", dns=(), private=(), earlier=1)
    assert engine.looks == 3


def test_only_whole_lines_count() -> None:
    assert times_ready(b"holder: table already there\nready\nnot ready\nready\n") == 2
