"""Repositories inside the work tree are saved and salvaged, each to a ref of its own, and none costs another."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coding_agents_guest import salvage_nested, unblock
from coding_agents_guest.autosave import Memory, autosave
from coding_agents_guest.events import Autosave, Autosaved, Salvaged, Saved
from coding_agents_guest.nested import MAX_NESTED
from coding_agents_guest.nestedref import (
    LATEST,
    NESTED,
    further_ref,
    is_further,
    nested_path,
    nested_ref,
    repository_of,
)
from coding_agents_guest.records import replace
from coding_agents_guest.salvage import salvage
from coding_agents_guest.save import save
from support.agentrepo import AgentRepo, make_agent_repo


@pytest.fixture
def repo(tmp_path: Path) -> AgentRepo:
    return make_agent_repo(tmp_path / "r", deny=("*.pem",))


def saved(repo: AgentRepo) -> Saved:
    return save(repo.config, repo.place, deadline=time.monotonic() + 60)


def salvaged(repo: AgentRepo) -> Salvaged:
    report = salvage(repo.config, repo.place, time.monotonic() + 60)
    assert isinstance(report, Salvaged), report
    return report


HOW = pytest.mark.parametrize("keep", [saved, salvaged])


def nested_repository(repo: AgentRepo, path: str, *, commits: bool = True) -> Path:
    place = repo.work / path
    place.mkdir(parents=True)
    repo.git("init", "--quiet", cwd=place)
    if commits:
        (place / "first").write_text("first\n")
        repo.git("add", ".", cwd=place)
        repo.git("commit", "--quiet", "--message", "First", cwd=place)
    return place


def tips(repo: AgentRepo) -> dict[str, str]:
    """The tips in the relay by the paths that their refs stand for."""
    listed = repo.in_relay("for-each-ref", "--format=%(refname) %(objectname)", NESTED).splitlines()
    return {nested_path(ref[len(NESTED) :]): oid for ref, oid in (line.split() for line in listed)}


def files(repo: AgentRepo, commit: str) -> dict[str, str]:
    names = repo.in_relay("ls-tree", "-r", "-z", "--name-only", commit).split("\0")
    return {name: repo.in_relay("show", f"{commit}:{name}") for name in names if name}


@HOW
def test_what_the_agent_made_inside_comes_back(repo: AgentRepo, keep: object) -> None:
    place = nested_repository(repo, "libs/a b")
    first = repo.git("rev-parse", "HEAD", cwd=place)
    (place / "second").write_text("second\n")
    (place / "key.pem").write_text("secret\n")
    nested_repository(repo, "libs/a b/deep/er")
    nested_repository(repo, "new", commits=False)
    (repo.work / "new/file").write_text("file\n")
    nested_repository(repo, "nothing", commits=False)
    index = (place / ".git/index").read_bytes()

    report = keep(repo)  # type: ignore[operator]

    found = tips(repo)
    assert set(found) == {"libs/a b", "libs/a b/deep/er", "new"}
    assert files(repo, found["libs/a b"]) == {"first": "first", "second": "second"}
    assert repo.in_relay("rev-parse", f"{found['libs/a b']}^") == first
    assert files(repo, found["libs/a b/deep/er"]) == {"first": "first"}
    assert files(repo, found["new"]) == {"file": "file"}
    assert report.left_out == ("libs/a b/key.pem",)
    assert repo.git("rev-parse", "HEAD", cwd=place) == first
    assert (place / ".git/index").read_bytes() == index


@HOW
def test_of_one_without_commits_the_last_file_can_be_deleted(
    repo: AgentRepo, keep: Callable[[AgentRepo], object]
) -> None:
    inner = nested_repository(repo, "inner", commits=False)
    (inner / "file").write_text("file\n")
    autosave(repo.config, repo.place, Autosave(), Memory(), time.monotonic() + 60)
    assert repo.files(f"{NESTED}inner") == ["file"]
    (inner / "file").unlink()
    keep(repo)
    assert repo.files(f"{NESTED}inner") == []
    tip = repo.in_relay("rev-parse", f"{NESTED}inner")
    keep(repo)
    assert repo.in_relay("rev-parse", f"{NESTED}inner") == tip


@HOW
@pytest.mark.parametrize(
    "how", ["orphan", "broken ref", "broken ref of the first commit", "unreadable", "another branch"]
)
def test_nothing_takes_the_place_of_what_may_be_work(
    repo: AgentRepo, keep: Callable[[AgentRepo], object], how: str
) -> None:
    inner = nested_repository(repo, "inner", commits=how not in ("unreadable", "another branch"))
    if how != "broken ref of the first commit":
        (inner / "file").write_text("file\n")
    autosave(repo.config, repo.place, Autosave(), Memory(), time.monotonic() + 60)
    tip = repo.in_relay("rev-parse", f"{NESTED}inner")
    if how == "orphan":
        repo.git("checkout", "--quiet", "--orphan", "new", cwd=inner)
        repo.git("rm", "-r", "--quiet", "--force", ".", cwd=inner)
    elif how.startswith("broken ref"):
        for ref in (inner / ".git/refs/heads").iterdir():
            ref.write_bytes(b"")
        for path in (inner / ".git/index", inner / "first"):
            path.unlink()
    elif how == "unreadable":
        (inner / "secret.pem").write_text("not to be saved\n")
    else:
        tree = repo.git("mktree", cwd=inner)
        repo.git(
            "update-ref",
            "refs/heads/other",
            repo.git("commit-tree", tree, "-m", "other", cwd=inner),
            cwd=inner,
        )
    (inner / "file").unlink(missing_ok=True)
    keep(repo)
    assert repo.in_relay("rev-parse", f"{NESTED}inner") == tip


def test_commits_of_another_object_format_are_kept_in_the_volume(repo: AgentRepo) -> None:
    """A relay has one object format."""
    inner = repo.work / "inner"
    repo.git("init", "--quiet", "--object-format=sha256", str(inner))
    (inner / "file").write_text("file\n")
    repo.git("add", ".", cwd=inner)
    repo.git("commit", "--quiet", "-m", "mine", cwd=inner)
    repo.write("outer.txt")
    assert not saved(repo).pushed
    report = salvaged(repo)
    assert "commits of inner" in report.kept
    assert repo.files(f"{NESTED}inner") == ["file"]
    assert "outer.txt" in repo.files(report.worktree or report.head)


@HOW
def test_one_that_never_had_anything_is_no_work(repo: AgentRepo, keep: Callable[[AgentRepo], object]) -> None:
    nested_repository(repo, "inner", commits=False)
    keep(repo)
    assert repo.in_relay("for-each-ref", NESTED) == ""


def test_a_salvage_after_a_save_finds_the_same(repo: AgentRepo) -> None:
    place = nested_repository(repo, "inner")
    (place / "second").write_text("second\n")
    assert saved(repo).pushed
    before = tips(repo)
    salvaged(repo)
    salvaged(repo)
    assert tips(repo) == before


@HOW
def test_only_a_changed_submodule_is_brought_back(repo: AgentRepo, keep: object) -> None:
    for name in ("changed", "same", "dirty"):
        origin = nested_repository(repo, f"../origins/{name}")
        repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(origin), name)
    repo.git("commit", "--quiet", "--message", "Add submodules")
    repo.git("push", "--quiet", str(repo.relay), "HEAD")
    repo = AgentRepo(repo.root, replace(repo.config, base=repo.git("rev-parse", "HEAD")))
    (repo.work / "changed/second").write_text("second\n")
    repo.git("add", ".", cwd=repo.work / "changed")
    repo.git("commit", "--quiet", "--message", "Second", cwd=repo.work / "changed")
    (repo.work / "dirty/second").write_text("second\n")

    keep(repo)  # type: ignore[operator]

    found = tips(repo)
    assert found["changed"] == repo.git("rev-parse", "HEAD", cwd=repo.work / "changed")
    assert files(repo, found["dirty"]) == {"first": "first", "second": "second"}
    assert "same" not in found


@HOW
def test_a_linked_work_tree_inside_comes_back(repo: AgentRepo, keep: object) -> None:
    repo.git("worktree", "add", "--quiet", "-b", "other", "wt")
    repo.write(".git/info/exclude", "*.swp\n")  # a rule for all of its work trees
    for name in ("file", "file.swp"):
        (repo.work / "wt" / name).write_text("file\n")
    keep(repo)  # type: ignore[operator]
    found = files(repo, tips(repo)["wt"])
    assert found["file"] == "file"
    assert "file.swp" not in found


def others(repo: AgentRepo, path: str) -> dict[str, str]:
    """What the relay has of the one at `path` beside its HEAD: names by commits, all of them parents."""
    message = repo.in_relay("log", "-1", "--format=%B", tips(repo)[f"{path}/.git"])
    named = dict(line.split(" ", 1)[::-1] for line in message.splitlines()[2:])
    parents = repo.in_relay("log", "-1", "--format=%P", tips(repo)[f"{path}/.git"]).split()
    assert set(parents) == set(named.values())
    return named


def with_more(repo: AgentRepo, place: Path) -> dict[str, str]:
    """Give the repository at `place` a branch, a tag, a stash and a linked work tree that its HEAD does not contain."""
    found = {}
    for name, ref in (("side", "refs/heads/side"), ("tags/v1", "refs/tags/v1"), ("refs/own/x", "refs/own/x")):
        found[name] = repo.git("commit-tree", "-p", "HEAD", "-m", name, "HEAD^{tree}", cwd=place)
        repo.git("update-ref", ref, found[name], cwd=place)
    (place / "first").write_text("stashed\n")
    repo.git("stash", "push", "--quiet", cwd=place)
    found["stash-1"] = repo.git("rev-parse", "refs/stash", cwd=place)
    gone = repo.root / f"linked-{place.name}".replace(" ", "-")
    repo.git("worktree", "add", "--quiet", "--detach", str(gone), cwd=place)
    repo.git("commit", "--quiet", "--allow-empty", "-m", "there", cwd=gone)
    found[f"worktrees/{gone.name}"] = repo.git("rev-parse", "HEAD", cwd=gone)
    return found


def test_what_repositories_inside_hold_beside_head_comes_back(repo: AgentRepo) -> None:
    places = ("inner", "inner/deep/er", "libs/a b")
    expected = {path: with_more(repo, nested_repository(repo, path)) for path in places}
    nested_repository(repo, "plain")

    report = salvaged(repo)

    assert set(tips(repo)) == {*places, "plain", *(f"{path}/.git" for path in places)}
    assert {path: others(repo, path) for path in places} == expected
    assert report.left_out == ()
    assert repo.in_relay("show", f"{others(repo, 'inner')['stash-1']}:first") == "stashed"
    before = tips(repo)
    salvaged(repo)
    assert tips(repo) == before


def test_a_save_leaves_what_is_beside_head_to_salvage(repo: AgentRepo) -> None:
    """It says so by not having pushed: the host then looks into the volume."""
    place = nested_repository(repo, "inner")
    assert saved(repo).pushed
    with_more(repo, place)
    report = saved(repo)
    assert not report.pushed
    assert "what inner has beside HEAD" in report.message


@pytest.mark.parametrize("how", ["branch", "stash", "tag", "ref", "worktree"])
def test_a_save_tells_whatever_else_the_repository_itself_holds(repo: AgentRepo, how: str) -> None:
    assert saved(repo).pushed
    oid = repo.git("commit-tree", "-p", "HEAD", "-m", "work", "HEAD^{tree}")
    if how == "worktree":
        repo.git("worktree", "add", "--quiet", "--detach", str(repo.root / "linked"), oid)
    elif how == "stash":
        repo.write("README", "stashed\n")
        repo.git("stash", "push", "--quiet")
    else:
        directory = {"branch": "heads", "tag": "tags", "ref": "own"}[how]
        repo.git("update-ref", f"refs/{directory}/work", oid)
    report = saved(repo)
    assert not report.pushed
    assert "beside HEAD" in report.message


@HOW
def test_of_a_clone_what_it_fetched_is_no_work(repo: AgentRepo, keep: object) -> None:
    origin = nested_repository(repo, "../origin")
    repo.git("checkout", "--quiet", "-b", "theirs", cwd=origin)
    repo.git("commit", "--quiet", "--allow-empty", "-m", "theirs", cwd=origin)
    repo.git("tag", "v1", cwd=origin)
    repo.git("checkout", "--quiet", "-", cwd=origin)
    repo.git("clone", "--quiet", str(origin), "inner")
    assert repo.git("rev-parse", "v1", cwd=repo.work / "inner") == repo.git("rev-parse", "theirs", cwd=origin)

    report = keep(repo)  # type: ignore[operator]

    assert set(tips(repo)) == {"inner"}
    assert getattr(report, "pushed", True)
    assert not getattr(report, "notes", ())


def test_a_submodule_whose_files_stand_as_they_went_in_may_hold_more(repo: AgentRepo) -> None:
    repo = with_submodule(repo)
    assert saved(repo).pushed
    expected = with_more(repo, repo.work / "sub")
    repo.git("checkout", "--quiet", "HEAD", cwd=repo.work / "sub")
    assert not saved(repo).pushed
    salvaged(repo)
    assert set(tips(repo)) == {"sub/.git"}
    assert others(repo, "sub") == expected


def test_the_git_directory_of_a_submodule_that_is_gone_is_looked_into(repo: AgentRepo) -> None:
    repo = with_submodule(repo)
    repo.git("commit", "--quiet", "--allow-empty", "-m", "work", cwd=repo.work / "sub")
    work = repo.git("rev-parse", "HEAD", cwd=repo.work / "sub")
    repo.git("add", "sub")
    repo.git("commit", "--quiet", "-m", "a new commit of it")
    repo.git("rm", "--quiet", "sub")
    repo.git("commit", "--quiet", "-m", "it is not needed")
    assert not (repo.work / "sub").exists()
    assert not saved(repo).pushed
    salvaged(repo)
    (path,) = tips(repo)
    assert path == ".git/modules/sub"
    assert work in repo.in_relay("log", "-1", "--format=%P", tips(repo)[path]).split()


def with_submodule(repo: AgentRepo) -> AgentRepo:
    """The same session, launched with a submodule at `sub`."""
    origin = nested_repository(repo, "../origins/sub")
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(origin), "sub")
    repo.git("commit", "--quiet", "--message", "Add a submodule")
    repo.git("push", "--quiet", str(repo.relay), "HEAD")
    return AgentRepo(repo.root, replace(repo.config, base=repo.git("rev-parse", "HEAD")))


def test_a_linked_work_tree_inside_brings_its_repository_no_second_time(repo: AgentRepo) -> None:
    repo.git("branch", "idea", repo.git("commit-tree", "-p", "HEAD", "-m", "idea", "HEAD^{tree}"))
    repo.git("worktree", "add", "--quiet", "-b", "other", "wt")
    salvaged(repo)
    assert set(tips(repo)) == {"wt"}


@pytest.mark.parametrize("how", ["refused", "broken", "too many"])
def test_what_does_not_come_is_named(repo: AgentRepo, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = nested_repository(repo, "inner")
    with_more(repo, place)
    if how == "refused":
        hook = repo.relay / "hooks/pre-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text('#!/bin/sh\nread -r old new ref; test "${ref%2Egit}" = "$ref"\n')
        hook.chmod(0o755)
    elif how == "broken":
        (place / ".git/refs/heads/broken").write_text("1" * 40 + "\n")
    else:
        nested_repository(repo, "another")
        with_more(repo, repo.work / "another")
        monkeypatch.setattr(salvage_nested, "MAX_FURTHER", 1)

    report = salvaged(repo)

    assert "inner" in tips(repo)
    assert report.left_out == ("inner/.git",)
    assert any("inner" in note for note in report.notes)
    assert ("inner/.git" in tips(repo)) == (how == "broken")


@HOW
def test_a_broken_one_costs_no_other(repo: AgentRepo, keep: object) -> None:
    """Objects that are gone: its commit cannot come back; everything else does, and the host is told."""
    place = nested_repository(repo, "broken")
    tree = repo.git("rev-parse", "HEAD^{tree}", cwd=place)
    (place / ".git/objects" / tree[:2] / tree[2:]).unlink()
    nested_repository(repo, "whole")
    repo.write("mine.txt")

    report = keep(repo)  # type: ignore[operator]

    assert "whole" in tips(repo)
    if isinstance(report, Saved):
        assert not report.pushed  # the host then looks into the volume
        assert "broken" in report.message
        assert "mine.txt" in repo.files(report.head)
    else:
        assert "mine.txt" in repo.files(report.worktree)
        assert files(repo, tips(repo)["broken"]) == {"first": "first"}
        assert any("broken" in note for note in report.notes)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def without_its_git_directory(place: Path) -> None:
    """As after `rm -rf .git/modules/sub`."""
    shutil.rmtree(place / ".git")
    (place / ".git").write_text("gitdir: ../.git/modules/sub\n")


# What is odd, and whether its commit can be read all the same.
ODD: dict[str, tuple[Callable[[Path], object], bool]] = {
    "no-git-directory": (without_its_git_directory, False),
    "index-of-garbage": (lambda place: (place / ".git/index").write_bytes(b"garbage" * 100), True),
    "config-of-garbage": (lambda place: (place / ".git/config").write_text("[nonsense"), True),
    "head-empty": (lambda place: (place / ".git/HEAD").write_bytes(b""), False),
    "head-of-zeros": (lambda place: (place / ".git/HEAD").write_text("0" * 40), False),
    "head-of-another-kind": (lambda place: (place / ".git/HEAD").write_text("1" * 64), False),
    "commondir-empty": (lambda place: (place / ".git/commondir").write_bytes(b""), True),
    "head-pipe": (lambda place: fifo(place / ".git/HEAD"), False),
    "config-pipe": (lambda place: fifo(place / ".git/config"), True),
    "index-pipe": (lambda place: fifo(place / ".git/index"), True),
}


def autosaved(repo: AgentRepo) -> Autosaved:
    return autosave(repo.config, repo.place, Autosave(), Memory(), time.monotonic() + 60)[0]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("keep", [saved, autosaved, salvaged])
def test_an_odd_one_that_is_recorded_costs_nothing_else(
    repo: AgentRepo, monkeypatch: pytest.MonkeyPatch, keep: object, odd: str
) -> None:
    monkeypatch.setattr(unblock, "PATIENCE_S", 0.5)
    place = nested_repository(repo, "sub")
    repo.git("add", "sub")
    repo.git("commit", "--quiet", "--message", "Record it")
    was = repo.git("rev-parse", "HEAD:sub")
    (place / "first").write_text("other\n")
    repo.git("commit", "--quiet", "--all", "--message", "Second", cwd=place)
    now = repo.git("rev-parse", "HEAD", cwd=place)
    (place / "second").write_text("second\n")
    nested_repository(repo, "whole")
    repo.write("mine.txt")
    plant, readable = ODD[odd]
    plant(place)

    report = keep(repo)  # type: ignore[operator]

    assert "whole" in tips(repo)
    commit = LATEST if keep is autosaved else getattr(report, "worktree", None) or report.head
    assert {"mine.txt", "sub"} <= set(repo.files(commit))
    assert repo.in_relay("rev-parse", f"{commit}:sub") == (now if readable else was)
    if isinstance(report, Salvaged):
        found = files(repo, tips(repo)["sub"])
        assert (found["first"], found["second"]) == ("other", "second")
        assert readable or any("sub" in note for note in report.notes)
    elif odd not in ("config-pipe", "index-pipe"):  # empty, they are as good as none
        assert not report.pushed  # the host then looks into the volume
        assert "sub" in report.message


def badly_committed(repo: AgentRepo, place: Path) -> str:
    """A commit that does not say when it was made."""
    tree, head = repo.git("write-tree", cwd=place), repo.git("rev-parse", "HEAD", cwd=place)
    raw = f"tree {tree}\nparent {head}\nauthor A <a@b> 1767323045 +0000\ncommitter A <a@b>\n\nmessage\n"
    command = ("git", "hash-object", "-t", "commit", "-w", "--stdin", "--literally")
    done = subprocess.run(command, input=raw.encode(), cwd=place, capture_output=True, check=True)
    oid = done.stdout.decode().strip()
    repo.git("update-ref", "HEAD", oid, cwd=place)
    return oid


@pytest.mark.parametrize("keep", [saved, autosaved, salvaged])
def test_a_commit_without_a_date_costs_no_other(repo: AgentRepo, keep: object) -> None:
    badly_committed(repo, nested_repository(repo, "sub"))
    (repo.work / "sub/second").write_text("second\n")
    nested_repository(repo, "whole")
    repo.write("mine.txt")

    report = keep(repo)  # type: ignore[operator]

    assert "whole" in tips(repo)
    if isinstance(report, Salvaged):
        assert "mine.txt" in repo.files(report.worktree)
        assert any("sub" in note for note in report.notes)
    else:
        assert "mine.txt" in repo.files(LATEST if isinstance(report, Autosaved) else report.head)
        assert not report.pushed
        assert "sub" in report.message


@pytest.mark.parametrize("keep", [saved, autosaved, salvaged])
def test_the_users_last_commit_may_have_no_date(repo: AgentRepo, keep: object) -> None:
    """It came to the relay by no push."""
    base = badly_committed(repo, repo.work)
    repo.in_relay("fetch", "--quiet", str(repo.work), f"+{base}:refs/heads/{repo.config.branch}")
    repo = AgentRepo(repo.root, replace(repo.config, base=base))
    nested_repository(repo, "whole")
    repo.write("mine.txt")

    report = keep(repo)  # type: ignore[operator]

    assert "whole" in tips(repo)
    commit = LATEST if keep is autosaved else getattr(report, "worktree", None) or report.head
    assert "mine.txt" in repo.files(commit)


def test_no_failure_in_one_is_raised(repo: AgentRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever saves is the container's first process: with it would end everything."""
    nested_repository(repo, "sub")
    repo.write("mine.txt")

    def fail(*_: object) -> str:
        raise ValueError("whatever nobody thought of")

    monkeypatch.setattr("coding_agents_guest.nested.newest_change", fail)
    assert "the repository sub was not saved: whatever" in saved(repo).message
    monkeypatch.setattr("coding_agents_guest.save.save_nested", fail)
    assert saved(repo).message == "not saved: whatever nobody thought of"


