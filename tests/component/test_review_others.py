"""What came back beside the session's branch is looked at as well: other branches and states, repositories inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coding_agents.app import review as review_module
from coding_agents.app.review import to_look_at
from coding_agents.app.stop import Ended
from coding_agents.cli.ending_view import show_end
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.findings.budget import Budget
from coding_agents.gitsync.integrate import INCOMING, integrate
from coding_agents.gitsync.nested import bring_nested
from coding_agents.gitsync.packs import copy_closure, user_store
from coding_agents.model.refs import Oid
from coding_agents.model.session import Saved
from coding_agents.supervisor.context import SessionContext, facts_of
from coding_agents.supervisor.settle import bring_home_beside, keep_other_branches
from coding_agents_guest.nestedref import GIVEN_HEADS, NESTED, nested_ref
from support.repos import BRANCH, SESSION, commit, head, make_repo, sh
from support.review_project import TOKEN, Project, make_project

SIDE = f"{INCOMING}/{SESSION}-branches/side"
SALVAGE = f"{INCOMING}/{SESSION}-salvage"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path, changes=False)


def work(project: Project, name: str, text: str, *, start: str = "") -> Oid:
    """A commit of the agent's on top of `start`, else of where it stands."""
    if start:
        sh(project.guest, "checkout", "-q", "--detach", start, env=project.env)
    project.write(name, text)
    project.commit()
    return head(project.guest, env=project.env)


def to_relay(project: Project, repo: Path, tip: Oid, ref: str) -> None:
    """What salvage or the guest pushes."""
    relay = project.session.relay
    copy_closure(user_store(discover(repo, env=project.env), project.env), relay.store, tips=[tip])
    relay.store.git("update-ref", ref, tip)


def where(found: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(one["ref"], one["rule"], one["path"]) for one in found["findings"]}


def salvaged_branch(project: Project) -> Oid:
    """The branch `side`, which leaves the session's branch after its first commit."""
    work(project, "Makefile", "all:\n")
    fork = project.push()
    tip = work(project, "lefthook.yml", "x\n")
    to_relay(project, project.guest, tip, "refs/coding-agents/salvage/heads/side")
    work(project, "app.py", "x\n", start=fork)
    project.push()
    assert keep_other_branches(project.session) == (SIDE,)
    return fork


def test_the_agents_other_branches(project: Project) -> None:
    fork = salvaged_branch(project)
    found = project.json()
    assert where(found) == {("", "build", "Makefile"), (SIDE, "hooks", "lefthook.yml")}
    tip = sh(project.repo, "rev-parse", SIDE, env=project.env)
    assert found["others"] == [{"ref": SIDE, "path": "", "base": fork, "tip": tip}]
    assert (found["blocking"], found["commits"]) == (True, 2)
    text = project.text()
    assert f"beside   {SIDE}\n" in text
    assert f"{SIDE}  lefthook.yml" in text


def test_a_state_that_does_not_continue_the_branch(project: Project) -> None:
    work(project, "Makefile", "all:\n")
    project.push()
    sh(project.guest, "config", "user.name", "Mallory", env=project.env)
    tip = work(project, "lefthook.yml", "x\n", start="HEAD~1")
    to_relay(project, project.guest, tip, "refs/coding-agents/salvage/head")
    assert bring_home_beside(project.session, tip).ref == SALVAGE
    found = project.json()
    by_others = {(SALVAGE, "commit.author", ""), (SALVAGE, "commit.committer", "")}
    assert where(found) == {("", "build", "Makefile"), (SALVAGE, "hooks", "lefthook.yml"), *by_others}
    assert [one["ref"] for one in found["others"]] == [SALVAGE]


def test_without_commits_on_the_branch_the_others_are_looked_at(project: Project) -> None:
    tip = work(project, "lefthook.yml", "x\n")
    to_relay(project, project.guest, tip, "refs/coding-agents/salvage/heads/side")
    keep_other_branches(project.session)
    found = project.json()
    assert (where(found), found["commits"]) == ({(SIDE, "hooks", "lefthook.yml")}, 0)


