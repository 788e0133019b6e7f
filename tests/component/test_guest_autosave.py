"""Automatic saves: the whole state in the relay, nothing of the agent's moved, and only what changed read again."""

from __future__ import annotations

import os
import select
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from coding_agents_guest.autosave import Autosaver, Memory, autosave
from coding_agents_guest.events import Autosave, Autosaved
from coding_agents_guest.gitwork import Git
from coding_agents_guest.nestedref import LATEST, NESTED
from coding_agents_guest.pushing import Pushed
from support.agentrepo import AgentRepo, make_agent_repo

NOW = Autosave()


@pytest.fixture
def repo(tmp_path: Path) -> AgentRepo:
    return make_agent_repo(tmp_path / "r", deny=("*.pem",))


class Saving:
    """Saves one after the other, as one start of a container makes them."""

    def __init__(self, repo: AgentRepo) -> None:
        self.repo, self.memory = repo, Memory()

    def __call__(self, order: Autosave = NOW) -> Autosaved:
        deadline = time.monotonic() + 60
        report, memory = autosave(self.repo.config, self.repo.place, order, self.memory, deadline)
        self.memory = Memory.decode(memory.encode())  # as it comes from a child process
        return report


def latest(repo: AgentRepo) -> str:
    return repo.in_relay("for-each-ref", "--format=%(objectname)", LATEST)


def state(repo: AgentRepo) -> tuple[bytes, int, str, str]:
    """All that must not move: the agent's index with its time, HEAD, and every ref."""
    index = repo.work / ".git/index"
    refs = repo.git("for-each-ref")
    return index.read_bytes(), index.stat().st_mtime_ns, (repo.work / ".git/HEAD").read_text(), refs


def test_the_whole_state_is_saved_and_nothing_moves(repo: AgentRepo) -> None:
    head = repo.commit("mine.txt")
    repo.write("README", "changed\n")
    repo.write("staged.txt")
    repo.git("add", "staged.txt")
    repo.write("new.txt")
    repo.write("key.pem")
    repo.write("build.log")
    before = state(repo)

    report = Saving(repo)()

    assert report == Autosaved(latest(repo), pushed=True)
    assert repo.files(LATEST) == [".gitignore", "README", "mine.txt", "new.txt", "staged.txt"]
    assert repo.in_relay("show", f"{LATEST}:README") == "changed"
    assert repo.in_relay("rev-parse", f"{LATEST}^") == head
    assert repo.tip() == repo.config.base
    assert state(repo) == before


def test_no_setting_hides_a_file_renamed_over_another_one(repo: AgentRepo) -> None:
    saving = Saving(repo)
    saving()
    repo.rename_unseen()
    saving()
    assert repo.in_relay("show", f"{LATEST}:old") == "new"


def test_what_did_not_change_is_not_pushed_again(repo: AgentRepo, tmp_path: Path) -> None:
    saving = Saving(repo)
    repo.write("new.txt")
    repo.git("init", "--quiet", "inner")
    repo.write("inner/file")
    first = saving()
    repo.relay.rename(tmp_path / "away")  # a push would fail
    assert saving() == first
    repo.write("new.txt", "more\n")
    assert not saving().pushed
    (tmp_path / "away").rename(repo.relay)
    second = saving()
    assert second.pushed
    assert second.commit != first.commit
    assert latest(repo) == second.commit


def test_each_change_is_in_the_next_save(repo: AgentRepo) -> None:
    saving = Saving(repo)
    steps = (
        (lambda: repo.write("a/b.txt", "1\n"), {"a/b.txt": "1"}),
        (lambda: repo.write("a/b.txt", "2\n"), {"a/b.txt": "2"}),  # of the same size, in the same second
        (lambda: (repo.work / "a/b.txt").rename(repo.work / "c.txt"), {"c.txt": "2"}),
        (lambda: repo.commit("c.txt", "3\n"), {"c.txt": "3"}),
        (lambda: (repo.work / "c.txt").unlink(), {}),
    )
    for change, expected in steps:
        change()
        assert saving().pushed
        names = [name for name in repo.files(LATEST) if name not in (".gitignore", "README")]
        assert {name: repo.in_relay("show", f"{LATEST}:{name}") for name in names} == expected


