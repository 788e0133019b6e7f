"""The rules of `review`, a person's word about findings, and the forms for tools and for others: through the verb."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest

from coding_agents.cli import review as review_verb
from coding_agents.errors import AuditError, StoreError, UsageError
from coding_agents.gitsync.findings.budget import Budget
from coding_agents.gitsync.findings.rules import load_rules
from support.repos import sh
from support.review_project import TOKEN, Project, make_project

NASTY = "<script>alert(1)</script><img src=//evil.example/x onerror=alert(1)>"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = make_project(tmp_path, changes=False)
    made.record(monkeypatch)
    made.write(".envrc", "x\n")
    made.write(".github/workflows/ci.yml", "on: push\n")
    made.commit()
    made.push()
    return made


def blocked(project: Project) -> dict[str, str]:
    """Rule to id of what blocks."""
    return {
        one["rule"]: one["id"]
        for one in project.json()["findings"]
        if one["severity"] == "block" and not one["accepted"]
    }


# --- rules ---------------------------------------------------------------------------------------------------


def test_every_rule_has_a_severity_and_a_reason(project: Project) -> None:
    """Without a session; and what is found is of one of these."""
    assert review_verb.command.main(["--rules", "--json"], standalone_mode=False, obj=project.context) is None
    listed = json.loads(project.out.getvalue())
    assert [one["severity"] for one in listed] == sorted(
        (one["severity"] for one in listed), key=["block", "warn", "note"].index
    )
    assert all(len(one["reason"]) > 5 for one in listed)
    assert {one["rule"] for one in project.json()["findings"]} <= {one["rule"] for one in listed}
    assert review_verb.command.main(["--rules"], standalone_mode=False, obj=project.context) is None
    assert all(one["rule"] in project.out.getvalue() for one in listed)


# --- a person's word -----------------------------------------------------------------------------------------


def test_what_is_accepted_is_recorded_with_its_reason(project: Project) -> None:
    ids = blocked(project)
    assert set(ids) == {"environment", "ci"}
    project.run("--accept", ids["ci"][:6], "--reason", "  pins \x1b[2J the\nrunner ")
    (record,) = project.records
    assert (record["type"], record["required"]) == ("finding-accepted", True)
    assert record["subject"] == "ci .github/workflows/ci.yml"
    detail = record["detail"]
    assert isinstance(detail, dict)
    assert (detail["id"], detail["reason"]) == (ids["ci"], "pins \\x1b[2J the\\x0arunner")
    said = {one["rule"]: one["accepted"] for one in project.json()["findings"] if one["severity"] == "block"}
    assert said == {"ci": "pins \\x1b[2J the\\x0arunner", "environment": ""}
    assert "block, accepted" in project.text()
    assert project.json()["blocking"] is True
    project.run("--accept", "environment:.envrc", "--reason", "x")
    assert project.json()["blocking"] is False
    assert "blocking" not in project.text()


def test_a_word_is_withdrawn(project: Project) -> None:
    ids = blocked(project)
    project.run("--accept", ids["ci"], "--accept", ids["environment"], "--reason", "x")
    project.run("--withdraw", "ci:.github/workflows/ci.yml")
    assert set(blocked(project)) == {"ci"}
    assert [one["detail"] for one in project.records][-1] == {"id": ids["ci"], "withdrawn": "1"}


def test_a_word_holds_for_this_content_mode_and_place(project: Project) -> None:
    project.run("--accept", "environment:.envrc", "--reason", "x")
    assert "environment" not in blocked(project)
    for change in (
        lambda: project.write(".envrc", "y\n"),
        lambda: project.write(".envrc", "x\n", 0o755),
        lambda: (project.write(".envrc", "x\n"), project.write("sub/.envrc", "x\n")),
    ):
        change()
        project.commit()
        project.push()
        assert "environment" in blocked(project)


def test_a_word_about_what_was_not_looked_at_holds_for_that_state(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for what is not looked at the next time."""
    none = Budget(seconds=0.0)
    monkeypatch.setattr("coding_agents.app.review.Budget", lambda: none)
    (limit,) = [one["id"] for one in project.json()["findings"] if one["rule"] == "limit"]
    project.run("--accept", limit, "--reason", "x")
    assert "limit" not in blocked(project)
    project.write("more", "x\n")
    project.commit()
    project.push()
    assert "limit" in blocked(project)


