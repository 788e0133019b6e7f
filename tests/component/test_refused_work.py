"""What the relay does not take stays in the volume, named, and keeps nothing else from coming home."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from coding_agents_guest import refused
from coding_agents_guest.autosave import Memory, autosave
from coding_agents_guest.events import Autosave, Autosaved, Salvaged
from coding_agents_guest.gitwork import Git
from coding_agents_guest.nestedref import LATEST, NESTED, nested_ref
from coding_agents_guest.salvage import salvage
from support.agentrepo import AgentRepo, make_agent_repo

NOW = Autosave()


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


class Saving:
    """Automatic saves one after the other; `pushes` are those that were tried."""

    def __init__(self, repo: AgentRepo, monkeypatch: pytest.MonkeyPatch) -> None:
        self.repo, self.memory, self.pushes = repo, Memory(), 0
        run = Git.run

        def counted(git: Git, *arguments: str, **options: Any) -> bytes:
            self.pushes += arguments[0] == "push"
            return run(git, *arguments, **options)

        monkeypatch.setattr(Git, "run", counted)

    def __call__(self, order: Autosave = NOW) -> Autosaved:
        self.pushes = 0
        deadline = time.monotonic() + 60
        report, self.memory = autosave(self.repo.config, self.repo.place, order, self.memory, deadline)
        return report


def large_file(repo: AgentRepo) -> None:
    (repo.work / "large.bin").write_bytes(os.urandom(2 << 20))


def test_a_file_that_is_refused_stops_no_automatic_save(
    repo: AgentRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(repo, monkeypatch)
    large_file(repo)
    saving = Saving(repo, monkeypatch)
    report = saving()
    assert (report.pushed, saving.pushes) == (False, 2)
    assert "large.bin" in report.message
    assert repo.files(LATEST) == [".gitignore", "README", "work.txt"]
    assert (saving(), saving.pushes) == (report, 0), "what did not change is told again, and not pushed"

    repo.write("later.txt", "later\n")
    assert (saving().message, saving.pushes) == (report.message, 1), "the same file is not sent again"
    assert repo.files(LATEST) == [".gitignore", "README", "later.txt", "work.txt"]

    large_file(repo)
    assert (saving().pushed, saving.pushes) == (False, 2), "another one is"
    (repo.work / "large.bin").unlink()
    assert saving() == Autosaved(repo.in_relay("rev-parse", LATEST), pushed=True)


def test_commits_that_are_refused_stop_no_automatic_save(
    repo: AgentRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(repo, monkeypatch)
    saving = Saving(repo, monkeypatch)
    good = repo.commit("good.txt")
    assert saving(Autosave(branch=True)).pushed
    large_file(repo)
    repo.git("add", ".")
    repo.git("commit", "--quiet", "-m", "large")
    repo.write("later.txt", "later\n")
    report = saving(Autosave(branch=True))
    assert f"beyond {good[:12]} are not taken" in report.message
    assert "large.bin" in report.message
    assert repo.files(LATEST) == [".gitignore", "README", "good.txt", "later.txt", "work.txt"]
    assert repo.in_relay("rev-parse", f"{LATEST}^") == good
    assert repo.tip() == good
    assert (saving(Autosave(branch=True)), saving.pushes) == (report, 0)

    repo.write("later.txt", "more\n")
    assert (saving().pushed, saving.pushes) == (False, 1)
    assert repo.in_relay("show", f"{LATEST}:later.txt") == "more"

    repo.git("reset", "--quiet", "--hard", good)
    repo.commit("small.txt")
    assert saving(Autosave(branch=True)).pushed
    assert repo.tip() == repo.git("rev-parse", "HEAD")


def test_an_automatic_save_into_a_relay_that_is_away_tells_so(
    repo: AgentRepo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    large_file(repo)
    monkeypatch.setattr(refused, "_LARGE", 1 << 20)
    repo.relay.rename(tmp_path / "away")
    saving = Saving(repo, monkeypatch)
    assert "not saved" in saving().message
    (tmp_path / "away").rename(repo.relay)
    assert saving().pushed
    assert "large.bin" in repo.files(LATEST)


@pytest.mark.parametrize("committed", [False, True])
def test_a_file_that_is_refused_keeps_no_other_of_a_repository_inside(
    repo: AgentRepo, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    limited(repo, monkeypatch)
    inside = repo.work / "inside"
    repo.git("init", "--quiet", str(inside))
    (inside / "small.txt").write_text("small\n")
    (inside / "large.bin").write_bytes(os.urandom(2 << 20))
    if committed:
        repo.git("add", ".", cwd=inside)
        repo.git("commit", "--quiet", "-m", "all", cwd=inside)
    report = Saving(repo, monkeypatch)()
    assert not report.pushed
    assert "in inside" in report.message
    assert repo.files(f"{NESTED}inside") == ["small.txt"]


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
