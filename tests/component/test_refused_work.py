"""What the relay does not take stays in the volume, named, and keeps nothing else from coming home."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from coding_agents_guest import refused
from coding_agents_guest.events import Salvaged
from coding_agents_guest.nestedref import nested_ref
from coding_agents_guest.salvage import salvage
from support.agentrepo import AgentRepo, make_agent_repo


@pytest.fixture
def repo(tmp_path: Path) -> AgentRepo:
    made = make_agent_repo(tmp_path / "r")
    made.write("work.txt", "work\n")
    return made


def salvaged(repo: AgentRepo) -> Salvaged:
    report = salvage(repo.config, repo.place, time.monotonic() + 60)
    assert isinstance(report, Salvaged), report
    return report


def limited(repo: AgentRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that takes a megabyte at most."""
    monkeypatch.setattr(refused, "_LARGE", 1 << 20)
    with (repo.relay / "config").open("a") as config:
        config.write("[receive]\n\tmaxInputSize = 1m\n")


def test_a_file_that_is_refused_keeps_no_other(repo: AgentRepo) -> None:
    repo.write(".gitattributes", "*.x " + "a" * 4000 + "\n")  # longer than fsck lets a line of it be
    report = salvaged(repo)
    assert repo.files(report.worktree) == [".gitignore", "README", "work.txt"]
    assert ".gitattributes" in report.kept
    assert "gitattributes" in report.kept.partition("(")[2], "and why"
    assert salvaged(repo).worktree == report.worktree


def test_a_change_that_is_refused_leaves_what_was_there(repo: AgentRepo) -> None:
    repo.write(".gitattributes", "*.x text\n")
    repo.git("add", ".gitattributes")
    repo.git("commit", "--quiet", "-m", "attributes")
    repo.write(".gitattributes", "*.x " + "a" * 4000 + "\n")
    report = salvaged(repo)
    assert repo.in_relay("show", f"{report.worktree}:.gitattributes") == "*.x text"


def test_a_large_file_keeps_no_other(repo: AgentRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(repo, monkeypatch)
    (repo.work / "large.bin").write_bytes(os.urandom(2 << 20))
    report = salvaged(repo)
    assert repo.files(report.worktree) == [".gitignore", "README", "work.txt"]
    assert "large.bin" in report.kept


def test_commits_that_are_refused_keep_no_file(repo: AgentRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(repo, monkeypatch)
    (repo.work / "large.bin").write_bytes(os.urandom(2 << 20))
    repo.git("add", ".")
    repo.git("commit", "--quiet", "-m", "large")
    repo.write("later.txt", "later\n")
    report = salvaged(repo)
    assert (report.head, repo.files(report.worktree)) == (
        "",
        [".gitignore", "README", "later.txt", "work.txt"],
    )
    assert "commits that are not taken" in report.kept
    assert "large.bin" in report.kept


def test_a_repository_inside_that_is_refused_is_kept(repo: AgentRepo) -> None:
    """Once there was a repository at `tmp`: git takes no ref below that of it."""
    repo.in_relay("update-ref", nested_ref(["tmp"]), repo.config.base)
    inside = repo.work / "tmp/proj"
    inside.mkdir(parents=True)
    repo.git("-C", str(inside), "init", "--quiet")
    (inside / "f").write_text("f\n")
    repo.git("-C", str(inside), "add", "f")
    repo.git("-C", str(inside), "commit", "--quiet", "-m", "f")
    report = salvaged(repo)
    assert "work.txt" in repo.files(report.worktree)
    assert "tmp/proj" in report.kept


@pytest.mark.parametrize("lines", ["autocrlf = banana\n", "symlinks = 2x\n", "eol = lf\n" * 50_000])
def test_settings_that_git_cannot_read_or_without_end_cost_nothing(repo: AgentRepo, lines: str) -> None:
    with (repo.work / ".git/config").open("a") as config:
        config.write("[core]\n" + lines)
    began = time.monotonic()
    assert "work.txt" in repo.files(salvaged(repo).worktree)
    assert time.monotonic() - began < 20
