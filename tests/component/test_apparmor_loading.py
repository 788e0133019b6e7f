"""Who may have our AppArmor profiles, and how `doctor --fix` loads them: shown, asked, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from coding_agents.app.apparmor import load, nothing_to_load, plan_loading
from coding_agents.app.demands import Demands, require_enforceable
from coding_agents.app.doctor import _apparmor
from coding_agents.cli.context import AppContext
from coding_agents.cli.doctor import command
from coding_agents.engine import apparmor as kernel
from coding_agents.engine.api import EngineInfo
from coding_agents.engine.apparmor import profiles_loaded
from coding_agents.errors import CodingAgentsError, EnforcementError, ProgramNotFoundError
from coding_agents.sandbox.apparmor import KINDS, installed_path, profile_name, text
from support.fake_engine import FakeEngine
from support.host import host_environment

HERE = os.uname()


@pytest.fixture
def info(tmp_path: Path) -> EngineInfo:
    """An engine on this machine that has AppArmor."""
    base = FakeEngine(tmp_path).info
    options = ("seccomp", "apparmor")
    return replace(base, security_options=options, machine=(HERE.nodename, HERE.release))


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What securityfs shows of loaded profiles: none yet."""
    directory = tmp_path / "profiles"
    directory.mkdir()
    enabled = tmp_path / "enabled"
    enabled.write_text("Y\n")
    monkeypatch.setattr(kernel, "_POLICY", directory)
    monkeypatch.setattr(kernel, "_KERNEL", enabled)
    return directory


def loaded(policy: Path, name: str, *, mode: str = "enforce", entry: str = "") -> None:
    """As apparmorfs.c shows a profile."""
    directory = policy / f"{entry or name}.17"
    directory.mkdir()
    (directory / "name").write_text(f"{name}\n")
    (directory / "mode").write_text(f"{mode}\n")


def both(policy: Path, **how: str) -> None:
    for kind in KINDS:
        loaded(policy, profile_name(kind), **how)


def test_profiles_that_are_loaded_are_used(info: EngineInfo, policy: Path) -> None:
    assert not profiles_loaded(info)
    loaded(policy, profile_name("agent"))
    assert not profiles_loaded(info)  # the holder's is missing
    loaded(policy, profile_name("holder"))
    assert profiles_loaded(info)


@pytest.mark.parametrize(
    "changes",
    [
        {"security_options": ("seccomp",)}, {"rootless": True}, {"machine": ("elsewhere", HERE.release)},
        {"machine": (HERE.nodename, "9.9")}, {"machine": ("", "")},
    ],
    ids=str,
)  # fmt: skip
def test_an_engine_that_cannot_have_them_is_given_none(
    info: EngineInfo, policy: Path, changes: dict[str, Any]
) -> None:
    both(policy)
    assert not profiles_loaded(replace(info, **changes))


def test_a_profile_that_only_complains_or_has_another_name_is_not_ours(
    info: EngineInfo, policy: Path
) -> None:
    both(policy, mode="complain")
    assert not profiles_loaded(info)


def test_an_entry_with_our_name_and_another_profile_is_not_ours(info: EngineInfo, policy: Path) -> None:
    for kind in KINDS:
        loaded(policy, "docker-default", entry=profile_name(kind))
    assert not profiles_loaded(info)


def test_what_cannot_be_looked_at_counts_as_not_loaded(info: EngineInfo, policy: Path) -> None:
    policy.rmdir()
    assert not profiles_loaded(info)


def test_a_launch_that_needs_the_profile_is_refused_without_it(info: EngineInfo, policy: Path) -> None:
    needs = Demands(asked=frozenset({"apparmor"}))
    with pytest.raises(EnforcementError, match="our profile is not loaded") as caught:
        require_enforceable(info, needs, "")
    assert "coding-agents doctor --fix" in caught.value.hint
    with pytest.raises(EnforcementError, match="not loaded on elsewhere"):
        require_enforceable(replace(info, machine=("elsewhere", "6.1")), needs, "")
    with pytest.raises(EnforcementError, match="Fake has no AppArmor"):
        require_enforceable(replace(info, security_options=()), needs, "")
    require_enforceable(info, Demands(), "")
    require_enforceable(info, replace(needs, best_effort=frozenset({"apparmor"})), "")
    both(policy)
    require_enforceable(info, needs, "")


def test_gvisor_has_no_profile(info: EngineInfo, policy: Path) -> None:
    both(policy)
    with pytest.raises(EnforcementError, match=r"gVisor \(runtime runsc\) has none"):
        require_enforceable(info, Demands(asked=frozenset({"apparmor"})), "runsc")


