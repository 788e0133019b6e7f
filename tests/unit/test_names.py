"""Session names: valid for every engine, stable, and different where they must be."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.errors import BranchError, NameFormatError
from coding_agents.model.names import MAX_NAME, named_session, parse_name, session_name, with_suffix
from coding_agents.model.refs import Branch

# Docker's and Podman's rule for container names, narrowed to lower case.
CONTAINER = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def branch(raw: str) -> Branch:
    return Branch.parse(raw, agent="demo")


@pytest.mark.parametrize(
    ("repo", "raw", "name"),
    [
        ("app", "fix", "demo-app-fix"),
        ("My_App", "feature/Big_Thing", "demo-my-app-feature-big-thing"),
        ("a..b", "x", "demo-a.b-x"),
        ("site.js", "v1.2", "demo-site.js-v1.2"),
        ("Größe", "x", "demo-gr-e-x"),
        ("日本", "x", "demo-x"),
        ("--app--", "x", "demo-app-x"),
        (".dotfiles", "x", "demo-dotfiles-x"),
    ],
)
def test_names_of_sessions(repo: str, raw: str, name: str) -> None:
    assert session_name("demo", repo, branch(raw)) == name


@given(st.text(max_size=90), st.text(max_size=90))
def test_every_name_suits_every_engine(repo: str, raw: str) -> None:
    try:
        parsed = branch(raw)
    except BranchError:
        parsed = branch("x")
    name = session_name("demo", repo, parsed)
    suffixed = with_suffix(name, "abcdef012345")
    for each in (name, suffixed):
        assert CONTAINER.fullmatch(each)
        assert len(each) <= MAX_NAME
        assert not each.endswith(("-", "."))
    assert suffixed.endswith("-abcd")
    assert session_name("demo", repo, parsed) == name


def test_long_names_stay_different() -> None:
    one, two = (session_name("demo", "r" * 80, branch(f"x{'y' * 60}{end}")) for end in "12")
    assert one != two
    assert len(one) == len(two) == MAX_NAME


def test_a_given_name() -> None:
    assert named_session("demo", parse_name("night-run.2")) == "demo-night-run.2"


@pytest.mark.parametrize(
    "raw", ["", "-x", "x-", ".x", "x.", "a..b", "A", "a b", "a/b", "a_b", "x" * 49, "é", "a\n"]
)
def test_bad_given_names(raw: str) -> None:
    with pytest.raises(NameFormatError):
        parse_name(raw)
