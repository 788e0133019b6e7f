"""What one commit adds and a later one takes away stays in the history: the review names it, within its bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from coding_agents.app.review import to_look_at
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.findings.budget import Account, Budget
from coding_agents.gitsync.findings.model import Finding
from coding_agents.gitsync.findings.scan import Subject, scan
from coding_agents.gitsync.packs import Store, user_store
from coding_agents.model.session import Saved
from support.repos import commit, head, sh
from support.review_project import TOKEN, Project, look, make_project, rules

OTHER = TOKEN[:-4] + "Qw3r"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path, changes=False)


def steps(project: Project, *states: dict[str, str | None]) -> list[str]:
    """Commit each state (None: the file goes) on top of the one before; the commits."""
    made = []
    for state in states:
        for name, text in state.items():
            if text is None:
                (project.guest / name).unlink()
            else:
                project.write(name, text)
        project.commit()
        made.append(str(head(project.guest, env=project.env)))
    return made


def store_of(project: Project) -> Store:
    return user_store(discover(project.guest, env=project.env), project.env)


def earlier(project: Project, **budget: int | float) -> list[Finding]:
    """What is found from the user's HEAD to the agent's."""
    base, tip = head(project.repo, env=project.env), head(project.guest, env=project.env)
    return look(store_of(project), base, tip, **budget)


def test_a_secret_that_was_taken_away_is_named_with_its_commit(project: Project) -> None:
    commits = steps(
        project,
        {"src/a b.py": "harmless\n"},
        {"src/a b.py": f"KEY = '{TOKEN}'\n"},
        {"src/a b.py": f"KEY = '{TOKEN}'\nmore\n"},
        {"src/a b.py": "KEY = os.environ['KEY']\n"},
    )
    tip = project.push()
    found = project.json()
    assert [(one["rule"], one["path"], one["commit"]) for one in found["findings"]] == [
        ("secret.github", "src/a b.py", commits[1])
    ]
    assert found["blocking"]
    detail = found["findings"][0]["detail"]
    assert detail == f"GitHub token, in commit {commits[1][:12]} and not in the last state"
    assert commits[1][:12] in project.text()
    assert TOKEN not in project.text()
    ends = to_look_at(project.session, Saved(relay_tip=tip))
    assert [(one.rule, one.commit) for one in ends] == [("secret.github", commits[1])]


@pytest.mark.parametrize("gone", [True, False])
def test_what_stands_in_the_last_state_is_named_once(project: Project, gone: bool) -> None:
    steps(project, {"a": f"{TOKEN}\n"}, {"a": f"{TOKEN}\n{OTHER}\n"}, {"a": "" if gone else f"{TOKEN}\n"})
    found = earlier(project)
    assert [(one.rule, bool(one.commit)) for one in found] == (
        [("secret.github", True)] * 2 if gone else [("secret.github", False), ("secret.github", True)]
    )


def test_each_value_is_told_at_its_first_commit(project: Project) -> None:
    first, second, _ = steps(
        project, {"a": f"{TOKEN}\n"}, {"a": None, "b": f"{TOKEN}\n{OTHER}\n"}, {"b": None}
    )
    assert [(one.path, one.commit) for one in earlier(project)] == [("a", first), ("b", second)]


def test_what_was_there_before_the_agent_came_is_no_finding(project: Project) -> None:
    commit(project.repo, "old", f"{TOKEN}\n", env=project.env)
    commit(project.repo, "key.pem", "x\n", env=project.env)
    sh(project.guest, "pull", "-q", env=project.env)
    steps(project, {"old": f"{TOKEN} moved\n", "key.pem": "y\n"}, {"old": "", "key.pem": None})
    assert earlier(project) == []
    steps(project, {"old": f"{TOKEN} {OTHER}\n"}, {"old": ""})
    assert rules(earlier(project)) == {"secret.github": 1}


def test_the_users_own_uncommitted_secret_is_no_finding(tmp_path: Path) -> None:
    project = make_project(tmp_path, changes=True)
    steps(project, {"notes": f"mine = {TOKEN}\n"}, {"notes": f"mine = {TOKEN}\nmore\n"}, {"notes": None})
    project.push()
    assert project.found() == set()


def test_a_file_of_secrets_and_a_large_one_that_were_taken_away(project: Project) -> None:
    names = {"server.pem": "x\n", "big": "x" * (11 << 20), "odd\nname.key": "y\n"}
    steps(project, {"x": "x"}, dict(names), dict.fromkeys(names))
    project.push()
    assert project.found() == {
        ("warn", "secret.file", "server.pem"),
        ("warn", "large", "big"),
        ("warn", "limit.content", "big"),
    }


def test_a_file_of_secrets_that_was_there_before_is_no_finding(project: Project) -> None:
    commit(project.repo, "key.pem", "x\n", env=project.env)
    commit(project.repo, "gone.pem", "x\n", env=project.env)
    sh(project.guest, "pull", "-q", env=project.env)
    project.session.update(base=str(head(project.repo, env=project.env)))
    steps(project, {"key.pem": "y\n", "gone.pem": "z\n"}, {"key.pem": "x\n", "gone.pem": None})
    project.push()
    assert project.json()["findings"] == []


def test_what_the_last_state_holds_is_looked_at_once(project: Project) -> None:
    steps(project, {"x": "x"}, {"big": "x" * (11 << 20)})
    project.push()
    assert [(one["rule"], one["commit"]) for one in project.json()["findings"]] == [
        ("large", ""),
        ("limit.content", ""),
    ]


def test_a_merge_hides_nothing(project: Project) -> None:
    """The secret is on the side that the merge throws away."""
    steps(project, {"x": "x"})
    sh(project.guest, "checkout", "-q", "-b", "side", env=project.env)
    (added,) = steps(project, {"hidden/key": f"{TOKEN}\n"})
    sh(project.guest, "checkout", "-q", "-", env=project.env)
    steps(project, {"y": "y"})
    sh(project.guest, "merge", "-q", "-s", "ours", "-m", "merge", "side", env=project.env)
    assert [(one.rule, one.path, one.commit) for one in earlier(project)] == [
        ("secret.github", "hidden/key", added)
    ]


def test_a_flood_of_what_was_there_hides_nothing_behind_it(project: Project) -> None:
    commit(project.repo, "old", f"{TOKEN}\n", env=project.env)
    sh(project.guest, "pull", "-q", env=project.env)
    steps(project, {"old": f"{TOKEN}\n" * 90_000 + f"{OTHER}\n"}, {"old": ""})
    assert rules(earlier(project)) == {"secret.github": 1}


@pytest.mark.parametrize("path", ["a 5 7", "x missing", "-c", "blob 1", ":(glob)x", "\u202ex", "a" * 255])
def test_a_name_is_no_answer(project: Project, path: str) -> None:
    """Names that read as what git answers when it finds nothing, or as an option."""
    steps(project, {path: f"{TOKEN}\n"}, {path: None})
    assert [(one.rule, one.path) for one in earlier(project)] == [("secret.github", path)]


def test_an_object_that_is_missing_in_the_history_is_counted(project: Project) -> None:
    steps(project, {"f": "gone\n"}, {"f": "here\n"})
    blob = sh(project.guest, "rev-parse", "HEAD~1:f", env=project.env)
    (project.guest / ".git/objects" / blob[:2] / blob[2:]).unlink()
    assert [one.detail for one in earlier(project)] == ["1 object(s) of its commits are not here"]


def test_the_bounds_hold_for_all_commits_together(project: Project) -> None:
    text = "x" * 1000
    steps(project, *({"f": f"{number}{text}\n"} for number in range(6)), {"f": None})
    assert earlier(project) == []
    (found,) = earlier(project, total_bytes=2500)
    assert (found.rule, found.severity.value) == ("limit", "block")
    assert found.detail == "3 file(s) of earlier commits were not looked at: there is too much of them"
    assert {one.rule for one in earlier(project, blob_bytes=100)} == {"limit.content"}


def test_the_time_is_that_of_the_given_clock(project: Project) -> None:
    steps(project, *({"f": f"{number}\n"} for number in range(6)), {"f": None})
    ticks = iter(range(0, 1000, 10))
    account = Account(Budget(seconds=85.0), clock=lambda: float(next(ticks)))
    subject = Subject(
        head(project.repo, env=project.env), head(project.guest, env=project.env), None, ("Ada", "ada@example.test")
    )  # fmt: skip
    found = scan(store_of(project), subject, account=account, is_secret_name=lambda _: False)
    assert [one.detail for one in found] == [
        "2 file(s) of earlier commits were not looked at: there is too much of them"
    ]
