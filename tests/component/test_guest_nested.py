"""Repositories inside the work tree are saved and salvaged, each to a ref of its own, and none costs another."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from coding_agents_guest.events import Salvaged, Saved
from coding_agents_guest.nested import MAX_NESTED
from coding_agents_guest.nestedref import NESTED, nested_path, nested_ref
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
    (repo.work / "wt/file").write_text("file\n")
    keep(repo)  # type: ignore[operator]
    assert files(repo, tips(repo)["wt"])["file"] == "file"


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


def test_names_too_long_for_a_file_stay_apart(repo: AgentRepo) -> None:
    one, other = nested_ref(["é" * 126 + "a"]), nested_ref(["é" * 126 + "b"])
    assert one != other
    repo.git("update-ref", one, repo.config.base)
