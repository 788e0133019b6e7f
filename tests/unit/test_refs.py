"""Branch names and object ids; git itself is the judge of what is accepted."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coding_agents.errors import BranchError, GitError
from coding_agents.model.refs import MAX_BRANCH_BYTES, Branch, Oid, RefUpdate, next_session_branch

LIKELY = st.text(alphabet="ab/.-_@{}~^: \\*[é\x00\n\x7fHEAD", max_size=12) | st.text(max_size=30)


@pytest.mark.parametrize(
    ("raw", "short"),
    [
        ("fix", "demo/fix"),
        ("demo/fix", "demo/fix"),
        ("feature/x", "demo/feature/x"),
        ("demo", "demo/demo"),
        ("demox/fix", "demo/demox/fix"),
        ("größe", "demo/größe"),
        ("a@b", "demo/a@b"),
    ],
)
def test_the_agent_is_put_in_front_once(raw: str, short: str) -> None:
    branch = Branch.parse(raw, agent="demo")
    assert branch.short == short
    assert branch.ref == f"refs/heads/{short}"


@pytest.mark.parametrize(
    "raw",
    [
        "", "/", "a/", "/a", "a//b", "demo/", "demo//x", "-x", "a/-x", ".x", "a/.x", "x.lock",
        "a.lock/b", "a..b",
        "a b", "a\tb", "a\nb", "a\x7fb", "a~b", "a^b", "a:b", "a?b", "a*b", "a[b", "a\\b", "a@{b",
        "@", "HEAD",
        "a/HEAD", "demo/HEAD", "x.", "\u202ex", "a\u200bb", "\ud800", "x" * (MAX_BRANCH_BYTES + 1),
        "x" * (MAX_BRANCH_BYTES - 4), "é" * 100,
    ],
)  # fmt: skip
def test_bad_names_are_refused_with_a_hint(raw: str) -> None:
    with pytest.raises(BranchError) as caught:
        Branch.parse(raw, agent="demo")
    assert caught.value.hint


@settings(max_examples=150, deadline=None)
@given(LIKELY)
def test_git_accepts_every_name_that_we_accept(raw: str) -> None:
    try:
        branch = Branch.parse(raw, agent="demo")
    except BranchError:
        return
    checked = subprocess.run(
        ["git", "check-ref-format", "--branch", branch.short], capture_output=True, check=False
    )
    assert checked.returncode == 0
    assert checked.stdout.decode().rstrip("\n") == branch.short
    assert Branch.parse(branch.short, agent="demo") == branch


@pytest.mark.parametrize("length", [40, 64])
def test_full_object_ids_are_parsed(length: int) -> None:
    assert Oid.parse("a1" * (length // 2)) == "a1" * (length // 2)


@pytest.mark.parametrize(
    "raw", ["", "0" * 40, "0" * 64, "a" * 39, "a" * 41, "A" * 40, "g" * 40, "a" * 40 + "\n"]
)
def test_anything_else_is_no_object_id(raw: str) -> None:
    with pytest.raises(GitError):
        Oid.parse(raw)


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        ([], 1),
        (["demo/session-1"], 2),
        (["demo/session-2", "main"], 1),
        (["demo/session-1", "demo/session-2", "demo/session-4"], 3),
        (["demo/session-1/deeper"], 2),
        (["Demo/Session-1"], 2),
        (["other/session-1"], 1),
    ],
)
def test_the_next_free_session_branch(taken: list[str], free: int) -> None:
    assert next_session_branch("demo", taken).short == f"demo/session-{free}"


def test_a_hostile_ref_name_is_shown_as_text() -> None:
    update = RefUpdate(None, None, b"refs/heads/\xff".decode("utf-8", "surrogateescape"))
    assert update.shown == "refs/heads/\\xff"
