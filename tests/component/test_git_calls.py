"""What really runs: every call of git in a session's life came from the one function, through the one runner."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import coding_agents
from coding_agents.gitsync.packs import Store
from coding_agents.proc.git import Profile, git, git_command
from coding_agents.proc.runner import Command, run
from support.gitlog import GitLog, watching
from support.life import Life
from support.repos import git_env
from support.triggers import make_world

HOST = Path(coding_agents.__file__).parent
# What a session's life is made of; a step that is missing here would prove nothing about its calls.
VERBS = {
    "--version", "cat-file", "check-attr", "check-ignore", "commit-tree", "config", "diff-files", "diff-index",
    "diff-tree", "fetch", "for-each-ref", "hash-object", "index-pack", "init", "ls-files", "ls-remote", "ls-tree",
    "merge-base", "merge-tree", "pack-objects", "read-tree", "receive-pack", "rev-list", "rev-parse", "show-ref",
    "symbolic-ref", "update-index", "update-ref", "upload-pack", "worktree", "write-tree",
}  # fmt: skip


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitLog:
    """A `git` that writes down its calls, first for whoever uses an environment, or this process's own."""
    made = GitLog.make(tmp_path / "log")
    monkeypatch.setenv("PATH", made.before({"PATH": git_env(tmp_path / "home")["PATH"]})["PATH"])
    return made


@pytest.fixture
def life(tmp_path: Path) -> Life:
    """A session's life whose guest and whose user have a git of their own."""
    return Life(make_world(tmp_path / "world"), {})


def test_every_call_of_a_sessions_life_is_one_of_ours(life: Life, log: GitLog) -> None:
    life.env = log.before(life.world.env)
    os.mkfifo(life.world.repo / "pipe")
    (life.world.repo / ".git/info/exclude").write_text("pipe\n")
    with watching(HOST) as starts:
        life.live()
    calls = log.calls()
    assert {f"git {call.verb}: {why}" for call in calls if (why := call.wrong())} == set()
    assert {call.verb for call in calls} == VERBS
    assert len(calls) > 100
    assert {asked for _, asked in starts.by} == {"proc/runner.py"}
    # Nothing went past the log, by an absolute path or by another PATH.
    others = [one for one in starts.by if one[0] != "subprocess.Popen"]
    assert others == []


WAYS = {
    "bare": lambda env: subprocess.run(("git", "version"), env=env, check=True),
    "no environment": lambda _: subprocess.run(("git", "version"), check=True),
    "through the runner, without our settings": lambda env: run(Command(("git", "version"), env=env)),
    "our settings, without the runner": lambda env: subprocess.run(
        (command := git_command(("version",), profile=Profile.OWN, env=env)).argv, env=dict(command.env), check=True
    ),
    "a setting undone": lambda env: git(
        ("-c", "core.hooksPath=.husky", "version"), profile=Profile.OWN, env=env
    ),
    "an environment of its own": lambda env: git(
        ("version",), profile=Profile.OWN, env=env, env_extra={"GIT_EXTERNAL_DIFF": "x"}
    ),
    "a protection undone": lambda env: git(
        ("version",), profile=Profile.OWN, env=env, env_extra={"GIT_ALLOW_PROTOCOL": "https"}
    ),
    "a setting by the environment": lambda env: git(
        ("version",), profile=Profile.OWN, env=env,
        env_extra={"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.pager", "GIT_CONFIG_VALUE_0": "x"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_another_way_is_noticed(tmp_path: Path, log: GitLog, way: str) -> None:
    WAYS[way](log.before(git_env(tmp_path / "home")))
    (call,) = log.calls()
    assert call.wrong() != ""


def test_one_of_ours_is_not_noticed(tmp_path: Path, log: GitLog) -> None:
    env = log.before(git_env(tmp_path / "home"))
    for profile in Profile:
        git(("version",), profile=profile, env=env)
    Store(tmp_path, Profile.OWN, env).git("version")
    assert [call.wrong() for call in log.calls()] == [""] * (len(Profile) + 1)


def test_a_start_past_the_runner_is_noticed(tmp_path: Path) -> None:
    """Code in the package that starts a process itself, by whatever means."""
    module = tmp_path / "sneaky.py"
    module.write_text("import os\ndef go():\n    os.waitpid(os.spawnlp(os.P_NOWAIT, 'true', 'true'), 0)\n")
    namespace: dict[str, object] = {}
    exec(compile(module.read_text(), str(module), "exec"), namespace)
    with watching(tmp_path) as starts:
        namespace["go"]()  # type: ignore[operator]
    assert {asked for _, asked in starts.by} == {"sneaky.py"}