def test_what_the_branch_has_by_now_and_other_sessions_have_is_left(project: Project) -> None:
    tip = work(project, "lefthook.yml", "x\n")
    to_relay(project, project.guest, tip, "refs/coding-agents/salvage/head")
    bring_home_beside(project.session, tip)
    work(project, "app.py", "x\n")
    project.push()
    theirs = commit(project.repo, "Makefile", "of another session\n", env=project.env)
    sh(project.repo, "update-ref", f"{INCOMING}/ba9876543210-salvage", theirs, env=project.env)
    assert (project.json()["others"], where(project.json())) == ([], {("", "hooks", "lefthook.yml")})


def test_a_secret_in_the_history_of_another_branch(project: Project) -> None:
    work(project, "key", f"{TOKEN}\n")
    tip = work(project, "key", "none\n")
    to_relay(project, project.guest, tip, "refs/coding-agents/salvage/heads/side")
    keep_other_branches(project.session)
    (found,) = project.json()["findings"]
    assert (found["ref"], found["rule"], found["commit"]) == (
        SIDE,
        "secret.github",
        sh(project.guest, "rev-parse", f"{tip}~1", env=project.env),
    )


def inside(project: Project, tmp_path: Path, files: dict[str, str], place: str = "libs/in") -> Path:
    """A repository that the agent made in its work tree, as it is pushed."""
    inner = make_repo(tmp_path / place.replace("/", "-"), env=project.env)
    for name, text in files.items():
        (inner / name).write_text(text)
    sh(inner, "add", "--all", env=project.env)
    sh(inner, "-c", "user.name=Eve", "commit", "-qm", "inside", env=project.env)
    to_relay(project, inner, head(inner, env=project.env), nested_ref([place]))
    return inner


@pytest.mark.parametrize("home", [False, True])
def test_a_repository_that_the_agent_made(project: Project, tmp_path: Path, home: bool) -> None:
    """Whether it came home already or, of a running session, is only saved; all of it is new, by whomever."""
    inner = inside(project, tmp_path, {"lefthook.yml": "x\n"})
    if home:
        bring_nested(
            facts_of(project.session.record), project.session.relay, session=SESSION, env=project.env
        )
    found, ref = project.json(), f"{NESTED}{SESSION}/libs/in"
    assert where(found) == {(ref, "hooks", "lefthook.yml")}
    assert found["others"] == [
        {"ref": ref, "path": "libs/in", "base": "", "tip": head(inner, env=project.env)}
    ]


def test_without_the_relay_what_came_home_is_looked_at(project: Project, tmp_path: Path) -> None:
    inside(project, tmp_path, {"lefthook.yml": "x\n"})
    salvaged_branch(project)
    session = project.session
    bring_nested(facts_of(session.record), session.relay, session=SESSION, env=project.env)
    landed = integrate(
        facts_of(session.record), session.relay, session=SESSION, expected_old=None, env=project.env
    )
    saved = Saved(relay_tip=str(landed.tip), integrated=BRANCH.ref, where="branch")
    session.update(saved=saved)
    session.relay.git_dir.rename(tmp_path / "gone")
    expected = {
        ("", "build", "Makefile"), (SIDE, "hooks", "lefthook.yml"),
        (f"{NESTED}{SESSION}/libs/in", "hooks", "lefthook.yml"),
    }  # fmt: skip
    assert where(project.json()) == expected
    assert {(one.ref, one.rule, one.path) for one in to_look_at(session, saved)} == expected


