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

_DATA = Path(__file__).parents[1] / "unit/data/engine"
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


def test_a_session_that_another_engine_does_not_know_is_not_lost(home: Path) -> None:
    facts = json.loads((_DATA / "docker-info.json").read_text()) | {"ID": "another"}
    (home / "info").write_text(json.dumps(facts))
    # `ps` and all else answer with nothing: this one has no container of ours.
    (home / "docker").write_text(f'#!/bin/sh\n[ "$1" != info ] || exec cat {home}/info\n')
    store = AppContext(host_environment(home)).store
    root = facts["DockerRootDir"]
    for number, known in enumerate((f"the launch's {root}", f"another {root}", "")):
        store.update(f"{number:012x}", engine_id=known, phase="running")
    out, err = run(home, list_.command, "-a", "--json")
    states = {one["name"]: one["state"] for one in json.loads(out)}
    assert states == {
        "demo-running": "running", "demo-starting": "lost", "demo-stopping": "lost", "demo-stopped": "stopped"
    }  # fmt: skip
    assert "is not the one that session demo-running was launched on" in err
    out, _ = run(home, prune.command, "--dry-run")
    assert "demo-running" not in out
