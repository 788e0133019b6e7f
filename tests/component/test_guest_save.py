"""The save at the end of a session, on real repositories in every state that an agent may leave."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from coding_agents_guest import unblock
from coding_agents_guest.events import Salvaged, Saved
from coding_agents_guest.gitwork import Git, GitFailedError
from coding_agents_guest.salvage import salvage
from coding_agents_guest.save import DEFAULT_MESSAGE, save
from support.agentrepo import BRANCH, REF, AgentRepo, make_agent_repo
from support.faults import fill, small_disk

DENY = (".env", ".env.*", "*.pem", ".aws/", "!*.example")


@pytest.fixture
def repo(tmp_path: Path) -> AgentRepo:
    return make_agent_repo(tmp_path / "r", deny=DENY)


def saved(repo: AgentRepo, *, budget_s: float = 60.0) -> Saved:
    return save(repo.config, repo.place, deadline=time.monotonic() + budget_s)


def test_everything_that_is_not_ignored_is_committed_and_pushed(repo: AgentRepo) -> None:
    repo.write("README", "changed\n")
    repo.write("new/file with space\nand line.txt")
    repo.write("build.log")
    repo.write("staged.txt")
    repo.git("add", "staged.txt")

    report = saved(repo)

    assert report == Saved(repo.tip(), pushed=True, committed=True)
    assert repo.in_relay("log", "-1", "--format=%an <%ae>%n%B", report.head).strip() == (
        f"Demo Agent <demo@example.invalid>\n{DEFAULT_MESSAGE}"
    )
    assert repo.in_relay("show", f"{report.head}:README") == "changed"
    assert sorted(repo.in_relay("ls-tree", "-rz", "--name-only", report.head).split("\0")) == sorted(
        ["", ".gitignore", "README", "new/file with space\nand line.txt", "staged.txt"]
    )
    assert repo.status() == ""
    assert repo.git("rev-parse", "HEAD") == report.head


def test_no_setting_hides_a_file_renamed_over_another_one(repo: AgentRepo) -> None:
    repo.rename_unseen()
    report = saved(repo)
    assert repo.in_relay("show", f"{report.head}:old") == "new"
    assert repo.status() == ""


def test_deletions_modes_and_links_are_kept(repo: AgentRepo) -> None:
    (repo.work / "README").unlink()
    repo.write("run.sh").chmod(0o755)
    (repo.work / "link").symlink_to("/nowhere")

    report = saved(repo)

    listed = repo.in_relay("ls-tree", "-r", "--format=%(objectmode) %(path)", report.head).splitlines()
    assert listed == ["100644 .gitignore", "120000 link", "100755 run.sh"]


def test_nothing_to_do_makes_no_commit_but_pushes_the_agents_own(repo: AgentRepo) -> None:
    commit = repo.commit("work.txt")

    assert saved(repo) == Saved(commit, pushed=True, committed=False)
    assert repo.tip() == commit
    assert saved(repo) == Saved(commit, pushed=True, committed=False)


@pytest.mark.parametrize("unborn", [False, True])
def test_the_users_own_uncommitted_work_alone_is_not_committed(tmp_path: Path, unborn: bool) -> None:
    repo = make_agent_repo(tmp_path / "r", deny=DENY, unborn=unborn)
    repo.write("README", "the user's change\n")
    repo.write("new.txt")
    repo = repo.launched_as_it_is()
    before = repo.status()
    repo.write("key.pem")

    report = saved(repo)

    assert (report.head, report.committed, report.left_out) == (repo.config.base, False, ("key.pem",))
    assert repo.tip() == repo.config.base
    assert sorted(repo.status().splitlines()) == sorted([*before.splitlines(), "?? key.pem"])

    repo.write("new.txt", "the agent's change\n")
    report = saved(repo)
    assert report.committed
    assert repo.in_relay("show", f"{report.head}:README") == "the user's change"


def test_back_at_the_launch_state_is_work_once_the_agent_has_committed(repo: AgentRepo) -> None:
    repo.write("README", "the user's change\n")
    repo = repo.launched_as_it_is()
    repo.commit("README", "the agent's change\n")
    repo.write("README", "the user's change\n")

    report = saved(repo)

    assert report.committed
    assert repo.in_relay("show", f"{report.head}:README") == "the user's change"


def test_secrets_are_left_out_unless_tracked_and_named(repo: AgentRepo) -> None:
    repo.commit(".env", "TRACKED=1\n")
    repo.write(".env", "TRACKED=2\n")
    repo.write("deep/key.PEM")
    repo.write("deep/.aws/config")
    repo.write("deep/.env.example")
    repo.write("other.pem")
    repo.git("add", "other.pem")  # staged by the agent, but in no commit

    report = saved(repo)

    assert report.left_out == ("deep/.aws/config", "deep/key.PEM", "other.pem")
    assert repo.files(report.head) == [".env", ".gitignore", "README", "deep/.env.example"]
    assert repo.in_relay("show", f"{report.head}:.env") == "TRACKED=2"
    assert (repo.work / "other.pem").exists()


def test_first_commit_of_an_unborn_branch(tmp_path: Path) -> None:
    repo = make_agent_repo(tmp_path / "r", unborn=True)
    assert saved(repo) == Saved("", pushed=False, committed=False, message="there is no commit to push")
    repo.write("first.txt")

    report = saved(repo)

    assert report == Saved(repo.tip(), pushed=True, committed=True)
    assert repo.status() == ""


def test_push_can_be_off(tmp_path: Path) -> None:
    repo = make_agent_repo(tmp_path / "r", push=False, message="My words")
    before = repo.tip()
    repo.write("new.txt")

    report = saved(repo)

    assert (report.pushed, report.committed) == (False, True)
    assert repo.tip() == before
    assert repo.git("log", "-1", "--format=%s") == "My words"


def test_rewritten_branch_is_pushed(repo: AgentRepo) -> None:
    repo.commit("work.txt")
    saved(repo)
    repo.git("commit", "--quiet", "--amend", "--message", "Better")

    report = saved(repo)

    assert report == Saved(repo.git("rev-parse", "HEAD"), pushed=True, committed=False)
    assert repo.tip() == report.head


def test_detached_head_that_continues_the_branch_is_pushed(repo: AgentRepo) -> None:
    repo.git("checkout", "--quiet", "--detach")
    repo.write("new.txt")

    report = saved(repo)

    assert report == Saved(repo.tip(), pushed=True, committed=True)
    assert repo.git("rev-parse", "HEAD") == report.head
    assert repo.git("rev-parse", REF) == repo.config.base


def test_other_branch_that_does_not_continue_it_is_not_pushed(repo: AgentRepo) -> None:
    repo.git("checkout", "--quiet", "-b", "elsewhere")
    repo.git("commit", "--quiet", "--amend", "--message", "Another root")
    repo.git("checkout", "--quiet", BRANCH)
    tip = repo.commit("on-branch.txt")
    repo.git("checkout", "--quiet", "elsewhere")
    repo.write("new.txt")

    report = saved(repo)

    assert (report.pushed, report.committed) == (False, True)
    assert "HEAD is on elsewhere" in report.message
    assert repo.git("rev-parse", "elsewhere") == report.head
    assert repo.tip() == tip  # the session's own branch is saved all the same


def test_merge_under_way_is_saved_but_not_concluded(repo: AgentRepo) -> None:
    repo.git("checkout", "--quiet", "-b", "side")
    repo.commit("README", "theirs\n")
    repo.git("checkout", "--quiet", BRANCH)
    head = repo.commit("README", "ours\n")
    repo.git("merge", "side", expected=(1,))
    repo.write("new.txt")
    before = repo.status()

    report = saved(repo)

    assert "merge is under way" in report.message
    assert "beside HEAD" in report.message  # and not pushed, so that the host looks at the branch
    assert not report.pushed
    assert repo.tip() == report.head
    assert "<<<<<<<" in repo.in_relay("show", f"{report.head}:README")
    assert repo.git("rev-parse", "HEAD") == head
    assert repo.status() == before
    assert (repo.work / ".git/MERGE_HEAD").exists()


def test_rebase_under_way_keeps_the_branch_as_it_was(repo: AgentRepo) -> None:
    repo.git("branch", "upstream")
    tip = repo.commit("README", "ours\n")
    repo.git("checkout", "--quiet", "upstream")
    repo.commit("README", "theirs\n")
    repo.git("checkout", "--quiet", BRANCH)
    repo.git("rebase", "upstream", expected=(1,))

    report = saved(repo)

    assert not report.pushed
    assert "rebase is under way" in report.message
    assert repo.tip() == tip
    assert (repo.work / ".git/rebase-merge").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_volume_is_told_and_salvaged(repo: AgentRepo) -> None:
    """What the agent has filled up has no room for our commit; what stands there is read all the same."""
    aside = repo.work.rename(repo.work.with_name("aside"))
    with small_disk(repo.work, "8m"):
        shutil.copytree(aside, repo.work, dirs_exist_ok=True)
        repo.write("last.txt", "before the disk was full\n")
        hog = fill(repo.work)
        report = saved(repo)
        assert not report.pushed
        assert "No space left" in report.message
        found = salvage(repo.config, repo.place, time.monotonic() + 60)
        assert isinstance(found, Salvaged), found
        assert repo.in_relay("show", f"{found.worktree}:last.txt") == "before the disk was full"
        hog.unlink()
        assert saved(repo).pushed  # and nothing of the failed save is in the way


@pytest.mark.parametrize("where", ["branch", "detached"])
def test_what_the_relay_refuses_is_not_in_the_way_of_the_next_save(repo: AgentRepo, where: str) -> None:
    """A commit that HEAD had already moved to would be refused again with every later one."""
    if where == "detached":
        repo.git("checkout", "--quiet", "--detach")
    repo.write("sub/.gitattributes", "*.x " + "a" * 3000 + "\n")  # git's fsck takes no such line
    repo.write("staged.txt")
    repo.git("add", "staged.txt")
    before = repo.status()

    report = saved(repo)

    assert (report.head, report.pushed, report.committed) == (repo.config.base, False, False)
    assert "gitattributesLineLength" in report.message
    assert repo.git("rev-parse", "HEAD") == repo.config.base
    assert repo.status() == before

    (repo.work / "sub/.gitattributes").unlink()
    assert saved(repo).pushed
    assert "staged.txt" in repo.files(repo.tip())


@pytest.mark.parametrize("path", [".g\u200cit/x", "git~1/x", ".git /x", "a/.git::$INDEX_ALLOCATION/f"])
@pytest.mark.parametrize("keep", ["save", "salvage"])
def test_a_name_that_the_relay_refuses_is_left_out(repo: AgentRepo, path: str, keep: str) -> None:
    """One that another system's disk would take for `.git`."""
    repo.git("config", "core.protectNTFS", "false")
    repo.git("config", "core.protectHFS", "false")
    repo.write(path)
    repo.write("mine.txt")
    if keep == "save":
        report: Saved | Salvaged = saved(repo)
        commit = repo.tip()
    else:
        found = salvage(repo.config, repo.place, time.monotonic() + 60)
        assert isinstance(found, Salvaged), found
        report, commit = found, found.worktree
    assert report.left_out == (path,)
    assert repo.files(commit) == [".gitignore", "README", "mine.txt"]


