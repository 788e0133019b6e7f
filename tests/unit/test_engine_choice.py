"""How a session finds the engine of its launch again."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from coding_agents.engine.api import EngineInfo
from coding_agents.supervisor.context import engine_choice
from support.fake_engine import FakeEngine


def _info(context: str) -> EngineInfo:
    return replace(FakeEngine(Path("engine")).info, context=context)


def test_the_context_of_the_launch_is_remembered_also_when_no_variable_named_it() -> None:
    assert engine_choice({"HOME": "/h"}, _info("desktop-linux")) == (("DOCKER_CONTEXT", "desktop-linux"),)
    assert engine_choice({}, _info("")) == ()


def test_a_variable_says_more_than_the_context_in_use() -> None:
    host = {"DOCKER_HOST": "ssh://box", "DOCKER_CONFIG": "/c", "PATH": "/bin"}
    assert dict(engine_choice(host, _info("default"))) == {"DOCKER_HOST": "ssh://box", "DOCKER_CONFIG": "/c"}
    assert engine_choice({"DOCKER_CONTEXT": "a"}, _info("a")) == (("DOCKER_CONTEXT", "a"),)