def test_a_git_directory_that_is_none_does_not_lead_to_the_one_above(repo: AgentRepo) -> None:
    place = nested_repository(repo, "inner")
    (place / ".git/HEAD").unlink()
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{repo.config.base},inner")
    report = saved(repo)
    assert not report.pushed
    assert tips(repo) == {}


@HOW
def test_no_more_than_a_bounded_number(repo: AgentRepo, keep: object) -> None:
    place = nested_repository(repo, "0")
    for number in range(1, MAX_NESTED + 3):
        repo.git("clone", "--quiet", str(place), str(repo.work / str(number)))
    report = keep(repo)  # type: ignore[operator]
    assert len(tips(repo)) == MAX_NESTED
    said = report.message if isinstance(report, Saved) else "; ".join(report.notes)
    assert "too many repositories" in said
    assert not getattr(report, "pushed", False)


@pytest.mark.parametrize(
    "places",
    [["a"], ["a/b"], ["ä/ü b"], ["x.lock/..y/-z"], ["@{/a~^:?*[\\"], ["a", "b/c"], ["\udcff/.k."],
     [" "], ["a.b/c.lock.d"]],
)  # fmt: skip
def test_names_of_refs(repo: AgentRepo, places: list[str]) -> None:
    ref = nested_ref(places)
    repo.git("update-ref", ref, repo.config.base)  # git takes it
    assert nested_path(ref[len(NESTED) :]) == "/".join(places)
    further = further_ref(places)
    repo.git("update-ref", further, repo.config.base)
    assert nested_path(further[len(NESTED) :]) == "/".join([*places, ".git"])
    assert repository_of(further[len(NESTED) :]) == ref[len(NESTED) :]
    assert (is_further(further[len(NESTED) :]), is_further(ref[len(NESTED) :])) == (True, False)


def test_names_too_long_for_a_file_stay_apart(repo: AgentRepo) -> None:
    one, other = nested_ref(["é" * 126 + "a"]), nested_ref(["é" * 126 + "b"])
    assert one != other
    repo.git("update-ref", one, repo.config.base)
    assert further_ref(["é" * 126 + "a"]) == f"{one}%2F%2Egit"
    repo.git("update-ref", f"{one}%2F%2Egit", repo.config.base)
