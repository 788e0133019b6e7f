"""Nested repositories come to the user's repository as refs, and from there to a place of their own."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from coding_agents.cli import nested as nested_verb
from coding_agents.cli.context import AppContext
from coding_agents.cli.output import Output
from coding_agents.errors import BranchError, UsageError, WorkspaceError
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.nested import Nested, bring_nested, list_nested, place_of, take_nested
from coding_agents.gitsync.relay_repo import Relay
from coding_agents.model.refs import Oid
from coding_agents.model.repo import RepoFacts
from coding_agents.model.session import RepoRef
from coding_agents_guest.nestedref import NESTED, further_ref, nested_ref
from support.host import host_environment
from support.relay_scene import relay_of
from support.repos import BRANCH, SESSION, commit, git_env, head, make_repo, sh
from support.sessions import session_record


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return git_env(tmp_path / "home")


@pytest.fixture
def facts(tmp_path: Path, env: dict[str, str]) -> RepoFacts:
    return discover(make_repo(tmp_path / "app", env=env), env=env)


@pytest.fixture
def relay(tmp_path: Path, facts: RepoFacts, env: dict[str, str]) -> Relay:
    return relay_of(tmp_path, facts, env)


def push_nested(tmp_path: Path, relay: Relay, path: str, *, env: dict[str, str]) -> Oid:
    """What the guest's save does for a repository at `path`."""
    inner = tmp_path / "guest" / path
    if not inner.exists():
        inner.parent.mkdir(parents=True, exist_ok=True)
        make_repo(inner, env=env)
    tip = commit(inner, "file", "more\n", env=env, append=True)
    sh(inner, "push", "-q", str(relay.git_dir), f"+HEAD:{nested_ref([path])}", env=env)
    return tip


def verb(tmp_path: Path, facts: RepoFacts, env: dict[str, str]) -> Callable[..., str]:
    """`coding-agents nested` of a session of `facts`, with more words; returns what it prints."""
    out, err = io.StringIO(), io.StringIO()
    app = AppContext(host_environment(tmp_path / "home", PATH=env["PATH"]), Output(out, err))
    app.store.create(SESSION)
    where = str(facts.work_tree)
    repo = RepoRef(
        kind="path", name="app", work_tree=where, git_dir=f"{where}/.git", common_dir=f"{where}/.git",
        repo_id="a1b2c3d4e5f6", owner_uid=os.geteuid(), owner_gid=os.getegid(),
    )  # fmt: skip
    app.store.save(session_record(SESSION, name="demo-app", branch=BRANCH.short, phase="stopped", repo=repo))

    def run(*words: str) -> str:
        out.truncate(0)
        out.seek(0)
        nested_verb.command.main([SESSION, *words], standalone_mode=False, obj=app)
        return out.getvalue()

    return run


def bring(facts: RepoFacts, relay: Relay, env: dict[str, str]) -> tuple[Nested, ...]:
    bring_nested(facts, relay, session=SESSION, env=env)
    return list_nested(facts, session=SESSION, env=env)


def test_they_come_as_refs_of_their_session_and_follow(
    tmp_path: Path, facts: RepoFacts, relay: Relay, env: dict[str, str]
) -> None:
    assert bring_nested(facts, relay, session=SESSION, env=env) == ()
    first = push_nested(tmp_path, relay, "libs/a b", env=env)
    other = push_nested(tmp_path, relay, "new", env=env)
    refs = bring_nested(facts, relay, session=SESSION, env=env)
    assert refs == (f"{NESTED}{SESSION}/libs/a%20b", f"{NESTED}{SESSION}/new")
    assert [(one.path, one.tip) for one in bring(facts, relay, env)] == [("libs/a b", first), ("new", other)]
    second = push_nested(tmp_path, relay, "libs/a b", env=env)
    assert [one.tip for one in bring(facts, relay, env)] == [second, other]
    assert list_nested(facts, session="0" * 12, env=env) == ()
    assert facts.work_tree is not None
    sh(facts.work_tree, "fsck", "--strict", env=env)
    assert sh(facts.work_tree, "status", "--porcelain", env=env) == ""


def test_one_is_taken_over_into_a_new_repository_without_a_file(
    tmp_path: Path, facts: RepoFacts, relay: Relay, env: dict[str, str]
) -> None:
    tip = push_nested(tmp_path, relay, "new", env=env)
    (nested,) = bring(facts, relay, env)
    place = place_of(facts, nested.path)
    assert take_nested(facts, nested, BRANCH, into=place, env=env)
    assert [entry.name for entry in place.iterdir()] == [".git"]
    assert head(place, BRANCH.ref, env=env) == tip
    sh(place, "fsck", "--strict", env=env)
    assert sh(place, "rev-parse", "--abbrev-ref", "HEAD", env=env).strip() == BRANCH.short
    assert not take_nested(facts, nested, BRANCH, into=place, env=env)  # again: nothing to do


