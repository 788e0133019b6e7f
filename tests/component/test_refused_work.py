"""What the relay does not take stays in the volume, named, and keeps nothing else from coming home."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from coding_agents_guest import refused
from coding_agents_guest.autosave import Memory, autosave
from coding_agents_guest.events import Autosave, Autosaved, Salvaged
from coding_agents_guest.gitwork import Git
from coding_agents_guest.nestedref import LATEST, NESTED, nested_ref
from coding_agents_guest.records import replace
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
        report, memory = autosave(self.repo.config, self.repo.place, order, self.memory, deadline)
        self.memory = Memory.decode(memory.encode())  # as it comes from a child process
        return report


def large_file(repo: AgentRepo) -> None:
    (repo.work / "large.bin").write_bytes(os.urandom(2 << 20))


def test_a_file_that_is_refused_stops_no_automatic_save(
    repo: AgentRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(repo, monkeypatch)
    saving = Saving(repo, monkeypatch)
    for number in range(12):
        repo.write("work.txt", f"{number}\n")
        assert saving().pushed
    large_file(repo)
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
    assert f"beyond {good[:12]} were not taken" in report.message
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


def refuse_once(repo: AgentRepo) -> None:
    """Let the relay refuse one push, as one that is full for a moment."""
    hook = repo.relay / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntest -e refused || { touch refused; exit 1; }\n")
    hook.chmod(0o755)


def test_what_was_refused_is_tried_again_after_a_while(
    repo: AgentRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving = Saving(repo, monkeypatch)
    repo.commit("mine.txt")
    refuse_once(repo)
    assert not saving().pushed
    assert repo.files(LATEST) == [".gitignore", "README", "mine.txt", "work.txt"]
    for _ in range(20):
        if (report := saving()).pushed:
            break
    assert report == Autosaved(repo.in_relay("rev-parse", LATEST), pushed=True)
    assert repo.in_relay("rev-parse", f"{LATEST}^") == repo.git("rev-parse", "HEAD")


def test_commits_that_are_refused_are_told_also_without_a_file(
    repo: AgentRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a session without a base."""
    limited(repo, monkeypatch)
    repo = replace(repo, config=replace(repo.config, base="", launch_tree=""))
    shutil.rmtree(repo.work / ".git/refs/heads")
    (repo.work / ".git/refs/heads").mkdir()
    for path in repo.work.iterdir():
        if path.name != ".git":
            path.unlink()
    large_file(repo)
    repo.git("add", "--all")
    repo.git("commit", "--quiet", "-m", "large")
    repo.git("rm", "--quiet", "large.bin")
    repo.git("commit", "--quiet", "-m", "and gone")
    report = Saving(repo, monkeypatch)()
    assert (report.pushed, report.message[:9]) == (False, "not saved")


def test_all_files_can_be_deleted(repo: AgentRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    saving = Saving(repo, monkeypatch)
    assert saving().pushed
    repo.git("checkout", "--quiet", "--orphan", "new")
    repo.git("rm", "-r", "--quiet", "--force", ".")
    (repo.work / "work.txt").unlink()
    assert saving().pushed
    assert repo.files(LATEST) == []


def test_a_gitmodules_that_git_cannot_read_costs_no_save(
    repo: AgentRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside_of(repo)
    repo.git("add", "--all")
    repo.git("commit", "--quiet", "-m", "inside")
    repo.git("commit", "--quiet", "--allow-empty", "-m", "more", cwd=repo.work / "inside")
    repo.write(".gitmodules", "[[[\n")
    limited(repo, monkeypatch)
    large_file(repo)
    assert "large.bin" in Saving(repo, monkeypatch)().message
    assert ".gitmodules" not in repo.files(LATEST)
    assert "work.txt" in repo.files(LATEST)


def inside_of(repo: AgentRepo) -> Path:
    """A repository inside with one commit."""
    inside = repo.work / "inside"
    repo.git("init", "--quiet", str(inside))
    (inside / "small.txt").write_text("small\n")
    repo.git("add", ".", cwd=inside)
    repo.git("commit", "--quiet", "-m", "small", cwd=inside)
    return inside


@pytest.mark.parametrize("committed", [False, True])
def test_what_is_refused_keeps_nothing_else_of_a_repository_inside(
    repo: AgentRepo, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    limited(repo, monkeypatch)
    saving, inside = Saving(repo, monkeypatch), inside_of(repo)
    assert saving().pushed
    good = repo.git("rev-parse", "HEAD", cwd=inside)
    (inside / "large.bin").write_bytes(os.urandom(2 << 20))
    if committed:
        repo.git("add", ".", cwd=inside)
        repo.git("commit", "--quiet", "-m", "all", cwd=inside)
    (inside / "later.txt").write_text("later\n")
    report = saving()
    assert not report.pushed
    assert f"in inside, commits beyond {good[:12]}" in report.message or not committed
    assert "large.bin" in report.message
    assert repo.files(f"{NESTED}inside") == ["later.txt", "small.txt"]
    assert repo.in_relay("rev-parse", f"{NESTED}inside^") == good
    assert (saving(), saving.pushes) == (report, 0), "nothing of it is sent again"


def test_a_repository_inside_is_saved_when_the_relay_takes_it_again(
    repo: AgentRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving = Saving(repo, monkeypatch)
    assert saving().pushed
    inside = inside_of(repo)
    monkeypatch.setattr(refused, "_LARGE", 1 << 40)
    hook = repo.relay / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    assert not saving().pushed
    assert not saving().pushed
    hook.unlink()
    assert saving().pushed
    assert repo.in_relay("rev-parse", f"{NESTED}inside") == repo.git("rev-parse", "HEAD", cwd=inside)


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
