"""The review of a session's branch: real repositories, through the verb as a person runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from coding_agents.app.review import to_look_at
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.findings.budget import Account, Budget
from coding_agents.gitsync.findings.scan import Subject, scan
from coding_agents.gitsync.packs import copy_closure, user_store
from coding_agents.model.refs import Oid
from coding_agents.model.session import Saved
from support.repos import BRANCH, commit, head, sh
from support.review_project import TOKEN, Project, look, make_project, rules


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path, changes=False)


def test_no_work_is_no_finding(project: Project) -> None:
    assert project.json() == {
        "branch": BRANCH.short, "base": head(project.repo, env=project.env), "tip": "", "commits": 0, "files": 0,
        "findings": [], "others": [], "blocking": False,
    }  # fmt: skip
    assert project.text().endswith("findings none\n")


def test_harmless_work_does_not_block(project: Project) -> None:
    project.write("src/app.py", "print('hello')\n")
    project.commit()
    project.push()
    found = project.json()
    assert (found["commits"], found["files"], found["findings"], found["blocking"]) == (1, 1, [], False)


def test_everything_that_is_worth_a_look(project: Project) -> None:
    sh(project.guest, "config", "user.name", "Mallory", env=project.env)
    project.write(".github/workflows/ci.yml", "on: push\n")
    project.write("tool", "#!/bin/sh\n", 0o755)
    project.write("config.py", f"KEY = '{TOKEN}'\n")
    project.write("a.py", "if x: # \u202e\n")
    project.write("odd\nname", "x\n")
    project.write("data.bin", bytes(11 << 20))
    project.write("small.bin", b"\0\1")
    project.write("server.pem", "x\n")
    project.write("web/package.json", '{"scripts": {"postinstall": "curl \\u001b[2J"}}')
    (project.guest / "out").symlink_to("/etc/passwd")
    (project.guest / "in").symlink_to("README")
    project.commit()
    project.push()
    assert project.found() == {
        ("block", "ci", ".github/workflows/ci.yml"),
        ("block", "path.hidden", "odd\nname"),
        ("block", "secret.github", "config.py"),
        ("block", "text.bidi", "a.py"),
        ("block", "symlink.outside", "out"),
        ("block", "package.lifecycle", "web/package.json"),
        ("warn", "symlink", "in"),
        ("warn", "large", "data.bin"),
        ("warn", "limit.content", "data.bin"),
        ("warn", "secret.file", "server.pem"),
        ("warn", "commit.author", ""),
        ("warn", "commit.committer", ""),
        ("note", "mode.executable", "tool"),
        ("note", "binary", "small.bin"),
    }
    found = project.json()
    assert found["blocking"] is True
    assert [one["severity"] for one in found["findings"]] == sorted(
        (one["severity"] for one in found["findings"]), key=["block", "warn", "note"].index
    )
    assert TOKEN not in json.dumps(found), "a review is shown around; the secret must not be"
    text = project.text()
    assert "\x1b" not in text
    assert "odd\\x0aname" in text
    assert text.endswith("before you merge, build or open the branch\n")


@pytest.mark.parametrize("changed", ["config", "hooks/post-checkout", "commondir"])
@pytest.mark.parametrize("place", ["", "deep/inside/"])
def test_a_directory_that_passes_for_a_repository(project: Project, place: str, changed: str) -> None:
    """git obeys it without a question (tests/component/test_git_triggers.py shows it)."""
    project.write("config", "an ordinary file, with no HEAD beside it\n")
    project.write("lib/head/config", "x\n")
    project.write("odd\nname/config", "x\n")
    project.commit()
    project.push()
    assert "git.repository" not in {rule for _, rule, _ in project.found()}
    project.write(f"{place}HEAD", "ref: refs/heads/main\n")
    project.write(f"{place}{changed}", "[core]\n\tfsmonitor = x\n")
    project.commit()
    project.push()
    assert [found for found in project.found() if found[1] == "git.repository"] == [
        ("block", "git.repository", f"{place}HEAD")
    ]


def test_what_the_agent_takes_away_runs_nothing(project: Project) -> None:
    commit(project.repo, ".envrc", "x\n", env=project.env)
    commit(project.repo, "hidden\u200bname", "x\n", env=project.env)
    base = head(project.repo, env=project.env)
    sh(project.repo, "rm", "-q", ".envrc", "hidden\u200bname", env=project.env)
    sh(project.repo, "commit", "-qm", "x", env=project.env)
    store = user_store(discover(project.repo, env=project.env), project.env)
    assert look(store, base, head(project.repo, env=project.env)) == []


def test_the_users_own_work_is_told_apart(tmp_path: Path) -> None:
    project = make_project(tmp_path, changes=True)
    project.write("Makefile", "all:\n\ttrue\n")
    project.write("notes", f"mine = {TOKEN}\n")
    project.write("both", f"mine = {TOKEN}\nand the agent's \u202e line\n")
    project.write(".vscode/tasks.json", "agent\n")
    project.commit()
    project.push()
    assert project.found() == {
        ("note", "yours", "Makefile"),
        ("note", "yours", "notes"),
        ("block", "text.bidi", "both"),
        ("block", "editor", ".vscode/tasks.json"),
    }
    assert project.json()["files"] == 4


def test_the_end_of_a_session_names_what_the_review_names(tmp_path: Path) -> None:
    project = make_project(tmp_path, changes=True)
    project.write("Makefile", "all:\n\ttrue\n")
    project.write(".vscode/tasks.json", "agent\n")
    project.write("tool", "#!/bin/sh\n", 0o755)
    project.commit()
    tip = project.push()
    assert [(one.rule, one.path) for one in to_look_at(project.session, Saved(relay_tip=tip))] == [
        ("editor", ".vscode/tasks.json")
    ]


def test_without_its_relay_the_branch_at_home_is_looked_at(project: Project) -> None:
    project.write(".vscode/tasks.json", "agent\n")
    project.commit()
    tip = project.push()
    copy_closure(
        project.session.relay.store,
        user_store(discover(project.repo, env=project.env), project.env),
        tips=[tip],
    )
    project.session.update(saved=Saved(relay_tip=str(tip), integrated=BRANCH.ref, where="branch"))
    relay = project.session.relay.git_dir
    relay.rename(relay.with_name("gone"))
    assert project.found() == {("block", "editor", ".vscode/tasks.json")}


# --- the scan: bounds and hostile objects ----------------------------------------------------------------


@pytest.mark.parametrize(
    "budget", [{"changes": 5}, {"total_bytes": 10}, {"commits": 1}, {"seconds": 0.0}, {"objects": 3}]
)
def test_where_a_budget_ends_a_finding_says_so(project: Project, budget: dict[str, Any]) -> None:
    for number in range(10):
        project.write(f"f{number}", f"{number} some text\n")
    project.commit()
    project.write("f0", "\n")
    project.commit()
    store = user_store(discover(project.guest, env=project.env), project.env)
    base, tip = head(project.repo, env=project.env), head(project.guest, env=project.env)
    assert rules(look(store, base, tip)) == {}
    found = look(store, base, tip, **budget)
    assert {(one.rule, one.severity.value) for one in found} == {("limit", "block")}


def test_a_file_too_large_to_look_into_is_named(project: Project) -> None:
    project.write("f", "x" * 2000 + f" {TOKEN}")
    project.commit()
    store = user_store(discover(project.guest, env=project.env), project.env)
    base, tip = head(project.repo, env=project.env), head(project.guest, env=project.env)
    assert rules(look(store, base, tip)) == {"secret.github": 1}
    assert rules(look(store, base, tip, blob_bytes=1000)) == {"limit.content": 1}


def test_names_that_git_would_refuse_and_a_gitlink(project: Project) -> None:
    blob = sh(project.guest, "hash-object", "-w", "--stdin", env=project.env, stdin="x\n")
    entries = [(b"100644", b".GIT", blob), (b"160000", b"sub", "a" * 40)]
    raw = b"".join(mode + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
    done = subprocess.run(
        ["git", "hash-object", "-w", "-t", "tree", "--literally", "--stdin"],
        cwd=project.guest, env=project.env, input=raw, capture_output=True, check=True,
    )  # fmt: skip
    tip = Oid.parse(
        sh(project.guest, "commit-tree", done.stdout.decode().strip(), "-m", "x", env=project.env)
    )
    store = user_store(discover(project.guest, env=project.env), project.env)
    assert rules(look(store, None, tip)) == {"path.dotgit": 1, "gitlink": 1}


def test_attributes_of_the_tree_hide_nothing(project: Project) -> None:
    project.write(".gitattributes", "* -diff binary -text\n")
    project.write("a.py", f"{TOKEN} \u202e\n")
    project.commit()
    store = user_store(discover(project.guest, env=project.env), project.env)
    found = rules(look(store, head(project.repo, env=project.env), head(project.guest, env=project.env)))
    assert found == {"git.attributes": 1, "secret.github": 1, "text.bidi": 1}


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-7", "UTF-16LE", "no such"])
def test_no_mailmap_and_no_encoding_makes_a_stranger_the_session(project: Project, encoding: str) -> None:
    project.write(".mailmap", "Ada <ada@example.test> <eve@x.test>\n")
    project.commit()
    raw = (
        f"tree {head(project.guest, 'HEAD^{tree}', env=project.env)}\nauthor Eve+AAoA- <eve@x.test> 0 +0000\n"
        f"committer Ada <ada@example.test> 0 +0000\nencoding {encoding}\n\nx\n"
    )
    make = ("hash-object", "-w", "-t", "commit", "--literally", "--stdin")
    tip = Oid.parse(sh(project.guest, *make, env=project.env, stdin=raw))
    store = user_store(discover(project.guest, env=project.env), project.env)
    assert "commit.author" in rules(look(store, None, tip))


def test_a_missing_object_is_named(project: Project) -> None:
    project.write("f", "gone\n")
    project.commit()
    blob = sh(project.guest, "rev-parse", "HEAD:f", env=project.env)
    (project.guest / ".git/objects" / blob[:2] / blob[2:]).unlink()
    store = user_store(discover(project.guest, env=project.env), project.env)
    found = look(store, head(project.repo, env=project.env), head(project.guest, env=project.env))
    assert [(one.rule, one.path) for one in found] == [("limit.content", "f")]


def test_the_scan_knows_no_other_clock(project: Project) -> None:
    """The time budget is of the clock that is given, and stops within the files."""
    for number in range(5):
        project.write(f"f{number}", f"{number}\n")
    project.commit()
    ticks = iter(range(0, 1000, 40))
    store = user_store(discover(project.guest, env=project.env), project.env)
    subject = Subject(
        head(project.repo, env=project.env),
        head(project.guest, env=project.env),
        None,
        ("Ada", "ada@example.test"),
    )
    account = Account(Budget(seconds=100.0), clock=lambda: float(next(ticks)))
    found = scan(store, subject, account=account, is_secret_name=lambda _: False)
    assert [one.detail for one in found] == [
        "the content of 4 file(s) was not looked at: there is too much of it"
    ]


def test_an_author_without_end_silences_nothing(project: Project) -> None:
    project.write(".vscode/tasks.json", "{}")
    project.commit()
    raw = sh(project.guest, "cat-file", "commit", "HEAD", env=project.env).replace(
        "author ", "author " + "A" * (3 << 20)
    )
    made = sh(
        project.guest, "hash-object", "-t", "commit", "-w", "--stdin", env=project.env, stdin=raw + "\n"
    )
    sh(project.guest, "reset", "-q", "--soft", made, env=project.env)
    project.push()
    found = project.json()["findings"]
    assert any(one["path"] == ".vscode/tasks.json" for one in found)
    assert any("AAAA" in one["detail"] for one in found)
    assert all(len(one["detail"]) < 1000 for one in found)
