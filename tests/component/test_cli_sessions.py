"""The verbs over sessions, through click, with stub engines on PATH."""

from __future__ import annotations

import io
import json
from pathlib import Path

import click
import pytest

from coding_agents.cli import list_, prune
from coding_agents.cli.context import AppContext
from coding_agents.cli.output import Output
from support.host import host_environment
from support.sessions import session_record

_STOPPED = "Cannot connect to the Docker daemon at unix:///x.sock. Is the docker daemon running?"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with sessions in several phases, whose engine is installed and does not answer."""
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\necho '{_STOPPED}' >&2\nexit 1\n")
    docker.chmod(0o755)
    store = AppContext(host_environment(tmp_path)).store
    for number, phase in enumerate(("running", "starting", "stopping", "stopped")):
        session_id = f"{number:012x}"
        store.create(session_id)
        store.save(session_record(session_id, name=f"demo-{phase}", phase=phase, container_id="c"))
    return tmp_path


def run(home: Path, command: click.Command, *arguments: str) -> tuple[str, str]:
    """Standard output and standard error of a verb."""
    out, err = io.StringIO(), io.StringIO()
    app = AppContext(host_environment(home, PATH=f"{home}:/usr/bin:/bin"), Output(out, err))
    command.main(list(arguments), standalone_mode=False, obj=app)
    return out.getvalue(), err.getvalue()


def test_a_silent_engine_leaves_the_last_known_states_and_is_named_once(home: Path) -> None:
    out, err = run(home, list_.command, "--json")
    assert [one["state"] for one in json.loads(out)] == ["running", "starting", "stopping"]
    assert "Docker" in err
    assert err.endswith(": the states of its sessions are the last known ones\n")
    assert err.count("\n") == 1
    out, err = run(home, list_.command, "-a")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        [f"demo-{phase}", phase] for phase in ("running", "starting", "stopping", "stopped")
    ]
    assert err.count("\n") == 1


def test_prune_takes_no_session_of_a_silent_engine_for_ended(home: Path) -> None:
    out, _ = run(home, prune.command, "--dry-run")
    assert out == "would remove session demo-stopped\n"