def test_doctor_says_which_profile_containers_have(info: EngineInfo, policy: Path, tmp_path: Path) -> None:
    env = host_environment(tmp_path)
    found = _apparmor(env, info)
    assert (found.status, found.fix) == ("warn", "Run `coding-agents doctor --fix`.")
    assert _apparmor(env, replace(info, security_options=())).status == "absent"
    required = host_environment(tmp_path, CODING_AGENTS_REQUIRE="apparmor")
    assert _apparmor(required, info).status == "fail"
    assert _apparmor(required, replace(info, security_options=())).status == "fail"
    both(policy)
    assert _apparmor(required, info).status == "ok"


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """The system's programs, which only write down what they were called with; the parser also checks."""
    directory = tmp_path / "bin"
    directory.mkdir()
    log = tmp_path / "log"
    for name in ("tee", "apparmor_parser", "sudo"):
        program = directory / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\ncat > {tmp_path}/{name}.in\n')
        program.chmod(0o755)
    return directory


def _ran(tmp_path: Path) -> list[str]:
    log = tmp_path / "log"
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("uid", [0, 1000])
def test_loading_is_two_commands_as_root(bin_dir: Path, tmp_path: Path, uid: int) -> None:
    loading = plan_loading(replace(host_environment(tmp_path), uid=uid), path=str(bin_dir))
    assert _ran(tmp_path) == ["apparmor_parser -Q -K"]  # reads it, and loads nothing
    root = "" if uid == 0 else f"{bin_dir}/sudo -n -- "
    assert loading.shown() == (
        f"{root}{bin_dir}/tee {installed_path()} < our profiles",
        f"{root}{bin_dir}/apparmor_parser -r -W {installed_path()}",
    )
    said: list[str] = []
    load(loading, say=said.append, again="x")
    assert len(_ran(tmp_path)) == 3
    assert len(said) == 2


def test_the_file_is_written_with_the_profiles(bin_dir: Path, tmp_path: Path) -> None:
    loading = plan_loading(replace(host_environment(tmp_path), uid=0), path=str(bin_dir))
    load(loading, say=lambda line: None, again="x")
    assert (tmp_path / "tee.in").read_text() == text()


def test_a_parser_that_does_not_understand_them_stops_before_anything_is_written(
    bin_dir: Path, tmp_path: Path
) -> None:
    (bin_dir / "apparmor_parser").write_text("#!/bin/sh\necho syntax error >&2\nexit 1\n")
    with pytest.raises(EnforcementError, match="does not understand"):
        plan_loading(host_environment(tmp_path), path=str(bin_dir))
    assert _ran(tmp_path) == []
    (bin_dir / "apparmor_parser").unlink()
    with pytest.raises(ProgramNotFoundError) as caught:
        plan_loading(host_environment(tmp_path), path=str(bin_dir))
    assert "package apparmor" in caught.value.hint


@pytest.mark.parametrize(
    ("says", "message"),
    [("sudo: a password is required", "sudo asks for a password"), ("no", "the AppArmor profiles are not loaded")],
)  # fmt: skip
def test_a_command_that_fails_is_the_last(bin_dir: Path, tmp_path: Path, says: str, message: str) -> None:
    loading = plan_loading(replace(host_environment(tmp_path), uid=1000), path=str(bin_dir))
    (bin_dir / "sudo").write_text(f"#!/bin/sh\ncat > /dev/null\necho '{says}' >&2\nexit 1\n")
    said: list[str] = []
    with pytest.raises(EnforcementError, match=message) as caught:
        load(loading, say=said.append, again="coding-agents doctor --fix -y")
    assert said == []
    assert ("coding-agents doctor --fix -y" in caught.value.hint) is ("password" in says)


def test_where_there_is_nothing_to_load(
    info: EngineInfo, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nothing_to_load(info) == ""
    assert nothing_to_load(None) == ""
    assert "runs on elsewhere" in nothing_to_load(replace(info, machine=("elsewhere", "6.1")))
    assert "rootless" in nothing_to_load(replace(info, rootless=True))
    both(policy)
    assert "loaded already" in nothing_to_load(info)
    (tmp_path / "enabled").write_text("N\n")
    assert "has no AppArmor" in nothing_to_load(info)
    monkeypatch.setattr(kernel, "_KERNEL", tmp_path / "gone")
    assert "has no AppArmor" in nothing_to_load(None)


def _fix(tmp_path: Path, *words: str) -> Result:
    env = host_environment(tmp_path / "home", PATH=str(tmp_path / "none"))
    return CliRunner().invoke(command, ["--fix", *words], obj=AppContext(env), catch_exceptions=False)


def test_the_verb_shows_and_asks_before_it_runs(
    policy: Path, bin_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    monkeypatch.setitem(plan_loading.__kwdefaults__, "path", str(bin_dir))
    _fix(tmp_path)
    said = capfd.readouterr().err
    assert f"tee {installed_path()}" in said
    assert "nothing was run" in said
    assert _ran(tmp_path) == ["apparmor_parser -Q -K"]
    _fix(tmp_path, "-y")
    assert [line.split()[0] for line in _ran(tmp_path)[2:]] == (
        ["tee", "apparmor_parser"] if os.geteuid() == 0 else ["sudo", "sudo"]
    )


def test_a_host_without_apparmor_is_left_as_it_is(
    policy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "enabled").unlink()
    try:
        _fix(tmp_path, "-y")
    except CodingAgentsError as error:
        pytest.fail(error.message)
    assert "the kernel of this host has no AppArmor: there is nothing to load" in capfd.readouterr().err
