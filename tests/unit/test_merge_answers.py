"""What `git merge-tree -z` prints, of hostile names too, and what it never prints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.errors import GitError
from coding_agents.gitsync.merging import Conflict, _parse

TREE = "a" * 40
_OID = b"b" * 40


def entry(path: bytes, stage: int = 2) -> bytes:
    return b"100644 " + _OID + b" %d\t" % stage + path


def test_conflicts_have_their_paths_and_gits_own_words() -> None:
    said = b"\0".join(
        [TREE.encode(), entry(b"a"), entry(b"a", 3), entry(b"b\n1"), b"",
         b"1", b"a", b"Auto-merging", b"Auto-merging a\n",
         b"1", b"a", b"CONFLICT (contents)", b"CONFLICT (content): Merge conflict in a\n",
         b"2", b"b\n1", b"c", b"CONFLICT (rename/rename)", b"CONFLICT: renamed\n", b""]
    )  # fmt: skip
    assert _parse(said) == (
        TREE,
        (Conflict("a", "CONFLICT (contents)"), Conflict("b\n1", "CONFLICT (rename/rename)"),
         Conflict("c", "CONFLICT (rename/rename)")),
    )  # fmt: skip


@pytest.mark.parametrize("said", [TREE.encode(), TREE.encode() + b"\0", b"c" * 64 + b"\0\0"])
def test_a_tree_alone_has_no_conflict(said: bytes) -> None:
    assert _parse(said)[1] == ()


@given(st.lists(st.one_of(st.binary(max_size=12), st.sampled_from(
    [b"", b"1", b"2", b"9" * 5000, b"CONFLICT (x)", entry(b"p"), entry(b"\xff\n")])), max_size=12))  # fmt: skip
def test_every_answer_is_read_or_is_none(fields: list[bytes]) -> None:
    """And each path of an entry is among the conflicts: none is lost by what stands behind it."""
    tree, conflicts = _parse(b"\0".join([TREE.encode(), *fields]))
    assert tree == TREE
    leading = [
        one.partition(b"\t")[2]
        for one in fields[: next((n for n, one in enumerate(fields) if one[:7] != b"100644 "), 99)]
    ]
    assert {one.decode("utf-8", "surrogateescape") for one in leading} <= {one.path for one in conflicts}


@given(st.binary(max_size=80))
def test_without_a_tree_it_is_an_error(said: bytes) -> None:
    if not said.startswith((TREE.encode(),)):
        with pytest.raises(GitError):
            _parse(b"x" + said)
