"""Salvage of volumes that a hostile or broken session left behind, on real repositories."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_agents_guest.events import Failed, Go, Ready, Salvaged, encode_event, parse_event
from coding_agents_guest.mux import Mux, Stream
from coding_agents_guest.records import asdict
from coding_agents_guest.restamp import restamp
from coding_agents_guest.salvage import REFS, salvage
from coding_agents_guest.salvage_repo import DEFAULT_MESSAGE
from support.agentrepo import BRANCH, PATH, AgentRepo, make_agent_repo
from support.fakehost import SOURCES
from support.guest import short_directory

DENY = ("*.pem", "!*.example")


@pytest.fixture
def repo(tmp_path: Path) -> AgentRepo:
    return make_agent_repo(tmp_path / "r", deny=DENY)


def salvaged(repo: AgentRepo) -> Salvaged:
    """Salvage, and make sure that the volume (mounted read-only in real life) is as it was."""
    before = _everything(repo.work)
    report = salvage(repo.config, repo.place, time.monotonic() + 60)
    assert _everything(repo.work) == before
    assert isinstance(report, Salvaged), report
    return report


def failed(repo: AgentRepo) -> Failed:
    report = salvage(repo.config, repo.place, time.monotonic() + 60)
    assert isinstance(report, Failed), report
    return report


def _everything(top: Path) -> dict[str, bytes]:
    found = (Path(parent, name) for parent, dirs, files in os.walk(top) for name in (*dirs, *files))
    return {
        str(path): path.read_bytes() if path.is_file() and not path.is_symlink() else b"" for path in found
    }


def in_relay(repo: AgentRepo, name: str) -> str:
    return repo.in_relay("for-each-ref", "--format=%(objectname)", f"{REFS}/{name}")


def test_saved_volume_needs_nothing(repo: AgentRepo) -> None:
    assert salvaged(repo) == Salvaged(repo.config.base, "", clean=True)
    assert repo.in_relay("for-each-ref", REFS) == ""


def test_commits_and_files_that_were_never_pushed(repo: AgentRepo) -> None:
    head = repo.commit("work.txt")
    repo.write("README", "changed\n")
    repo.write("new.txt")
    repo.write("build.log")
    repo.write("key.pem")
    repo.write("staged.pem")
    repo.git("add", "staged.pem")
    repo.git("rm", "--quiet", "--cached", ".gitignore")

    report = salvaged(repo)

    assert report == Salvaged(
        head, in_relay(repo, "worktree"), clean=False, left_out=("key.pem", "staged.pem")
    )
    assert in_relay(repo, "head") == head
    assert repo.in_relay("log", "-1", "--format=%P %s %an", report.worktree) == (
        f"{head} {DEFAULT_MESSAGE} {repo.config.identity.name}"
    )
    assert repo.files(report.worktree) == [".gitignore", "README", "new.txt", "work.txt"]
    assert repo.in_relay("show", f"{report.worktree}:README") == "changed"
    assert repo.in_relay("fsck", "--no-dangling") == ""


def test_detached_head_and_other_branches_are_kept(repo: AgentRepo) -> None:
    repo.git("checkout", "--quiet", "-b", "idea")
    idea = repo.commit("idea.txt")
    repo.git("checkout", "--quiet", "--detach", BRANCH)
    head = repo.commit("detached.txt")

    report = salvaged(repo)

    assert (report.head, report.clean) == (head, True)
    assert in_relay(repo, "heads/idea") == idea
    assert report.notes == (f"branch idea is not part of HEAD: it is kept in {REFS}/heads/idea",)


def test_unborn_volume(tmp_path: Path) -> None:
    repo = make_agent_repo(tmp_path / "r", unborn=True)
    assert salvaged(repo) == Salvaged("", "", clean=True)
    repo.write("first.txt")

    report = salvaged(repo)

    assert report == Salvaged("", in_relay(repo, "worktree"), clean=False)
    assert repo.files(report.worktree) == ["first.txt"]


@pytest.mark.parametrize("unborn", [False, True])
def test_the_users_own_uncommitted_work_alone_is_not_salvaged(tmp_path: Path, unborn: bool) -> None:
    repo = make_agent_repo(tmp_path / "r", deny=DENY, unborn=unborn)
    repo.write("README", "the user's change\n")
    repo.write("new.txt")
    repo = repo.launched_as_it_is()
    assert salvaged(repo) == Salvaged(repo.config.base, "", clean=True)
    assert repo.in_relay("for-each-ref", REFS) == ""

    repo.write("new.txt", "the agent's change\n")
    report = salvaged(repo)
    assert repo.in_relay("show", f"{report.worktree}:README") == "the user's change"


def test_back_at_the_launch_state_is_work_once_the_agent_has_committed(repo: AgentRepo) -> None:
    repo.write("README", "the user's change\n")
    repo = repo.launched_as_it_is()
    repo.commit("README", "the agent's change\n")
    repo.write("README", "the user's change\n")
    assert repo.in_relay("show", f"{salvaged(repo).worktree}:README") == "the user's change"


def test_deleted_git_directory_still_gives_the_files(repo: AgentRepo) -> None:
    repo.write("README", "changed\n")
    repo.write("new.txt")
    (repo.work / ".git").rename(repo.root / "gone")

    report = salvaged(repo)

    assert report.head == ""
    assert repo.in_relay("rev-parse", f"{report.worktree}^") == repo.config.base
    assert repo.files(report.worktree) == [".gitignore", "README", "new.txt"]
    assert "the volume has no git directory" in report.notes


@pytest.mark.parametrize("damage", ["objects", "index", "HEAD", "config"])
def test_broken_git_directory_still_gives_the_files(repo: AgentRepo, damage: str) -> None:
    repo.commit("work.txt")
    repo.write("new.txt")
    git_dir = repo.work / ".git"
    match damage:
        case "objects":
            (git_dir / "objects").rename(repo.root / "gone")
            (git_dir / "objects").mkdir()
        case "index":
            (git_dir / "index").write_bytes(b"DIRC" + b"\xff" * 500)
        case _:
            (git_dir / damage).write_bytes(b"\xff[nonsense")

    report = salvaged(repo)

    assert repo.files(report.worktree) == [".gitignore", "README", "new.txt", "work.txt"]
    assert repo.in_relay("fsck", "--no-dangling") == ""


def test_nothing_of_the_volumes_configuration_runs(repo: AgentRepo) -> None:
    trap = f"touch {repo.root}/ran"
    for name, value in {
        "core.fsmonitor": trap,
        "core.sshCommand": trap,
        "core.hooksPath": "evil",
        "core.gitProxy": trap,
        "core.alternateRefsCommand": trap,
        "uploadpack.packObjectsHook": trap,
        "filter.evil.clean": trap,
        "filter.evil.process": trap,
        "filter.evil.required": "true",
        "diff.external": trap,
        "diff.evil.textconv": trap,
        "gpg.program": trap,
        "commit.gpgSign": "true",
        "credential.helper": f"!{trap}",
        "core.worktree": "/",
        "protocol.ext.allow": "always",
        "remote.evil.url": f"ext::sh -c '{trap}'",
        "remote.evil.promisor": "true",
        "extensions.partialClone": "evil",
        f"url.ext::sh -c '{trap}' %S .insteadOf": str(repo.relay),
    }.items():
        repo.git("config", name, value)
    repo.write(".gitattributes", "* filter=evil diff=evil\n")
    repo.write(".git/info/attributes", "* filter=evil\n")
    for hook in ("reference-transaction", "post-checkout", "pre-push", "post-index-change", "pre-auto-gc"):
        for folder in (".git/hooks", "evil"):
            repo.write(f"{folder}/{hook}", f"#!/bin/sh\n{trap}\n").chmod(0o755)
    head = repo.git("rev-parse", "HEAD")

    report = salvaged(repo)

    assert not (repo.root / "ran").exists()
    assert report.head == head
    assert ".gitattributes" in repo.files(report.worktree)


def test_rules_that_make_clean_mean_clean_are_taken_over(repo: AgentRepo) -> None:
    repo.git("config", "core.autocrlf", "input")
    repo.git("config", "core.fileMode", "false")
    repo.write(".git/info/exclude", "*.swp\n")
    repo.commit("text.txt", "one\n")
    repo.write("text.txt", "one\r\n").chmod(0o755)
    repo.write("x.swp")

    assert salvaged(repo).clean


def test_special_files_and_links_out_of_the_volume_do_no_harm(repo: AgentRepo) -> None:
    os.mkfifo(repo.work / "pipe")
    (repo.work / "link").symlink_to("/etc/passwd")
    (repo.work / ".git/index").unlink()
    os.mkfifo(repo.work / ".git/index")
    (repo.work / ".git/info/exclude").unlink(missing_ok=True)
    (repo.work / ".git/info/exclude").symlink_to("/dev/zero")

    report = salvaged(repo)

    assert repo.files(report.worktree) == [".gitignore", "README", "link"]
    assert repo.in_relay("show", f"{report.worktree}:link") == "/etc/passwd"


def test_unreachable_relay_is_reported_never_raised(repo: AgentRepo) -> None:
    repo.relay.rename(repo.root / "gone")
    assert "ls-remote" in failed(repo).message


def test_a_refused_push_is_no_success(repo: AgentRepo) -> None:
    repo.commit("work.txt")
    repo.write("new.txt")
    _refuse(repo, f"{REFS}/worktree")
    assert "pre-receive hook declined" in failed(repo).message


def test_refused_commits_are_kept_in_the_volume_and_their_files_come(repo: AgentRepo) -> None:
    repo.commit("work.txt")
    repo.write("new.txt")
    _refuse(repo, f"{REFS}/head")
    report = salvaged(repo)
    assert "pre-receive hook declined" in report.kept
    assert {"work.txt", "new.txt"} <= set(repo.files(report.worktree))


@pytest.mark.parametrize("packed", [False, True])
def test_stashes_are_kept(repo: AgentRepo, packed: bool) -> None:
    for number in (1, 2):
        repo.write("README", f"{number}\n")
        repo.write("new", f"untracked {number}\n")
        repo.git("stash", "push", "--quiet", "--include-untracked")
    repo.git("branch", "stash-1")
    repo.write("README", "later\n")
    repo.git("commit", "--quiet", "--all", "-m", "later")
    if packed:
        repo.git("pack-refs", "--all")
    stashes = repo.git("log", "-g", "--format=%H", "refs/stash").split()
    found = salvaged(repo)
    heads = "refs/coding-agents/salvage/heads"
    assert [repo.in_relay("rev-parse", f"{heads}/{name}") for name in ("stash-1-", "stash-2")] == stashes
    assert repo.in_relay("show", f"{heads}/stash-2^3:new") == "untracked 1"
    assert found.head == repo.git("rev-parse", "HEAD")


def test_a_planted_log_of_stashes_is_no_harm(repo: AgentRepo) -> None:
    (repo.work / ".git/logs/refs").mkdir(parents=True, exist_ok=True)
    lines = ["x", f"{'0' * 40} {'1' * 40} a <b> 1 +0000\tx", f"{'0' * 40} ../../x y", "\0", "a " * 9]
    (repo.work / ".git/logs/refs/stash").write_text("\n".join(lines * 200))
    found = salvaged(repo)
    assert found.head == repo.git("rev-parse", "HEAD")
    assert any("1 branches cannot be read: stash-1" in note for note in found.notes)


def apart(repo: AgentRepo, name: str) -> str:
    """A commit with a file of its own that nothing names yet."""
    tree = repo.git("hash-object", "-w", "--stdin")
    entry = repo.write(f".git/tree-{name}", f"100644 blob {tree}\t{name}\n")
    with entry.open() as stdin:
        done = subprocess.run(
            ("git", "mktree"), cwd=repo.work, stdin=stdin, capture_output=True, text=True, check=True
        )
    entry.unlink()
    return repo.git("commit-tree", "-p", "HEAD", "-m", name, done.stdout.strip())


@pytest.mark.parametrize("packed", [False, True])
def test_commits_that_only_another_ref_names_are_kept(repo: AgentRepo, packed: bool) -> None:
    own = {name: apart(repo, name) for name in ("light", "noted", "twice", "foo", "far", "near")}
    repo.git("tag", "light", own["light"])
    repo.git("tag", "-a", "-m", "noted", "v/1.0", own["noted"])
    repo.git("tag", "-a", "-m", "once", "once", own["twice"])
    repo.git("tag", "-a", "-m", "twice", "twice", "once")
    repo.git("tag", "--delete", "once")
    repo.git("update-ref", "refs/foo/bar", own["foo"])
    repo.git("notes", "add", "-m", "note", "HEAD")
    repo.git("tag", "old", "HEAD")  # HEAD has that
    repo.git("worktree", "add", "--quiet", "--detach", str(repo.root / "outside"), own["far"])
    repo.git("worktree", "add", "--quiet", "--detach", str(repo.work / "wt"), own["near"])
    if packed:
        repo.git("pack-refs", "--all")
    shutil.rmtree(repo.root / "outside")  # as /tmp is gone with its container

    report = salvaged(repo)

    names = {"tags/light": "light", "tags/v/1.0": "noted", "tags/twice": "twice", "refs/foo/bar": "foo",
             "worktrees/outside": "far", "worktrees/wt": "near"}  # fmt: skip
    found = in_relay(repo, "heads").split()
    assert {name: in_relay(repo, f"heads/{name}") for name in names} == {
        name: own[what] for name, what in names.items()
    }
    assert in_relay(repo, "heads/refs/notes/commits") == repo.git("rev-parse", "refs/notes/commits")
    assert len(found) == len(names) + 1
    assert repo.in_relay("show", f"{REFS}/heads/tags/v/1.0:noted") == ""
    assert report.kept == ""
    assert repo.in_relay("fsck", "--no-dangling") == ""


def test_what_was_fetched_is_no_work_of_the_agents(repo: AgentRepo) -> None:
    """Unless a branch of its own names it: who pushes to a repository in /tmp has these refs, too."""
    theirs, mine, loose = (apart(repo, name) for name in ("theirs", "mine", "loose"))
    repo.git("update-ref", "refs/remotes/origin/main", theirs)
    repo.git("update-ref", "refs/remotes/backup/mine", mine)
    repo.git("branch", "mine", mine)
    repo.git("tag", "v1", theirs)
    repo.git("tag", "v2", loose)

    salvaged(repo)

    assert {in_relay(repo, "heads/mine"), in_relay(repo, "heads/tags/v2")} == {mine, loose}
    assert len(in_relay(repo, "heads").split()) == 2


def test_what_a_rebase_has_put_away_is_kept(repo: AgentRepo) -> None:
    repo.git("branch", "upstream")
    repo.commit("README", "ours\n")
    repo.git("checkout", "--quiet", "upstream")
    repo.commit("README", "theirs\n")
    repo.git("checkout", "--quiet", BRANCH)
    repo.write(".gitignore", "mine\n")
    repo.git("rebase", "--autostash", "upstream", expected=(1,))

    salvaged(repo)

    assert repo.in_relay("show", f"{REFS}/heads/autostash:.gitignore") == "mine"
    assert repo.in_relay("show", f"{REFS}/heads/{BRANCH}:README") == "ours"


def test_an_ignored_linked_work_tree_is_work_all_the_same(repo: AgentRepo) -> None:
    """What is not committed in it stands nowhere else; a planted one leads to nothing."""
    repo.write(".git/info/exclude", ".trees/\n")
    repo.git("worktree", "add", "--quiet", "-b", "idea", ".trees/idea")
    repo.write(".trees/idea/new", "new\n")
    for number, said in enumerate([b"/etc/.git", b"\xff\0/.git", b"../../..//.git", b".git", b""]):
        planted = repo.work / f".git/worktrees/planted-{number}"
        planted.mkdir()
        (planted / "HEAD").symlink_to("/dev/zero")
        (planted / "gitdir").write_bytes(said + b"\n")
    os.mkfifo(repo.work / ".git/worktrees/planted-0/commondir")

    salvaged(repo)

    nested = repo.in_relay("for-each-ref", "--format=%(refname)", "refs/coding-agents/nested").split()
    assert nested == ["refs/coding-agents/nested/%2Etrees/idea"]
    assert repo.in_relay("show", f"{nested[0]}:new") == "new"


def test_tags_that_are_damaged_or_name_no_commit_are_named_and_hide_no_other(repo: AgentRepo) -> None:
    good = apart(repo, "good")
    repo.git("tag", "-a", "-m", "good", "good", good)
    repo.git("tag", "file", repo.git("rev-parse", "HEAD:README"))
    for name in ("bad", "worse"):
        repo.git("tag", "-a", "-m", name, name, apart(repo, name))
    oid = repo.git("rev-parse", "refs/tags/bad")
    (repo.work / f".git/objects/{oid[:2]}/{oid[2:]}").chmod(0o644)
    whole = (repo.work / f".git/objects/{oid[:2]}/{oid[2:]}").read_bytes()
    (repo.work / f".git/objects/{oid[:2]}/{oid[2:]}").write_bytes(whole[:40] + b"\xff" * 40)
    oid = repo.git("rev-parse", "worse^{tree}")
    (repo.work / f".git/objects/{oid[:2]}/{oid[2:]}").unlink()

    report = salvaged(repo)

    assert in_relay(repo, "heads/tags/good") == good
    assert "3 branches cannot be read: tags/bad, tags/file, tags/worse" in report.notes


def test_many_tags_come_by_a_few_refs(repo: AgentRepo) -> None:
    own = {apart(repo, f"t{number}") for number in range(30)}
    for number, oid in enumerate(own):
        repo.git("update-ref", f"refs/tags/t{number}", oid)
    salvaged(repo)
    kept = in_relay(repo, "heads").split()
    assert len(kept) == 21
    assert own <= set(repo.in_relay("rev-list", *kept).split())


def test_refs_that_cannot_be_read_keep_the_volume(repo: AgentRepo) -> None:
    repo.write(".git/reftable/tables.list")
    repo.write(".git/HEAD", "ref: refs/heads/.invalid\n")
    assert "reftable" in salvaged(repo).kept


def test_a_branch_that_the_relay_does_not_take_is_kept_in_the_volume(repo: AgentRepo) -> None:
    repo.git("checkout", "--quiet", "-b", "idea")
    repo.commit("idea.txt")
    repo.git("checkout", "--quiet", BRANCH)
    _refuse(repo, f"{REFS}/heads/idea")

    kept = salvaged(repo).kept
    assert kept.startswith("branch idea (")
    assert "pre-receive hook declined" in kept


def test_a_change_in_the_second_of_the_last_commit_is_found(repo: AgentRepo) -> None:
    """Of the same size, so that only the times of file and index (git's racy-git) tell."""
    repo.write("version", "1.0.7\n")
    then = time.time() - 60
    os.utime(repo.work / "version", (then, then))
    repo.git("add", "version")
    repo.git("commit", "--quiet", "--message", "version")
    repo.write("version", "9.9.7\n")
    os.utime(repo.work / "version", (then, then))
    os.utime(repo.work / ".git/index", (then, then))
    restamp(repo.work)  # or else the times of the inode would tell, too
    assert repo.in_relay("show", f"{salvaged(repo).worktree}:version") == "9.9.7"


def test_no_setting_of_the_volume_hides_a_file_renamed_over_another_one(repo: AgentRepo) -> None:
    repo.rename_unseen()
    assert repo.in_relay("show", f"{salvaged(repo).worktree}:old") == "new"


def _refuse(repo: AgentRepo, ref: str) -> None:
    hook = repo.relay / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f'#!/bin/sh\nread -r old new ref; test "$ref" != {ref}\n')
    hook.chmod(0o755)


