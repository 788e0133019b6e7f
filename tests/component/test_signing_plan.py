"""Who a new session's commits are by, and whose key is to sign them: from settings and the user's own git."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coding_agents.app.joining import unapplied
from coding_agents.app.launch_request import LaunchOptions, parse_request
from coding_agents.app.signing import Signing, people_of, plan_signing
from coding_agents.config.environ import HostEnvironment
from coding_agents.errors import ConfigError, SigningError, UntrustedSettingError
from coding_agents.gitsync.discover import discover
from coding_agents.images.manifests import load_manifest
from coding_agents.model.repo import Identity
from coding_agents.model.settings import Settings
from support.host import host_environment
from support.keys import ssh_key
from support.repos import git_env, make_repo, sh
from support.sessions import session_record

ADA = Identity("Ada", "ada@example.test")
LIMITS = {"cpus": "4", "memory_bytes": str(8 << 30), "pids": "4096"}


def settings(home: Path, text: str = "", **flags: Any) -> Settings:
    config = home / ".config/coding-agents/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(text)
    return parse_request(host_environment(home), LaunchOptions(empty=True, **flags)).settings


def people(settings: Settings, user: Identity | None = ADA) -> tuple[str, str, tuple[str, ...]]:
    found = people_of(settings, load_manifest("demo"), user, "0123456789ab")
    author, committer = (f"{one.name} <{one.email}>" for one in (found.author, found.committer))
    return author, committer, found.trailers


def test_the_user_writes_and_the_agent_commits(tmp_path: Path) -> None:
    by, trailers = "Ada (Demo) <ada@example.test>", ("Agent: Demo", "Session: 0123456789ab")
    assert people(settings(tmp_path)) == ("Ada <ada@example.test>", by, trailers)
    assert people(settings(tmp_path, as_agent=True)) == ("Demo <demo@localhost>", by, trailers)
    chosen = '[identity]\nbot = "Robot <robot@example.test>"\nas_agent = true\ntrailers = ["session"]\n'
    assert people(settings(tmp_path, chosen)) == ("Robot <robot@example.test>", by, trailers[1:])
    assert people(settings(tmp_path, "[identity]\ntrailers = []\n"))[2] == ()
    # Nobody whom git knows: both are the agent.
    assert people(settings(tmp_path), None)[:2] == ("Demo <demo@localhost>",) * 2
    hidden = Identity("Ada\n\x1b[2J", "ada@example.test\0")
    assert people(settings(tmp_path), hidden)[:2] == (
        "Ada[2J <ada@example.test>",
        "Ada[2J (Demo) <ada@example.test>",
    )


@pytest.mark.parametrize("bot", ["Robot", "<a@b>", "R <a@b> x", "R\\n <a@b>", "R <a b>", "R <>"])
def test_who_the_agent_is_stands_as_git_writes_it(tmp_path: Path, bot: str) -> None:
    with pytest.raises(ConfigError, match=r"identity\.bot"):
        settings(tmp_path, f'[identity]\nbot = "{bot}"\n')


def test_a_session_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    session = session_record(limits=LIMITS, author_name="Ada", committer_name="Ada (Demo)")
    asked = parse_request(host_environment(tmp_path), LaunchOptions(empty=True, as_agent=True))
    assert unapplied(asked, session) == "--as-agent does not apply"
    assert unapplied(asked, session.evolve(author_name="Demo")) == ""


class User:
    """Ada, with a repository and a git configuration."""

    def __init__(self, home: Path) -> None:
        self.git, self.home = git_env(home), home
        repo = make_repo(home / "repo", env=self.git)
        self.env: HostEnvironment = host_environment(home)
        self.repo = discover(repo, env=self.env.for_git())

    def say(self, key: str, value: str) -> None:
        sh(self.home, "config", "--global", key, value, env=self.git)

    def plan(self, text: str = "") -> Signing:
        return plan_signing(settings(self.env.home, text), self.repo, self.env)


def test_commits_are_signed_where_the_users_git_signs(tmp_path: Path) -> None:
    user = User(tmp_path)
    assert user.plan() == Signing()
    key = ssh_key(tmp_path / "id")
    user.say("gpg.format", "ssh")
    user.say("user.signingKey", str(key.path))
    mine = Signing("user", "ssh", key.public)
    assert user.plan() == Signing()
    assert user.plan('[signing]\nmode = "user"\n') == mine
    user.say("commit.gpgSign", "true")
    assert user.plan() == mine
    for mode in ("session", "merge", "off"):
        assert user.plan(f'[signing]\nmode = "{mode}"\n').mode == mode


def test_a_key_that_cannot_be_used_keeps_nobody_from_working_who_did_not_ask_for_it(tmp_path: Path) -> None:
    user = User(tmp_path)
    user.say("commit.gpgSign", "true")
    user.say("gpg.format", "x509")
    planned = user.plan()
    assert (planned.mode, planned.key) == ("off", "")
    assert "commits are not signed: git's gpg.format names a kind" in planned.note
    with pytest.raises(SigningError, match="a kind of signature that is not made here"):
        user.plan('[signing]\nmode = "user"\n')


def test_a_repository_signs_no_more_than_its_user_wants(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", env=git_env(tmp_path))

    def asked(mode: str) -> str:
        (repo / ".coding-agents.toml").write_text(f'[signing]\nmode = "{mode}"\n')
        return parse_request(
            host_environment(tmp_path), LaunchOptions(source=str(repo))
        ).settings.signing_mode

    assert asked("off") == "off"
    assert asked("session") == "session"
    with pytest.raises(UntrustedSettingError):
        asked("user")