def test_names_that_differ_in_their_case_are_two(repo: AgentRepo) -> None:
    repo.git("config", "core.ignoreCase", "true")
    repo.write("readme", "another\n")
    found = salvage(repo.config, repo.place, time.monotonic() + 60)
    assert isinstance(found, Salvaged), found
    assert repo.files(found.worktree) == [".gitignore", "README", "readme"]
    assert repo.files(saved(repo).head) == [".gitignore", "README", "readme"]


def test_files_that_git_cannot_convert_are_saved_as_they_are(repo: AgentRepo) -> None:
    """Some tracked, some new, one with a name of two lines; and what git can convert beside them is."""
    repo.write(".gitattributes", "*.x filter=x\n*.u working-tree-encoding=UTF-16\ngood.u text\n*.txt text\n")
    repo.commit("tracked.x", "1\n")
    repo.git("config", "filter.x.clean", "false")
    repo.git("config", "filter.x.required", "true")
    repo.write("tracked.x", "2\n")
    repo.write("new\nline.x", "3\n").chmod(0o755)
    repo.write("new.u", "no such text\n")
    (repo.work / "good.u").write_bytes("good\n".encode("utf-16"))
    repo.write("lines.txt", "1\r\n")
    (repo.work / "link.x").symlink_to("/etc/passwd")
    os.mkfifo(repo.work / "pipe.x")

    report = saved(repo)

    assert report.pushed
    assert "saved as they are, since git could not convert them" in report.message
    assert all(name in report.message for name in ("tracked.x", "new\nline.x", "new.u"))
    assert "good.u" not in report.message
    shown = {
        path: repo.in_relay("show", f"{report.head}:{path}")
        for path in ("tracked.x", "new\nline.x", "good.u")
    }
    assert shown == {"tracked.x": "2", "new\nline.x": "3", "good.u": "good"}
    assert repo.in_relay("show", f"{report.head}:link.x") == "/etc/passwd"
    assert repo.in_relay("cat-file", "-s", f"{report.head}:lines.txt") == "2"
    assert repo.in_relay("ls-tree", report.head, "--format=%(objectmode)", "new\nline.x") == "100755"