_PROGRAM = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from coding_agents_guest.place import Place
from coding_agents_guest.salvage_process import serve
values = dict(item.split("=", 1) for item in sys.argv[2:])
paths = {name: Path(values[name]) for name in ("workspace", "home", "sockets")}
asyncio.run(serve(Place(**{**values, **paths, "bridge_uid": int(values["bridge_uid"])})))
"""


@pytest.fixture
def short_root() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def test_it_speaks_the_channel_over_its_standard_streams(short_root: Path) -> None:
    repo = make_agent_repo(short_root)
    head = repo.commit("work.txt")
    events: list[object] = []

    async def host(stream: Stream) -> None:
        assert stream.service == "events"
        lines = b""
        while data := await stream.read():
            lines += data
            while b"\n" in lines:
                line, lines = lines.split(b"\n", 1)
                events.append(parse_event(line))
                if events[-1] == Ready():
                    await stream.write(encode_event(Go(repo.config)))

    async def run() -> int:
        values = [f"{name}={value}" for name, value in asdict(repo.place).items()]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-IS", "-c", _PROGRAM, str(SOURCES), *values),
            env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdin is not None
        mux = Mux(process.stdout, process.stdin, on_open=host)
        await asyncio.wait_for(mux.run(), 60)
        return await process.wait()

    assert asyncio.run(run()) == 0
    assert events == [Ready(), Salvaged(head, "", clean=True)]
    assert in_relay(repo, "head") == head
