"""A copy through an engine that keeps, as Podman 4.3 does, what it reads from its standard input in TMPDIR."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coding_agents.engine.cli import CliEngine
from coding_agents.engine.features import PODMAN
from coding_agents.errors import EngineError

INFO: Any = None


@pytest.fixture
def podman(tmp_path: Path) -> Path:
    program = tmp_path / "podman"
    program.write_text('#!/bin/sh\ncat > "$TMPDIR/1413648736"\n')
    program.chmod(0o755)
    return program


def engine(podman: Path, **environment: str) -> CliEngine:
    env: Mapping[str, str] = {"PATH": os.defpath, **environment}
    return CliEngine(PODMAN, info=INFO, env=env, program=os.fspath(podman))


def test_nothing_of_a_copy_stays(podman: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    seen: list[str] = []

    def write(out: Any) -> None:
        (place,) = scratch.iterdir()
        assert place.stat().st_mode & 0o777 == 0o700
        seen.append(place.name)
        out.write(b"a login")

    engine(podman, TMPDIR=os.fspath(scratch)).copy_in("c", "/x", write)
    assert len(seen) == 1
    assert list(scratch.iterdir()) == []


def test_nothing_stays_of_a_copy_that_fails(podman: Path, tmp_path: Path) -> None:
    podman.write_text('#!/bin/sh\ncat > "$TMPDIR/1"\nexit 125\n')
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(EngineError, match="cannot copy into c:/x"):
        engine(podman, TMPDIR=os.fspath(scratch)).copy_in(
            "c", "/x", lambda out: out.write(b"a login") and None
        )
    assert list(scratch.iterdir()) == []


def test_what_a_killed_one_left_goes_with_the_next(podman: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    scratch, mine = tmp_path / "scratch", f"coding-agents-copy-{os.geteuid()}"
    left, at_work, foreign = (
        scratch / name
        for name in (f"{mine}-{ended.pid}-a", f"{mine}-{os.getpid()}-b", "coding-agents-copy-x")
    )
    for path in (left, at_work, foreign):
        path.mkdir(parents=True)
        (path / "1413648736").write_text("a login")
    engine(podman, TMPDIR=os.fspath(scratch)).copy_in("c", "/x", lambda out: None)
    assert sorted(scratch.iterdir()) == sorted((at_work, foreign))


def test_a_directory_that_is_not_there_is_named(podman: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(EngineError, match=f"below {gone}: No such file") as raised:
        engine(podman, TMPDIR=os.fspath(gone)).copy_in("c", "/x", lambda out: None)
    assert "TMPDIR" in raised.value.hint
