"""What a push may ask of origin, and what the settings say of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.gitsync.origin_rules import judge_push
from coding_agents.gitsync.pktline import PushCommands
from coding_agents.gitsync.rules import load_policy
from coding_agents.model.origin import (
    OriginRules,
    is_fetched,
    parse_address,
    parse_branches,
    parse_refs,
    shown_refs,
)
from coding_agents.model.refs import Oid, RefUpdate
from coding_agents.policy.decide import Deny

A, B = Oid.parse("a" * 40), Oid.parse("b" * 40)
POLICY = load_policy()


def asked(*updates: RefUpdate, options: tuple[str, ...] = (), **rules: Any) -> tuple[Any, str]:
    """What is to be asked of a person, and the first reason against it."""
    commands = PushCommands(updates, frozenset(), b"", b"", options)
    found, decisions = judge_push(commands, OriginRules(**rules), POLICY, default="trunk")
    assert len(decisions) == len(updates)
    assert all(isinstance(one, Deny) for one in decisions)
    return found, decisions[0].reason if decisions else ""


def to(branch: str, old: Oid | None = A, new: Oid | None = B) -> RefUpdate:
    return RefUpdate(old, new, f"refs/heads/{branch}")


def test_a_branch_is_asked_about() -> None:
    found, _ = asked(to("topic/x", old=None))
    assert (found.ref, found.old, found.new) == ("refs/heads/topic/x", None, B)


@pytest.mark.parametrize(
    ("update", "why"),
    [
        (RefUpdate(None, A, "refs/tags/v1"), "tags are not pushed"),
        (RefUpdate(None, A, "refs/notes/commits"), "only branches"),
        (RefUpdate(None, A, "refs/for/main"), "only branches"),
        (RefUpdate(None, A, "refs/headsmain"), "only branches"),
        (RefUpdate(A, B, "HEAD"), "only branches"),
        (to("topic", new=None), "not deleted"),
        (to("main"), "protected"),
        (to("MAIN"), "protected"),
        (to("release/2.0"), "protected"),
        (to("release/2.0/hotfix"), "protected"),
        (to("trunk"), "protected"),
        (to("-x"), "-x"),
        (to("a..b"), "a..b"),
        (to("a\x1bb"), ""),
        (to("a b"), ""),
    ],
)
def test_what_nobody_is_asked_about(update: RefUpdate, why: str) -> None:
    found, reason = asked(update)
    assert found is None
    assert why in reason
    assert reason.isprintable()


def test_one_branch_at_a_time() -> None:
    assert asked(to("x"), to("y"))[0] is None
    assert asked()[0] is None


def test_nothing_is_protected_when_the_list_is_empty() -> None:
    assert asked(to("main"), protected=())[0] is not None
    assert asked(to("trunk"), protected=())[0] is not None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), (False, "")),
        (("merge_request.create",), (True, "")),
        (("merge_request.create", "merge_request.target=develop"), (True, "develop")),
        (("merge_request.target=develop", "merge_request.create"), (True, "develop")),
        (("merge_request.target=develop",), None),
        (("merge_request.target=", "merge_request.create"), None),
        (("merge_request.create", "merge_request.target=--all"), None),
        (("merge_request.create", "merge_request.target=a\nb"), None),
        (("merge_request.create=1",), None),
        (("merge_request.merge_when_pipeline_succeeds",), None),
        (("ci.variable=X=1",), None),
        (("",), None),
    ],
)
def test_push_options(options: tuple[str, ...], expected: tuple[bool, str] | None) -> None:
    found, reason = asked(to("topic"), options=options)
    assert ((found.merge_request, found.target) if found else None) == expected
    assert reason.isprintable()


@given(
    st.lists(st.text(max_size=40), max_size=3),
    st.lists(st.text(max_size=30), max_size=2),
    st.sampled_from(["refs/heads/", "refs/tags/", "", "refs/heads/main"]),
)
def test_whatever_is_pushed_is_judged(names: list[str], options: list[str], prefix: str) -> None:
    found, _ = asked(*(RefUpdate(A, B, prefix + name) for name in names), options=tuple(options))
    if found is not None:
        assert len(names) == 1
        assert found.ref == prefix + names[0]
        assert found.ref.startswith("refs/heads/")
        assert found.branch.lower() not in ("main", "master", "trunk", "production")
        assert found.ref.isprintable()


def test_what_is_fetched_is_what_is_shown() -> None:
    patterns = ("refs/heads/*", "refs/tags/v/*", "refs/heads/main")
    assert shown_refs(patterns) == ("refs/heads", "refs/tags/v", "refs/heads/main")
    assert [is_fetched(ref, patterns) for ref in ("refs/heads/a/b", "refs/tags/v/1", "refs/tags/w", "refs/pull/1")] == [
        True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["refs/heads/*", "refs/tags/v/*", "refs/heads/main"])
def test_refs_of_the_settings(text: str) -> None:
    assert parse_refs(text) == text


@pytest.mark.parametrize(
    "text",
    ["refs/*", "*", "refs/heads/a*", "refs/heads/*/x", "refs/pull/*", "+refs/heads/*", "refs/heads/a:b",
     "!refs/heads/a", "refs/heads/..", "refs/heads/-x", "refs/heads/a\n", "refs/heads/a.lock", ""],
)  # fmt: skip
def test_refs_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="form"):
        parse_refs(text)


@pytest.mark.parametrize("text", ["*/x", "a*", "-a", "a..b", "a\n", "", "refs heads"])
def test_branches_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="branch"):
        parse_branches(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://a.example/x",
        "https://a.example:8443/t/x.git",
        "ssh://git@a.example/x",
        "git@a.example:t/x.git",
    ],
)
def test_addresses(text: str) -> None:
    assert parse_address(text) == text


@pytest.mark.parametrize(
    "text",
    ["https://u:p@a.example/x", "https://token@a.example/x", "https://a.example", "file:///x", "ext::sh", "/x", "-x",
     "https://a.example/../x/../y", "https://a.example/x\n", "ssh://-oProxyCommand=x/y", "git@-x:y", "a:b"],
)  # fmt: skip
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="form"):
        parse_address(text)