def submodule(project: Project, tmp_path: Path, work_in_it: bool) -> None:
    """`sub` went in at a commit that has a Makefile of the user's."""
    origin = make_repo(tmp_path / "origin", env=project.env)
    commit(origin, "Makefile", "all:\n", env=project.env)
    allowed = ("-c", "protocol.file.allow=always")
    sh(project.repo, *allowed, "submodule", "--quiet", "add", str(origin), "sub", env=project.env)
    sh(project.repo, "commit", "-qm", "sub", env=project.env)
    to_relay(project, origin, head(origin, env=project.env), f"{GIVEN_HEADS}sub")
    if work_in_it:
        commit(origin, "lefthook.yml", "x\n", env=project.env)
    to_relay(project, origin, head(origin, env=project.env), nested_ref(["sub"]))


@pytest.mark.parametrize("relay", [True, False])
def test_of_a_submodule_what_the_agent_did(project: Project, tmp_path: Path, relay: bool) -> None:
    submodule(project, tmp_path, work_in_it=True)
    session = project.session
    bring_nested(facts_of(session.record), session.relay, session=SESSION, env=project.env)
    if not relay:
        session.relay.git_dir.rename(tmp_path / "gone")
    assert where(project.json()) == {(f"{NESTED}{SESSION}/sub", "hooks", "lefthook.yml")}


def test_a_submodule_that_stands_where_it_stood_is_left(project: Project, tmp_path: Path) -> None:
    submodule(project, tmp_path, work_in_it=False)
    assert (project.json()["others"], project.json()["findings"]) == ([], [])


def test_the_end_of_a_session_names_them_by_their_place(project: Project, tmp_path: Path) -> None:
    inside(project, tmp_path, {"lefthook.yml": "x\n"})
    salvaged_branch(project)
    saved = Saved(relay_tip=str(project.session.relay.store.resolve(BRANCH.ref)), where="branch")
    (line,) = [one for one in end(project, saved).splitlines() if one.startswith("look at")]
    assert "libs/in/lefthook.yml (" in line
    assert f"{SIDE}:lefthook.yml (" in line


def test_the_end_of_a_session_without_commits_names_them_too(project: Project, tmp_path: Path) -> None:
    inside(project, tmp_path, {"lefthook.yml": "x\n"})
    assert "look at  libs/in/lefthook.yml (" in end(project, Saved())


def end(project: Project, saved: Saved) -> str:
    """What a person is told at the end."""
    app = project.context
    show_end(app, SessionContext.find(app.env, app.store, SESSION), Ended(0, saved, removed=False))
    return project.err.getvalue()


@pytest.mark.parametrize("budget", [{"others": 1}, {"seconds": 0.0}])
def test_where_the_budget_ends_the_rest_is_counted(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: dict[str, Any]
) -> None:
    """One budget for all: what the branch uses up is gone for the others."""
    for number in range(4):
        inside(project, tmp_path, {"x": "x\n"}, place=f"in{number}")
    monkeypatch.setattr(review_module, "Budget", lambda: Budget(**budget))
    found = project.json()
    assert len(found["others"]) == budget.get("others", 0)
    left = 4 - len(found["others"])
    assert [(one["rule"], one["severity"], one["detail"]) for one in found["findings"]] == [
        ("limit", "block", f"{left} other branch(es) and repositories inside were not looked at")
    ]


def test_a_repository_that_is_gone_is_said(project: Project) -> None:
    work(project, "Makefile", "all:\n")
    project.push()
    project.repo.rename(project.repo.with_name("moved"))
    found = project.json()["findings"]
    assert [one["rule"] for one in found] == ["limit", "build"]
    assert "other branches and repositories inside were not looked at" in found[0]["detail"]


def test_a_damaged_one_hinders_no_other(project: Project, tmp_path: Path) -> None:
    inside(project, tmp_path, {"lefthook.yml": "x\n"})
    bad = Oid.parse("1" * 40)
    path = project.session.relay.git_dir / "refs/coding-agents/nested/bad"
    path.write_text(f"{bad}\n")
    found = project.json()["findings"]
    assert ("hooks", f"{NESTED}{SESSION}/libs/in") in {(one["rule"], one["ref"]) for one in found}
    assert ("limit", f"{NESTED}{SESSION}/bad") in {(one["rule"], one["ref"]) for one in found}
