"""What the host's environment becomes, and what of it is passed on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coding_agents.config.environ import detect_platform, read_environment
from coding_agents.engine.find import engine_environment
from support.host import host_environment

HOME = Path("/home/u")


def test_xdg_places_default_below_home() -> None:
    env = host_environment(HOME)
    assert env.config_dir == HOME / ".config/coding-agents"
    assert env.state_dir == HOME / ".local/state/coding-agents"
    assert env.data_dir == HOME / ".local/share/coding-agents"
    assert env.user_config == HOME / ".config/coding-agents/config.toml"


def test_xdg_variables_move_them() -> None:
    env = host_environment(HOME, XDG_CONFIG_HOME="/c", XDG_STATE_HOME="/s", XDG_DATA_HOME="/d")
    assert [env.config_home, env.state_home, env.data_home] == [Path("/c"), Path("/s"), Path("/d")]


@pytest.mark.parametrize("value", ["", "relative", "./x", "~/x"])
def test_relative_xdg_values_are_ignored_as_the_specification_says(value: str) -> None:
    env = host_environment(HOME, XDG_STATE_HOME=value)
    assert env.state_home == HOME / ".local/state"


def test_engines_and_git_get_only_what_is_listed() -> None:
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "s",
        "ANTHROPIC_API_KEY": "s",
        "LD_PRELOAD": "/x.so",
        "PYTHONPATH": "/x",
    }
    env = host_environment(
        HOME,
        DOCKER_HOST="tcp://e", CONTAINER_HOST="unix:///p", GIT_CONFIG_GLOBAL="/g", GIT_DIR="/hook/.git",
        GIT_INDEX_FILE="/hook/index", https_proxy="http://p", LC_ALL="de_DE.UTF-8", **secrets,
    )  # fmt: skip
    engine, git = engine_environment(env.environ), env.for_git()
    assert engine["DOCKER_HOST"] == "tcp://e"
    assert engine["CONTAINER_HOST"] == "unix:///p"
    assert git["GIT_CONFIG_GLOBAL"] == "/g"
    for passed in (engine, git):
        assert passed["https_proxy"] == "http://p"
        assert not {*secrets, "GIT_DIR", "GIT_INDEX_FILE"} & set(passed)
    assert (git["HOME"], git["LC_ALL"]) == ("/home/u", "C.UTF-8")
    assert "GIT_CONFIG_GLOBAL" not in engine
    assert "DOCKER_HOST" not in git


@pytest.mark.parametrize(
    ("sys_platform", "release", "platform"),
    [
        ("linux", "6.1.0-18-amd64", "linux"),
        ("linux", "5.15.153.1-microsoft-standard-WSL2", "wsl"),
        ("linux", "4.4.0-19041-Microsoft", "wsl"),
        ("darwin", "23.4.0", "darwin"),
        ("freebsd14", "14.0-RELEASE", "other"),
    ],
)
def test_platforms(sys_platform: str, release: str, platform: str) -> None:
    assert detect_platform(sys_platform, release) == platform


def test_the_real_environment_is_read_once_and_cannot_be_changed() -> None:
    env = read_environment()
    assert env.environ["PATH"] == os.environ["PATH"]
    assert (env.uid, env.cwd) == (os.geteuid(), Path.cwd())
    assert not hasattr(env.environ, "__setitem__")
    assert "PATH" not in repr(env), "the environment holds secrets and does not belong into a traceback"


def test_an_unset_home_comes_from_the_password_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    assert read_environment().home.is_absolute()
    assert read_environment().for_git()["HOME"] == str(read_environment().home)


def test_a_removed_working_directory_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setenv("PWD", str(gone))
    gone.rmdir()
    assert read_environment().cwd == gone