def test_what_one_has_beside_its_head_goes_to_a_branch_beside_it(
    tmp_path: Path, facts: RepoFacts, relay: Relay, env: dict[str, str]
) -> None:
    first = push_nested(tmp_path, relay, "libs/a", env=env)
    inner = tmp_path / "guest/libs/a"
    side = sh(inner, "commit-tree", "-p", "HEAD~1", "-m", "side", "HEAD^{tree}", env=env).strip()
    empty = sh(inner, "mktree", env=env).strip()
    both = sh(inner, "commit-tree", "-p", side, "-m", f"{side} side", empty, env=env).strip()
    sh(inner, "push", "-q", str(relay.git_dir), f"{both}:{further_ref(['libs/a'])}", env=env)
    found = bring(facts, relay, env)
    assert [(one.path, one.tip) for one in found] == [("libs/a", first), ("libs/a/.git", both)]

    run = verb(tmp_path, facts, env)
    assert [line.split("\t")[0] for line in run().splitlines()] == ["libs/a", "libs/a/.git"]
    for path, branch in (("libs/a", BRANCH.short), ("libs/a/.git", f"{BRANCH.short}-others")):
        assert json.loads(run(path, "--json"))["branch"] == branch
    assert head(tmp_path / "app/libs/a", BRANCH.ref, env=env) == first
    assert head(tmp_path / "app/libs/a", f"{BRANCH.ref}-others^", env=env) == side
    assert [entry.name for entry in (tmp_path / "app/libs/a").iterdir()] == [".git"]


def test_one_is_taken_over_into_the_repository_that_is_there(
    tmp_path: Path, facts: RepoFacts, relay: Relay, env: dict[str, str]
) -> None:
    assert facts.work_tree is not None
    there = make_repo(facts.work_tree / "sub", env=env)
    marker = tmp_path / "ran"
    hook = there / ".git/hooks/reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
    hook.chmod(0o755)
    before = head(there, env=env)
    tip = push_nested(tmp_path, relay, "sub", env=env)
    (nested,) = bring(facts, relay, env)
    assert not take_nested(facts, nested, BRANCH, into=there, env=env)
    assert head(there, BRANCH.ref, env=env) == tip
    assert head(there, env=env) == before
    assert not marker.exists()


def test_a_branch_with_other_commits_is_not_overwritten(
    tmp_path: Path, facts: RepoFacts, relay: Relay, env: dict[str, str]
) -> None:
    assert facts.work_tree is not None
    there = make_repo(facts.work_tree / "sub", env=env)
    push_nested(tmp_path, relay, "sub", env=env)
    (nested,) = bring(facts, relay, env)
    sh(there, "checkout", "-q", "-b", BRANCH.short, env=env)
    mine = commit(there, "mine", "mine\n", env=env)
    with pytest.raises(BranchError, match="checked out"):
        take_nested(facts, nested, BRANCH, into=there, env=env)
    sh(there, "checkout", "-q", "main", env=env)
    with pytest.raises(BranchError, match="does not contain"):
        take_nested(facts, nested, BRANCH, into=there, env=env)
    assert head(there, BRANCH.ref, env=env) == mine


@pytest.mark.parametrize(
    "path", ["../out", "/etc", "a/../../b", ".git/hooks", "sub/.GIT", "a/git~1/b", ".", "", "x/.git./y", "link/x"]
)  # fmt: skip
def test_no_place_outside_and_none_in_a_git_directory(facts: RepoFacts, tmp_path: Path, path: str) -> None:
    assert facts.work_tree is not None
    (facts.work_tree / "link").symlink_to(tmp_path)
    with pytest.raises(WorkspaceError):
        place_of(facts, path)


def test_what_is_there_already_stays(
    tmp_path: Path, facts: RepoFacts, relay: Relay, env: dict[str, str]
) -> None:
    assert facts.work_tree is not None
    push_nested(tmp_path, relay, "new", env=env)
    (nested,) = bring(facts, relay, env)
    place = facts.work_tree / "new"
    place.mkdir()
    (place / "file").write_text("mine\n")
    with pytest.raises(WorkspaceError, match="there already"):
        take_nested(facts, nested, BRANCH, into=place, env=env)
    (facts.work_tree / "link").symlink_to(tmp_path)
    with pytest.raises(WorkspaceError, match="there already"):
        take_nested(facts, nested, BRANCH, into=facts.work_tree / "link", env=env)
    assert [entry.name for entry in place.iterdir()] == ["file"]


@pytest.mark.parametrize("path", ["a\x1b[2J\u202eb", "\udcff/k"])
def test_the_verb_shows_hostile_names_made_safe_and_finds_them(
    tmp_path: Path, facts: RepoFacts, relay: Relay, env: dict[str, str], path: str
) -> None:
    tip = push_nested(tmp_path, relay, path, env=env)
    hostile = f"{NESTED}x\u202ey"  # a name that the guest did not encode, and no relay takes any more
    digest = "%7E" + hashlib.sha256(hostile.removeprefix(NESTED).encode()).hexdigest()[:32]
    relay.store.git("update-ref", hostile, tip)
    bring_nested(facts, relay, session=SESSION, env=env)
    run = verb(tmp_path, facts, env)
    shown = run()
    assert len(shown.splitlines()) == 2
    assert shown.isascii()
    assert "\x1b" not in shown
    listed = json.loads(run("--json"))
    assert {one["ref"] for one in listed} == {f"{NESTED}{SESSION}/{nested_ref([path])[len(NESTED):]}",
                                              f"{NESTED}{SESSION}/{digest}"}  # fmt: skip
    run(path, "--into", str(tmp_path / "taken"))
    assert head(tmp_path / "taken", BRANCH.ref, env=env) == tip
    with pytest.raises(WorkspaceError, match="nothing came back"):
        run("elsewhere")
    with pytest.raises(UsageError, match="PATH"):
        run("--into", str(tmp_path / "x"))
