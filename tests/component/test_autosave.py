"""Automatic saves on the host: dated by it, thinned, brought home, and what a hostile guest cannot do with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from coding_agents.gitsync.autosave import bring_save, keep_save, latest_save
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.relay_repo import Relay
from coding_agents.gitsync.thinning import AUTOSAVE, NEWEST
from coding_agents.model.refs import Oid
from coding_agents.model.repo import RepoFacts
from coding_agents_guest.nestedref import LATEST
from support.relay_scene import relay_of
from support.repos import BRANCH, SESSION, commit, git_env, head, make_repo, sh

HOUR = 3_600_000


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return git_env(tmp_path / "home")


@pytest.fixture
def facts(tmp_path: Path, env: dict[str, str]) -> RepoFacts:
    return discover(make_repo(tmp_path / "app", env=env), env=env)


@pytest.fixture
def relay(tmp_path: Path, facts: RepoFacts, env: dict[str, str]) -> Relay:
    return relay_of(tmp_path, facts, env)


def push_save(tmp_path: Path, relay: Relay, text: str, env: dict[str, str]) -> Oid:
    guest = tmp_path / "guest"
    if not guest.exists():
        sh(tmp_path, "clone", "-q", str(relay.git_dir), str(guest), env=env)
    tip = commit(guest, "file", text, env=env)
    sh(guest, "push", "-q", "origin", f"+HEAD:{LATEST}", env=env)
    sh(guest, "reset", "-q", "--hard", "HEAD^", env=env)  # saves stand beside each other
    return tip


def test_saves_are_dated_once_and_thinned(tmp_path: Path, relay: Relay, env: dict[str, str]) -> None:
    keep_save(relay.store, HOUR)  # nothing to keep
    tips = []
    for number in range(9):
        tips.append(push_save(tmp_path, relay, f"{number}\n", env))
        keep_save(relay.store, HOUR + number)
        keep_save(relay.store, HOUR + 100 + number)  # the same again
    kept = {ref: oid for ref, oid in relay.store.refs(f"{AUTOSAVE}/").items() if ref != LATEST}
    assert latest_save(relay) == tips[-1]
    assert kept == {f"{AUTOSAVE}/{HOUR + 8 - back}": tips[8 - back] for back in range(NEWEST)} | {
        f"{AUTOSAVE}/{HOUR + 3}": tips[3]
    }


def test_a_save_comes_home_beside_the_branch(
    tmp_path: Path, facts: RepoFacts, relay: Relay, env: dict[str, str]
) -> None:
    assert bring_save(facts, relay, session=SESSION, env=env) is None
    assert facts.work_tree is not None
    for text in ("one\n", "two\n"):
        tip = push_save(tmp_path, relay, text, env)
        assert bring_save(facts, relay, session=SESSION, env=env) == (f"{AUTOSAVE}/{SESSION}", tip)
        assert head(facts.work_tree, f"{AUTOSAVE}/{SESSION}", env=env) == tip
    sh(facts.work_tree, "fsck", "--strict", env=env)
    assert sh(facts.work_tree, "status", "--porcelain", env=env) == ""
    assert "refs/heads/main" in sh(facts.work_tree, "for-each-ref", env=env)
    assert BRANCH.ref not in sh(facts.work_tree, "for-each-ref", env=env)
