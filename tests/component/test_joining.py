"""Which flags of a launch a session that is there already can still take over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coding_agents.app.joining import require_joinable, unapplied
from coding_agents.app.launch_request import LaunchOptions, LaunchRequest, parse_request
from coding_agents.errors import SessionExistsError
from support.host import host_environment
from support.sessions import session_record

LIMITS = {"cpus": "4", "memory_bytes": str(8 << 30), "pids": "4096"}
SESSION = session_record(name="demo-shop-work", branch="demo/work", limits=LIMITS, message="Save work")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def request(home: Path, **flags: Any) -> LaunchRequest:
    return parse_request(host_environment(home), LaunchOptions(empty=not flags.get("clean"), **flags))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({}, ""),
        ({"branch": "work", "network": "restricted", "cpu": "4.0", "memory": "8192m", "pids": "4096"}, ""),
        ({"engine": "docker", "message": "Save work", "force": True, "detach": True}, ""),
        ({"engine": "auto"}, ""),
        ({"memory": "2g"}, "--memory 2g does not apply (it has 8g)"),
        (
            {"cpu": "0.50", "pids": "99", "network": "allow-all"},
            "--network-proxy allow-all, --cpu 0.5 and --pids 99 do not apply (it has restricted, 4, 4096)",
        ),
        ({"engine": "podman", "rm": True}, "--engine podman and --rm do not apply (it has docker)"),
        ({"message": "Mine"}, '--message "Mine" does not apply (it has "Save work")'),
        ({"branch": "other"}, "-b demo/other does not apply (it has demo/work)"),
        ({"no_push": True}, "--no-push does not apply"),
        ({"best_effort": ("swap",)}, "--best-effort does not apply"),
        (
            {"clean": True, "include": ("*.bin",), "dotnet_preview": "11.0"},
            "--clean, --include and --dotnet-preview do not apply",
        ),
    ],
)
def test_what_does_not_apply_is_told_with_what_the_session_has(
    home: Path, flags: dict[str, Any], told: str
) -> None:
    assert unapplied(request(home, **flags), SESSION) == told


def test_flags_that_the_session_has_are_not_told(home: Path) -> None:
    session = SESSION.evolve(push=False, rm=True)
    assert unapplied(request(home, no_push=True), session) == ""
    assert unapplied(request(home, rm=True), session) == ""


def test_settings_files_ask_for_nothing_of_a_session_that_is_there(home: Path) -> None:
    config = home / ".config/coding-agents/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[limits]\nmemory = "2g"\n[network]\nmode = "restricted"\n')
    asked = request(home)
    assert asked.settings.network_mode == "restricted"
    assert unapplied(asked, SESSION) == ""
    require_joinable(asked, SESSION.evolve(network="allow-all"))


def test_a_network_wall_that_was_asked_for_and_is_absent_is_an_error(home: Path) -> None:
    with pytest.raises(SessionExistsError, match="with network allow-all: joining it would") as told:
        require_joinable(request(home, network="restricted"), SESSION.evolve(network="allow-all"))
    assert "another -b or --name" in told.value.hint
    require_joinable(request(home, network="allow-all"), SESSION)
    require_joinable(request(home, network="restricted"), SESSION)
