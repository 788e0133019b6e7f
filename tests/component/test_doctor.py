"""What `doctor` says of the git that is installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from coding_agents.app.doctor import examine, null_check, runtimes_check
from coding_agents.store.sessions import SessionStore
from support.fake_engine import FakeEngine
from support.host import host_environment


@pytest.mark.parametrize(
    ("version", "status", "says"),
    [
        ("2.35.8", "warn", "no core.fsync"),
        ("2.39.5", "ok", ""),
        ("2.53.0", "ok", ""),
        ("2.54.0", "warn", "hook.NAME.command"),
        ("2.54.2.windows.1", "warn", "hook.NAME.command"),
        ("2.55.0", "ok", ""),
    ],
)
def test_versions_of_git_that_lack_something_are_named(
    tmp_path: Path, version: str, status: str, says: str
) -> None:
    git = tmp_path / "git"
    git.write_text(f"#!/bin/sh\necho git version {version}\n")
    git.chmod(0o755)
    env = host_environment(tmp_path / "home", PATH=f"{tmp_path}:/usr/bin:/bin")
    found = next(one for one in examine(env, SessionStore(env.state_dir)) if one.id == "git")
    assert (found.status, says in found.detail) == (status, True)
    assert version in found.detail
    assert bool(found.fix) is (status == "warn")


@pytest.mark.parametrize(
    ("known", "default", "wanted", "status", "says"),
    [
        (("runc", "io.containerd.runc.v2"), "runc", "auto", "ok", "runc; runc is the engine's own choice"),
        (("crun", "runc", "runsc"), "crun", "runsc", "ok", "runsc with --network-proxy restricted only"),
        (("runc",), "runc", "runsc", "fail", "the setting runtime wants runsc"),
        (("kata", "runc"), "kata", "auto", "ok", "kata, runc; kata is the engine's own choice"),
    ],
)
def test_the_runtimes_that_the_engine_has(
    tmp_path: Path, known: tuple[str, ...], default: str, wanted: str, status: str, says: str
) -> None:
    info = replace(FakeEngine(tmp_path).info, default_runtime=default)
    found = runtimes_check(info, known=known, wanted=wanted)
    assert (found.status, says in found.detail) == (status, True), found.detail


def test_a_null_device_that_was_given_away_is_named(tmp_path: Path) -> None:
    assert list(null_check(tmp_path / "none")) == []
    device = tmp_path / "null"
    device.touch()
    if os.geteuid() == 0:
        assert list(null_check(device)) == []
        os.chown(device, 65534, 65534)
    (found,) = null_check(device)
    assert (found.status, "chown root:root" in found.fix) == ("warn", True)