def test_a_word_is_no_word_without_its_record(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def ask(self, _op: object, **fields: object) -> dict[str, object]:
            raise AuditError("cannot record")

    monkeypatch.setattr("coding_agents.supervisor.context.SessionContext.supervisor", lambda _self: Full())
    with pytest.raises(AuditError):
        project.run("--accept", "environment:.envrc", "--reason", "x")
    assert "environment" in blocked(project)


@pytest.mark.parametrize(
    "words",
    [
        ("--accept", "environment:.envrc"),
        ("--reason", "x"),
        ("--accept", "environment:.envrc", "--reason", " "),
        ("--accept", "environment:.envrc", "--reason", "x" * 501),
        ("--accept", "environment:nothing", "--reason", "x"),
        ("--accept", "environment", "--reason", "x"),
        ("--accept", ".*", "--reason", "x"),
        ("--accept", "ffffffff", "--reason", "x"),
        ("--withdraw", "environment:.envrc"),
        ("--sarif", "--json"),
    ],
)
def test_words_that_name_nothing_are_refused(project: Project, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        project.run(*words)
    assert caught.value.hint
    assert project.records == []
    assert set(blocked(project)) == {"environment", "ci"}


def test_a_file_of_words_that_cannot_be_read_accepts_nothing(project: Project) -> None:
    project.run("--accept", "environment:.envrc", "--reason", "x")
    (place,) = (project.session.store.state_dir / "accepted").glob("*.json")
    assert (place.stat().st_mode & 0o777, place.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    good = place.read_bytes()
    for bad in (b"{", good.replace(b'"v": 1', b'"v": 9'), good.replace(b'"uid"', b'"who"'), b"[]"):
        place.write_bytes(bad)
        with pytest.raises(StoreError):
            project.json()


# --- forms ---------------------------------------------------------------------------------------------------


def test_sarif(project: Project) -> None:
    """Its shape, as the standard has it (SARIF 2.1.0, 3.19, 3.27), and that hostile names stay names."""
    names = ["a b/%2e%2e/.envrc", "http:evil/.envrc", "odd\n\x1b[2J/.envrc", "ü/.envrc"]
    for name in names:
        project.write(name, "x\n")
    project.commit()
    project.push()
    project.run("--accept", "environment:.envrc", "--reason", "wanted")
    log = json.loads(project.run("--sarif"))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [one["id"] for one in rules] == [one.id for one in load_rules().texts()]
    places: dict[str, dict[str, Any]] = {}
    for one in run["results"]:
        assert rules[one["ruleIndex"]]["id"] == one["ruleId"]
        assert one["level"] in ("error", "warning", "note")
        assert one["message"]["text"].isprintable()
        for place in one.get("locations", ()):
            where = place["physicalLocation"]["artifactLocation"]
            assert where["uriBaseId"] == "SRCROOT"
            places.setdefault(where["uri"], one)
    assert {
        "a%20b/%252e%252e/.envrc", "http%3Aevil/.envrc", "odd%0A%1B%5B2J/.envrc", "%C3%BC/.envrc", ".envrc",
    } <= set(places)  # fmt: skip
    assert places[".envrc"]["suppressions"][0]["justification"] == "wanted"
    assert "suppressions" not in places["%C3%BC/.envrc"]


class Elements(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.styles: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {(tag, name) for name, _ in attrs}


def page_of(project: Project, tmp_path: Path, *words: str) -> str:
    place = tmp_path / "page.html"
    project.run("--html", str(place), *words)
    return place.read_text("utf-8")


def test_a_page_has_the_findings_commits_and_changes(project: Project, tmp_path: Path) -> None:
    project.run("--accept", "environment:.envrc", "--reason", "wanted")
    page = page_of(project, tmp_path)
    for shown in (
        "1 finding(s) block",
        "accepted: wanted",
        "Ada &lt;ada@example.test&gt;",
        "+on: push",
        ".envrc",
    ):
        assert shown in page
    assert (tmp_path / "page.html").stat().st_mode & 0o077 == 0


def test_nothing_on_a_page_is_the_agents_markup(project: Project, tmp_path: Path) -> None:
    """No element but ours, no script, and nothing that is loaded or followed."""
    person = ("-c", f"user.name=x{NASTY}", "-c", "user.email=</td><script src=x>@x")
    project.write(f"a{NASTY.replace('/', ' ')}\u202e\x1b[2J.pem", f"{NASTY}\n</pre></body>\u202e\x1b]0;x\a\n")
    project.write("<iframe srcdoc=x>/.envrc", "x\n")
    sh(project.guest, "add", "-A", "--force", env=project.env)
    sh(project.guest, *person, "commit", "-qm", f"{NASTY} \u202e", env=project.env)
    project.push()
    project.run("--accept", "environment:.envrc", "--reason", NASTY)
    page = page_of(project, tmp_path)
    found = Elements(page)
    assert found.seen == {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "tr", "th", "td", "code", "br",
        "small", "span", "pre",
    }  # fmt: skip
    assert found.attributes == {
        ("html", "lang"), ("meta", "charset"), ("meta", "http-equiv"), ("meta", "content"), ("meta", "name"),
        ("td", "class"), ("span", "class"),
    }  # fmt: skip
    assert "Content-Security-Policy\" content=\"default-src 'none'" in page
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert page.replace("\n", "").replace("\t", "").isprintable()
    assert page.count("&lt;script&gt;") >= 3  # name, content and subject are there to be read


def test_a_page_holds_no_secret_twice_and_has_an_end(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the findings say of a secret does not hold it; the changes are the agent's own, and are cut."""
    monkeypatch.setattr("coding_agents.app.review_page.MAX_BYTES", 2000)
    project.write("config.py", f"KEY = '{TOKEN}'\n")
    project.write("zz", "line\n" * 2000)
    project.commit()
    project.push()
    page = page_of(project, tmp_path)
    assert page.partition("<h2>Changes")[0].count(TOKEN) == 0
    assert "There is more" in page
    assert len(page) < 60_000


def test_drivers_of_yours_do_not_run_for_a_page(project: Project, tmp_path: Path) -> None:
    """The agent names them in its attributes, and your configuration says what they are."""
    ran = tmp_path / "ran"
    for key in ("diff.x.textconv", "diff.x.command", "diff.external", "filter.x.smudge"):
        sh(project.repo, "config", "--global", key, f"sh -c ': > {ran}' --", env=project.env)
        sh(project.session.relay.git_dir, "config", key, f"sh -c ': > {ran}' --", env=project.env)
    project.write(".gitattributes", "* diff=x filter=x\n")
    (project.session.relay.git_dir / "info").mkdir(exist_ok=True)
    (project.session.relay.git_dir / "info/attributes").write_text("* diff=x filter=x\n")
    project.commit()
    project.push()
    page_of(project, tmp_path)
    assert not ran.exists()


def test_a_page_that_cannot_be_written(project: Project, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        project.run("--html", str(tmp_path / "nowhere/page.html"))
    assert "nowhere/page.html" in caught.value.message


def test_without_work_there_is_a_page_too(tmp_path: Path) -> None:
    project = make_project(tmp_path, changes=False)
    assert "nothing blocks a merge" in page_of(project, tmp_path)


def test_a_name_is_needed(project: Project) -> None:
    with pytest.raises((UsageError, click.UsageError)):
        review_verb.command.main([], standalone_mode=False, obj=project.context)
