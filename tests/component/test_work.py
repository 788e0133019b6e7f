"""The diff of a session, from the objects in its relay."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from coding_agents.app.work import Range, diff
from coding_agents.errors import GitError
from coding_agents.gitsync.relay_repo import Relay
from coding_agents.model.refs import Branch, Oid
from coding_agents.supervisor.context import SessionContext
from support.product import git, make_repo
from support.repos import git_env

_MIB = 1 << 20


@dataclass
class _Session:
    """All of a session that a diff looks at."""

    relay: Relay


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "shop")


def pieces(repo: Path, tip: str = "HEAD", *, stat: bool = False) -> list[str]:
    base = Oid.parse(git(repo, "rev-parse", "HEAD~1"))
    relay = Relay(repo / ".git", Branch.parse("work", agent="demo"), base, None, git_env(repo.parent))
    found = Range(base, Oid.parse(git(repo, "rev-parse", tip) if tip == "HEAD" else tip))
    return list(diff(cast(SessionContext, _Session(relay)), found, stat=stat))


def commit(repo: Path, content: bytes) -> str:
    (repo / "large.txt").write_bytes(content)
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "-m", "large")
    return git(repo, "diff-tree", "-r", "-p", "HEAD~1", "HEAD") + "\n"


def test_a_large_diff_comes_in_small_pieces_of_whole_lines(repo: Path) -> None:
    whole = commit(repo, b"".join(b"line %d\n" % number for number in range(500_000)))
    found = pieces(repo)
    assert "".join(found) == whole
    assert len(whole) > 5 * _MIB
    assert max(map(len, found)) <= 128 * 1024
    assert all(piece.endswith("\n") for piece in found)
    assert "1 file changed, 500000 insertions" in "".join(pieces(repo, stat=True))


def test_a_line_without_end_is_cut(repo: Path) -> None:
    whole = commit(repo, b"x" * (5 * _MIB) + b"\nlast\n")
    found = pieces(repo)
    assert "".join(found) == whole
    assert _MIB < max(map(len, found)) < 2 * _MIB
    assert found[-1].endswith("\n+last\n")


def test_git_that_fails_is_told(repo: Path) -> None:
    commit(repo, b"x\n")
    with pytest.raises(GitError, match="git diff-tree failed"):
        pieces(repo, "f" * 40)