def test_later_saves_read_only_what_changed(repo: AgentRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    """git takes directories as they were from the untracked cache; a save that reads all of them has none."""
    saving = Saving(repo)
    repo.write("a/tracked")
    saving()
    commands: list[str] = []
    finish = Git._finish

    def counted(git: Git, arguments: tuple[str, ...], *rest: Any) -> Any:
        commands.append(arguments[0])
        return finish(git, arguments, *rest)

    monkeypatch.setattr(Git, "_finish", counted)
    saving()
    repo.write("a/tracked", "changed\n")
    saving()
    index = repo.work / ".git/coding-agents-autosave.index"
    assert b"UNTR" in index.read_bytes()  # gitformat-index(5)
    assert not {"add", "ls-files", "diff-index"} & set(commands)
    assert repo.in_relay("show", f"{LATEST}:a/tracked") == "changed"


def test_a_tracked_file_that_rules_ignore_may_be_away_for_a_save(repo: AgentRepo) -> None:
    repo.write("kept.log", "1\n")
    repo.git("add", "--force", "kept.log")
    repo.git("commit", "--quiet", "--message", "ignored, and tracked")
    saving = Saving(repo)
    saving()
    (repo.work / "kept.log").unlink()
    saving()
    assert "kept.log" not in repo.files(LATEST)
    repo.write("kept.log", "2\n")
    repo.write("other.log")
    saving()
    assert "other.log" not in repo.files(LATEST)
    assert repo.in_relay("show", f"{LATEST}:kept.log") == "2"


def test_a_file_may_become_a_directory_or_a_link_and_back(repo: AgentRepo, tmp_path: Path) -> None:
    saving = Saving(repo)
    repo.write("a/b", "1\n")
    repo.write("c", "2\n")
    saving()
    shutil.rmtree(repo.work / "a")
    (repo.work / "a").symlink_to(tmp_path)
    (tmp_path / "b").write_text("of another place\n")
    (repo.work / "c").unlink()
    repo.write("c/d", "3\n")
    saving()
    assert repo.files(LATEST) == [".gitignore", "README", "a", "c/d"]
    (repo.work / "a").unlink()
    repo.write("a/b", "4\n")
    shutil.rmtree(repo.work / "c")
    repo.write("c", "5\n")
    saving()
    assert repo.files(LATEST) == [".gitignore", "README", "a/b", "c"]
    assert repo.in_relay("show", f"{LATEST}:a/b") == "4"


def test_what_becomes_ignored_leaves_the_next_save(repo: AgentRepo) -> None:
    saving = Saving(repo)
    repo.write("out.bin")
    saving()
    assert "out.bin" in repo.files(LATEST)
    repo.write(".gitignore", "*.log\n*.bin\n")
    saving()
    assert "out.bin" not in repo.files(LATEST)


@pytest.mark.parametrize("name", ["out.bin", "*", ":(glob)**", "-x", "new\nline", "a/b/c"])
def test_a_rule_that_no_change_tells_of(repo: AgentRepo, name: str) -> None:
    """In a file that it ignores itself, as every virtual environment has one, or in none of the tree.

    What git tracks stays, whatever the rule says.
    """
    saving = Saving(repo)
    repo.write(name)
    repo.write("staged")
    repo.git("add", "staged")
    saving()
    assert len(repo.files(LATEST)) == 4
    repo.write("below/.gitignore", "*\n")
    repo.write("below/x")
    repo.write(".git/info/exclude", "/*\n")
    saving()
    assert repo.files(LATEST) == [".gitignore", "README", "staged"]


def test_the_index_of_an_interrupted_save_is_not_in_the_way(repo: AgentRepo) -> None:
    saving = Saving(repo)
    repo.write("new.txt")
    saving()
    repo.write(".git/coding-agents-autosave.index.lock")
    repo.write("newer.txt")
    assert saving().pushed
    for name, memory in (
        ("newest.txt", Memory(Pushed(commit=saving.memory.pushed.commit))),
        ("last.txt", None),
    ):
        repo.write(".git/coding-agents-autosave.index", "broken")
        saving.memory = memory or saving.memory  # as after a save that was killed, and whatever else broke it
        repo.write(name)
        assert saving().pushed
        assert name in repo.files(LATEST)


def test_commits_go_to_the_branch_only_when_asked(repo: AgentRepo) -> None:
    saving = Saving(repo)
    head = repo.commit("mine.txt")
    saving()
    assert repo.tip() == repo.config.base
    saving(Autosave(branch=True))
    assert repo.tip() == head
    repo.git("checkout", "--quiet", "-b", "elsewhere")
    repo.commit("other.txt")
    saving(Autosave(branch=True))
    assert repo.tip() == head


def test_unborn_and_unchanged(tmp_path: Path) -> None:
    repo = make_agent_repo(tmp_path / "r", unborn=True)
    saving = Saving(repo)
    assert saving() == Autosaved("", pushed=True)
    repo.write("first.txt")
    assert saving().pushed
    assert repo.files(LATEST) == ["first.txt"]


def test_the_users_own_uncommitted_work_is_no_work(repo: AgentRepo) -> None:
    repo.write("README", "the user's\n")
    repo = repo.launched_as_it_is()
    assert Saving(repo)() == Autosaved(repo.config.base, pushed=True)


def test_push_that_is_off_and_damage_are_said(repo: AgentRepo, tmp_path: Path) -> None:
    repo.write("new.txt")
    (repo.work / ".git").rename(tmp_path / "gone")
    report = Saving(repo)()
    assert not report.pushed
    assert report.message.startswith("not saved")
    off = make_agent_repo(tmp_path / "off", push=False)
    off.write("new.txt")
    assert "push is off" in Saving(off)().message
    assert latest(off) == ""


def test_a_repository_inside_is_saved_too(repo: AgentRepo) -> None:
    (repo.work / "inner").mkdir()
    repo.git("init", "--quiet", cwd=repo.work / "inner")
    repo.write("inner/file", "1\n")
    saving = Saving(repo)
    saving()
    repo.write("inner/file", "2\n")
    saving()
    assert repo.in_relay("show", f"{NESTED}inner:file") == "2"


def test_a_recorded_repository_is_followed(repo: AgentRepo) -> None:
    """Each time it is out of the index while git reads, and back in it after that."""

    def commit(place: Path, name: str) -> str:
        (place / name).write_text(f"{name}\n")
        repo.git("add", ".", cwd=place)
        repo.git("commit", "--quiet", "--message", name, cwd=place)
        return repo.git("rev-parse", "HEAD", cwd=place)

    place = repo.work / "libs/sub"
    repo.git("init", "--quiet", str(place))
    first = commit(place, "1")
    repo.git("add", "libs/sub")
    repo.git("commit", "--quiet", "--message", "record it")
    saving = Saving(repo)
    index = repo.work / ".git/coding-agents-autosave.index"

    def seen() -> str:
        """What the next save has there."""
        assert saving().pushed
        return repo.in_relay("ls-tree", "-r", "--format=%(objectmode) %(objectname) %(path)", LATEST, "libs")

    assert seen() == f"160000 {first} libs/sub"
    second = commit(place, "2")
    assert seen() == f"160000 {second} libs/sub"
    assert b"UNTR" in index.read_bytes()
    repo.write("README", "changed\n")
    assert seen() == f"160000 {second} libs/sub"
    shutil.rmtree(place / ".git")
    assert [line.split()[-1] for line in seen().splitlines()] == ["libs/sub/1", "libs/sub/2"]
    shutil.rmtree(place)
    assert seen() == ""
    repo.write("libs/sub", "a file\n")
    assert seen().endswith("libs/sub")
    (repo.work / "libs/sub").unlink()
    repo.git("init", "--quiet", str(place))
    third = commit(place, "3")
    assert seen() == f"160000 {third} libs/sub"
    assert repo.in_relay("rev-parse", f"{NESTED}libs/sub") == third


@pytest.mark.parametrize("how", ["empty", "gone", "sparse"])
def test_a_recorded_repository_that_is_not_filled(repo: AgentRepo, how: str) -> None:
    (repo.work / "sub").mkdir()
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    repo.git("commit", "--quiet", "--message", "record it")
    if how == "sparse":
        repo.git("update-index", "--skip-worktree", "sub")
    if how != "empty":
        (repo.work / "sub").rmdir()
    saving = Saving(repo)
    for number in range(2):
        repo.write("README", f"{number}\n")
        assert saving().pushed
        assert ("sub" in repo.files(LATEST)) == (how != "gone")


def test_a_file_that_is_no_part_of_the_work_tree_may_come_back(repo: AgentRepo) -> None:
    repo.commit("away", "1\n")
    repo.git("update-index", "--skip-worktree", "away")
    (repo.work / "away").unlink()
    saving = Saving(repo)
    saving()
    assert repo.in_relay("show", f"{LATEST}:away") == "1"
    repo.write("away", "2\n")
    saving()
    assert repo.in_relay("show", f"{LATEST}:away") == "2"


def test_names_that_differ_in_their_case_are_two(repo: AgentRepo) -> None:
    """Whatever the agent's configuration says: the file system of a container tells them apart."""
    repo.git("config", "core.ignoreCase", "true")
    saving = Saving(repo)
    saving()
    repo.write("readme", "another\n")
    saving()
    assert repo.files(LATEST) == [".gitignore", "README", "readme"]
    (repo.work / "README").unlink()
    saving()
    assert repo.files(LATEST) == [".gitignore", "readme"]


def test_files_that_no_filter_takes_are_saved_as_they_are(repo: AgentRepo) -> None:
    repo.git("config", "filter.x.clean", "false")
    repo.git("config", "filter.x.required", "true")
    repo.write(".gitattributes", "*.x filter=x\n")
    for number in range(5):
        repo.write(f"{number}.x", f"{number}\n")
    repo.write("mine.txt")
    saving = Saving(repo)
    for name in ("first.txt", "second.txt"):
        repo.write(name)
        report = saving()
        assert report.pushed
        assert "saved as they are" in report.message
        assert "0.x, 1.x, 2.x, 3.x, 4.x" in report.message
        assert {name, "mine.txt", "4.x"} <= set(repo.files(LATEST))
    assert repo.in_relay("show", f"{LATEST}:4.x") == "4"


def collected(saver: Autosaver) -> Autosaved:
    """The next report, as the entry point waits for it."""
    while True:
        assert select.select(saver.files, [], [], 30)[0]
        if (report := saver.collect()) is not None:
            return report


def test_a_killed_save_is_told_and_the_next_one_works(repo: AgentRepo) -> None:
    """In a child process of its own: whatever becomes of it, the entry point gets an answer."""
    repo.write("new.txt")
    saver = Autosaver(repo.config, repo.place)
    saver.take(NOW)
    os.kill(saver._child, signal.SIGKILL)
    report = collected(saver)
    assert not report.pushed
    assert "ended early" in report.message
    saver.take(NOW)
    saver.take(NOW)
    assert collected(saver) == collected(saver) == Autosaved(latest(repo), pushed=True)
    assert saver.files == ()


def test_a_save_that_the_agent_stops_holds_nobody_up(repo: AgentRepo) -> None:
    saver = Autosaver(repo.config, repo.place)
    saver.take(NOW)
    os.kill(saver._child, signal.SIGSTOP)
    assert not select.select(saver.files, [], [], 0.2)[0]
    began = time.monotonic()
    saver.stop()
    assert time.monotonic() - began < 5
    assert saver.files == ()
