"""The one way to run git on the host passes on nothing by accident; that there is no other: test_one_door.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from coding_agents.errors import GitError
from coding_agents.proc.git import Profile, git, git_command
from coding_agents.proc.runner import Owner

HOSTILE_ENV = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/home/ada",
    "XDG_CONFIG_HOME": "/home/ada/.config",
    "GIT_CONFIG_GLOBAL": "/home/ada/git.conf",
    "SSH_AUTH_SOCK": "/run/agent",
    "https_proxy": "http://proxy.test",
    **{
        name: "/evil"
        for name in (
            "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_EXTERNAL_DIFF",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_ASKPASS", "SSH_ASKPASS", "GIT_PROXY_COMMAND",
            "GIT_EDITOR", "EDITOR", "GIT_PAGER", "PAGER", "GIT_TRACE", "GIT_EXEC_PATH", "GIT_TEMPLATE_DIR",
            "GIT_PROTOCOL", "GIT_NAMESPACE", "GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS",
            "GIT_REPLACE_REF_BASE", "LD_PRELOAD", "PYTHONPATH",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("profile", list(Profile))
def test_nothing_hostile_is_passed_on(profile: Profile) -> None:
    env = git_command(("status",), profile=profile, env=HOSTILE_ENV).env
    assert "/evil" not in env.values()
    assert env["GIT_TERMINAL_PROMPT"] == "0"
    assert env["GIT_NO_REPLACE_OBJECTS"] == "1"
    assert env["GIT_NO_LAZY_FETCH"] == "1"


@pytest.mark.parametrize(
    ("profile", "seen"),
    [(Profile.USER_READ, True), (Profile.CLONE, True), (Profile.USER_WRITE, False), (Profile.OWN, False)],
)
def test_whose_configuration_counts(profile: Profile, seen: bool) -> None:
    env = git_command(("status",), profile=profile, env=HOSTILE_ENV).env
    assert (env.get("GIT_CONFIG_GLOBAL") == "/home/ada/git.conf") is seen
    assert (env.get("HOME") == "/home/ada") is seen
    assert (env.get("GIT_CONFIG_NOSYSTEM") == "1") is not seen


@pytest.mark.parametrize("profile", [Profile.USER_READ, Profile.USER_WRITE, Profile.OWN])
def test_only_a_clone_may_reach_a_network_or_a_credential(profile: Profile) -> None:
    command = git_command(("fetch",), profile=profile, env=HOSTILE_ENV)
    assert "protocol.allow=never" in command.argv
    assert not any(part.endswith("allow=always") for part in command.argv)
    assert "credential.helper=" in command.argv
    assert not {"SSH_AUTH_SOCK", "https_proxy"} & set(command.env)


def test_a_clone_uses_only_transports_that_move_objects() -> None:
    command = git_command(("fetch",), profile=Profile.CLONE, env=HOSTILE_ENV)
    allowed = {part.split(".")[1] for part in command.argv if part.endswith("allow=always")}
    assert allowed == {"https", "http", "ssh", "git", "file"}
    assert "protocol.allow=never" in command.argv
    assert command.env["SSH_AUTH_SOCK"] == "/run/agent"


def test_root_becomes_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    command = git_command(("status",), profile=Profile.USER_READ, env=HOSTILE_ENV, owner=Owner(4242, 4242))
    assert command.owner == Owner(4242, 4242)
    assert command.env["HOME"] == "/"  # there is no such account, so there is no configuration of its own
    assert "GIT_CONFIG_GLOBAL" not in command.env
    assert git_command(("status",), profile=Profile.OWN, env={}, owner=Owner(0, 0)).owner is None


def test_an_ordinary_user_stays_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    command = git_command(("status",), profile=Profile.USER_READ, env=HOSTILE_ENV, owner=Owner(4242, 4242))
    assert command.owner is None
    assert command.env["HOME"] == "/home/ada"


def test_a_failure_names_the_command_and_its_reason(tmp_path: Path) -> None:
    with pytest.raises(GitError) as caught:
        git(("rev-parse", "HEAD"), profile=Profile.OWN, env=HOSTILE_ENV, git_dir=tmp_path)
    assert "not a git repository" in caught.value.message
    assert "rev-parse HEAD" in caught.value.details
