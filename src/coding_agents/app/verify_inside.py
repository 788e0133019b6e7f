"""Attempts carried out in a container: sent as text, run side by side, their answers read as from an enemy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from coding_agents.engine.api import Engine
from coding_agents.proc import runner
from coding_agents.sandbox.spec import AGENT_USER, HOME
from coding_agents.verify.model import Attempt, Evidence, Found
from coding_agents.verify.program import attack_argv

LIMIT_S: Final = 2.0
"""Of one attempt, while others run; one that needs more is tried again alone, and then it has three times as much."""

_AT_ONCE: Final = 6
_CALL_S: Final = 100.0
_ENVIRONMENT: Final = (("HOME", HOME), ("LANG", "C.UTF-8"))


def attempt_all(
    engine: Engine,
    container: str,
    attempts: Mapping[str, Attempt],
    *,
    user: str = AGENT_USER,
    at_once: int = _AT_ONCE,
    limit_s: float = LIMIT_S,
) -> Evidence:
    """What came of each attempt; never raises for what a container says or does."""
    calls = [[key, one.module, one.function, list(one.arguments)] for key, one in attempts.items()]
    argv = attack_argv("suite", "run", (calls, limit_s, at_once))
    command = engine.exec_command(container, argv, user=user, workdir="/tmp", env=_ENVIRONMENT)  # noqa: S108 - inside
    outcome = runner.run(replace(command, timeout_s=_CALL_S))
    try:
        told = json.loads(outcome.stdout.splitlines()[-1])
        return {key: _found(told.get(key)) for key in attempts}
    except (ValueError, IndexError, AttributeError):
        why = f"the attempts gave no answer: {outcome.describe()[-300:]}"
        return {key: Found(error=why) for key in attempts}


def attempt(
    engine: Engine, container: str, one: Attempt, *, user: str = AGENT_USER, limit_s: float = LIMIT_S
) -> Found:
    """What came of a single attempt."""
    return attempt_all(engine, container, {"one": one}, user=user, limit_s=limit_s)["one"]


def _found(told: Any) -> Found:
    if not isinstance(told, dict):
        return Found(error="no answer")
    ms = told.get("ms")
    if "value" in told:
        return Found(value=told["value"], ms=ms if isinstance(ms, int) else 0)
    return Found(error=str(told.get("error", "no answer"))[:300], ms=ms if isinstance(ms, int) else 0)