def test_more_failures_than_can_be_told_apart(repo: AgentRepo) -> None:
    repo.write(".gitattributes", "*.x filter=x\n")
    repo.git("config", "filter.x.clean", "false")
    repo.git("config", "filter.x.required", "true")
    for number in range(200):
        repo.write(f"{number}.x", f"{number}\n")

    report = saved(repo)

    assert report.pushed
    assert "and 190 more" in report.message
    assert len(repo.files(report.head)) == 203
    assert repo.in_relay("show", f"{report.head}:199.x") == "199"


def test_nothing_begins_when_the_time_is_over(repo: AgentRepo) -> None:
    git = Git(repo.work, repo.place.environment(), time.monotonic() - 1)
    with pytest.raises(GitFailedError, match="git init ran out of time"):
        git.run("init", "--quiet", "begun")
    assert not (repo.work / "begun").exists()


@pytest.mark.parametrize("inside", [False, True])
def test_pipes_do_not_hold_up_a_save(repo: AgentRepo, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    """Nobody looks for them unless git is slow: a walk costs more than most saves."""
    monkeypatch.setattr(unblock, "PATIENCE_S", 0.5)
    (repo.work / "deep").mkdir()
    os.mkfifo(repo.work / "deep/.gitignore")
    if inside:
        repo.git("init", "--quiet", "inner")
        (repo.work / "inner/.git/HEAD").unlink()
        os.mkfifo(repo.work / "inner/.git/HEAD")
    repo.write("mine.txt")
    began = time.monotonic()
    report = saved(repo)
    assert time.monotonic() - began < 20
    assert "mine.txt" in repo.files(report.head)


def test_dead_lock_does_not_stop_the_last_save(repo: AgentRepo) -> None:
    repo.write("new.txt")
    repo.write(".git/index.lock", "")

    report = saved(repo)

    assert report == Saved(repo.tip(), pushed=True, committed=True)
    assert repo.status() == ""
    assert not (repo.work / ".git/index.lock").exists()


def test_hooks_signing_and_editors_of_the_agent_do_not_matter(repo: AgentRepo) -> None:
    for hook in ("pre-commit", "pre-push", "reference-transaction", "post-index-change"):
        repo.write(f".git/hooks/{hook}", f"#!/bin/sh\ntouch {repo.root}/ran\nexit 1\n").chmod(0o755)
    repo.git("config", "commit.gpgSign", "true")
    repo.git("config", "gpg.program", "/bin/false")
    repo.git("config", "core.editor", "/bin/false")
    repo.git("config", "core.fsmonitor", f"touch {repo.root}/ran")
    repo.git("config", "user.useConfigOnly", "true")
    repo.write("new.txt")

    assert saved(repo).pushed
    assert not (repo.root / "ran").exists()


@pytest.mark.parametrize("damage", ["no-git", "no-objects", "bad-head", "bad-index", "no-relay"])
def test_damage_is_reported_never_raised(repo: AgentRepo, damage: str) -> None:
    repo.write("new.txt")
    git_dir = repo.work / ".git"
    match damage:
        case "no-git":
            git_dir.rename(repo.root / "gone")
        case "no-objects":
            (git_dir / "objects").rename(repo.root / "gone")
        case "bad-head":
            (git_dir / "HEAD").write_text("nonsense\n")
        case "bad-index":
            (git_dir / "index").write_bytes(b"DIRC" + b"\xff" * 200)
        case "no-relay":
            repo.relay.rename(repo.root / "gone")

    report = saved(repo)

    assert not report.pushed
    assert report.message.startswith("not saved: ")


def test_time_is_bounded_even_when_helpers_hang(repo: AgentRepo) -> None:
    repo.write(".gitattributes", "*.txt filter=slow\n")
    repo.git("config", "filter.slow.clean", "sleep 60")
    repo.git("config", "filter.slow.required", "true")
    repo.write("new.txt")
    began = time.monotonic()

    report = saved(repo, budget_s=0.5)

    assert time.monotonic() - began < 10
    assert "ran out of time" in report.message
    assert not list((repo.work / ".git").glob("coding-agents-*"))


def test_many_left_out_files_are_counted(repo: AgentRepo) -> None:
    for number in range(120):
        repo.write(f"keys/{number}.pem")

    report = saved(repo)

    assert report.message == "120 files were left out"
