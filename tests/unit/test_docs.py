"""The documents against the tree and the program: what they name exists, and what they promise is attacked."""

from __future__ import annotations

import re

import click
import pytest

from coding_agents.cli.main import VERBS, cli
from support.docs import ROOT, Page, page, pages

PAGES = pages()
BY_NAME = pytest.mark.parametrize("doc", PAGES, ids=lambda doc: doc.name)

THREATS = page("docs/threat-model.md")
# Written at the same time as the page that names them. Every other named path must exist.
COMING = frozenset(
    f"tests/escape/test_{name}.py" for name in ("container", "network_guard", "relay_attacks", "return_path")
)

# Hosts that a document may name. A registry is none of them: those come from the package managers' configuration.
HOSTS = frozenset(
    {"127.0.0.1", "localhost", "coding-agents"}
)  # the last is the relay's, in git://coding-agents/…
_HOST = re.compile(r"\b(?:[a-z0-9-]+\.)+(?:com|org|net|io|dev|ai|co|app|cloud|example)\b", re.IGNORECASE)
_URL_HOST = re.compile(r"\b[a-z][a-z0-9+.-]*://([A-Za-z0-9.-]+)")


def test_the_pages_are_found() -> None:
    names = {doc.name for doc in PAGES}
    assert {
        "README.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/reference/cli.md",
    } <= names


def test_the_readme_begins_with_the_two_commands() -> None:
    readme = page("README.md")
    assert readme.blocks[0] == ("sh", "./dev try\n./dev test\n")
    before = readme.text.split("```")[0].strip().splitlines()
    assert before[0] == "# coding-agents"
    assert len([line for line in before[1:] if line]) == 1, "one sentence between title and commands"


def anchor_problems(doc: Page, link: str) -> str:
    """Why a relative link leads nowhere, or an empty string."""
    target, _, anchor = link.partition("#")
    path = (ROOT / doc.name).parent / target if target else ROOT / doc.name
    if not path.exists():
        return f"{link}: no such file"
    if anchor and anchor not in page(path.resolve().relative_to(ROOT).as_posix()).anchors:
        return f"{link}: no such heading"
    return ""


@BY_NAME
def test_links_lead_somewhere(doc: Page) -> None:
    relative = [link for link in doc.links if not re.match(r"[a-z]+:", link)]
    assert [problem for link in relative if (problem := anchor_problems(doc, link))] == []


def test_a_dead_link_is_noticed() -> None:
    doc = Page("docs/x.md", "# One\n[a](nothing.md) [b](#two) [c](#one) [d](../README.md#more)")
    assert [bool(anchor_problems(doc, link)) for link in doc.links] == [True, True, True, False]


@BY_NAME
def test_paths_of_the_project_exist(doc: Page) -> None:
    assert [path for path in doc.paths if not (ROOT / path).exists() and path not in COMING] == []


@BY_NAME
def test_no_host_is_named_and_nothing_of_one_machine(doc: Page) -> None:
    named = {*_HOST.findall(doc.text), *_URL_HOST.findall(doc.text)} - HOSTS
    assert not {host for host in named if not host.endswith(".example")}  # reserved: RFC 2606
    assert not re.search(r"(?<![\w.-])/(?:work|tmp/eng|root|home/(?!agentuser))/", doc.text)


@BY_NAME
def test_commands_can_be_typed_as_they_are(doc: Page) -> None:
    """Verbs and flags in command lines exist; the words after `--` are somebody else's."""
    context = click.Context(cli)
    wrong = []
    for words in doc.commands():
        ours = words[: words.index("--")] if "--" in words else words
        verb = {"launch-agent": "launch", "list-agents": "list"}.get(ours[0]) or (
            ours[1] if len(ours) > 1 else ""
        )
        if not re.fullmatch(r"[a-z]+", verb):
            continue  # `coding-agents VERB`, `coding-agents --help`
        command = cli.get_command(context, verb)
        if command is None:
            wrong.append(" ".join(words))
            continue
        known = {"-h", "--help"}
        for one in (command, *(command.commands.values() if isinstance(command, click.Group) else ())):
            known |= {flag for param in one.params for flag in (*param.opts, *param.secondary_opts)}
        given = {word.partition("=")[0] for word in ours if re.match(r"\[?--?[a-z]", word)}
        if unknown := {flag.strip("[]`") for flag in given} - known:
            wrong.append(f"{' '.join(words)}: {unknown}")
    assert wrong == []


def test_every_verb_is_mentioned_where_a_newcomer_looks() -> None:
    shown = page("README.md").text + page("docs/reference/cli.md").text
    assert [verb for verb in VERBS if f"coding-agents {verb}" not in shown] == []


def guarantees() -> dict[str, list[str]]:
    """Guarantee to the cells of its row: what, provided by, attacked by."""
    rows = re.findall(r"^\| \*\*(G[0-9]+)\*\* \| (.+) \|$", THREATS.text, re.MULTILINE)
    return {number: cells.split(" | ") for number, cells in rows}


def test_guarantees_are_numbered_and_each_has_code_and_tests() -> None:
    found = guarantees()
    assert list(found) == [f"G{number}" for number in range(1, len(found) + 1)]
    assert len(found) >= 10
    for number, (_, provided, attacked) in found.items():
        assert re.search(r"`(?:src|images)/", provided), number
        tests = re.findall(r"`(tests/[^`]+)`", attacked)
        assert tests, number
        assert all(name.rpartition("/")[2].startswith("test_") for name in tests), number


def test_every_escape_test_attacks_a_named_guarantee() -> None:
    named = set(THREATS.paths)
    there = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/escape/test_*.py")}
    assert there <= named
    assert named >= COMING


def test_the_security_page_names_the_last_guarantee() -> None:
    assert f"G1 to {list(guarantees())[-1]}" in page("SECURITY.md").text


def test_decisions_are_numbered_and_have_the_four_parts() -> None:
    records = [doc for doc in PAGES if doc.name.startswith("docs/adr/")]
    assert len(records) >= 9
    for number, doc in enumerate(records, 1):
        assert doc.name.startswith(f"docs/adr/{number:04d}-")
        assert doc.text.startswith(f"# {number}. ")
        headings = re.findall(r"^## (.+)$", doc.text, re.MULTILINE)
        assert headings == ["Status", "Context", "Decision", "Consequences"]
        assert len(doc.text.splitlines()) <= 60, "one page"


def test_news_are_named_by_issue_and_type() -> None:
    names = [path.name for path in (ROOT / "changelog.d").iterdir()]
    assert names
    assert not [
        name for name in names if not re.fullmatch(r"\d+\.(?:feature|fix|security|doc|removal)\.md", name)
    ]
