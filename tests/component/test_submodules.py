"""Submodules go in as they stand on the host, and only what belongs to the repository does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coding_agents.errors import GitError
from coding_agents.gitsync.nested import bring_nested, list_nested, take_nested
from coding_agents.workspace import submodules
from coding_agents_guest.events import Salvaged
from coding_agents_guest.nestedref import GIVEN_HEADS, NESTED, nested_ref
from coding_agents_guest.records import replace as replaced
from coding_agents_guest.salvage import REFS, salvage
from support import kinds
from support.kinds import add_submodule, origin_of, plain
from support.relay_server import serving
from support.repos import BRANCH, SESSION, sh
from support.roundtrip import Session, begin
from support.workspaces import Filled, Host, guest_git, make_host

KINDS = [kind for kind in kinds.KINDS if kind.name.startswith("submodule")]
INNER = "libs/inner"
LOCAL = ("-c", "protocol.file.allow=always")


def submodule_status(text: str) -> list[str]:
    """Without the name in brackets that git finds for the commit: it comes from refs, which do not travel."""
    return [re.sub(r" \([^)]*\)$", "", line) for line in text.split("\n")]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return kinds.submodule(tmp_path)


def inner_of(host: Host, path: str = INNER) -> Host:
    return replace(host, work=host.work / path)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_inside_all_is_as_on_the_host(tmp_path: Path, kind: kinds.Kind) -> None:
    host = kind.build(tmp_path)
    filled = host.fill()
    assert filled.plan.submodules
    assert not filled.plan.nested
    for args in (("submodule", "status", "--recursive"), ("submodule", "status", "--cached")):
        assert submodule_status(host.inside(filled, *args)) == submodule_status(host.git(*args))
    for one in filled.plan.submodules:
        outside, inside = host.work / one.path, filled.inside / one.path
        theirs = inner_of(host, one.path)
        for args in (("status", "--porcelain"), ("rev-parse", "HEAD"), ("diff", "--cached", "--raw"),
                     ("rev-list", "--count", "HEAD")):  # fmt: skip
            assert guest_git(inside, *args) == theirs.git(*args)
        assert guest_git(inside, "fsck", "--full", "--strict", "--no-dangling") == ""
        listed = theirs.git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        for path in filter(None, listed):
            if (outside / path).is_file():
                assert (inside / path).read_bytes() == (outside / path).read_bytes()
                assert (inside / path).stat().st_mode == (outside / path).stat().st_mode
        assert (
            inside / ".git"
        ).read_text() == f"gitdir: {os.path.relpath(filled.inside / one.git_dir, inside)}\n"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_update_inside_asks_nobody(tmp_path: Path, kind: kinds.Kind) -> None:
    """No protocol is allowed, so that every try to reach a remote is an error."""
    host = kind.build(tmp_path)
    filled = host.fill()
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "nobody"), "GIT_ALLOW_PROTOCOL": ""}
    done = subprocess.run(
        ["git", "submodule", "update", "--init", "--recursive", "--force"],
        cwd=filled.inside, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for one in filled.plan.submodules:
        assert (filled.inside / one.path / "only").is_file()


def test_the_copy_set_of_a_submodule_has_the_rules_of_the_repository(host: Host) -> None:
    inner = inner_of(host)
    inner.commit(**{".gitignore": "build/\n*.log\n"})
    for name in ("build/out", "a.log", ".env", "key.pem", "seen", "deep/er/seen"):
        inner.write(name, "x\n")
    (inner.work / "link").symlink_to("../../../outside")
    sh(inner.work, "init", "--quiet", "other", env=host.env)
    filled = host.fill()
    there = {str(path.relative_to(filled.inside / INNER)) for path in (filled.inside / INNER).rglob("*")}
    assert {"seen", "deep/er/seen", "link", "other"} <= there
    assert there.isdisjoint({"build/out", "a.log", ".env", "key.pem", "other/.git"})
    assert filled.plan.left_out == (f"{INNER}/.env", f"{INNER}/key.pem")
    assert filled.plan.flagged_symlinks == (f"{INNER}/link",)
    assert filled.plan.nested == (f"{INNER}/other",)


def test_the_git_directory_is_made_and_not_copied(host: Host) -> None:
    inner = inner_of(host)
    inner.write("secret", "of another branch\n")
    inner.git("checkout", "--quiet", "-b", "private")
    inner.git("add", "secret")
    inner.git("commit", "--quiet", "-m", "private")
    blob, private = inner.git("rev-parse", "HEAD:secret"), inner.git("rev-parse", "HEAD")
    inner.git("checkout", "--quiet", "--detach", "HEAD~1")
    inner.write("kept", "stashed\n")
    inner.git("stash")
    inner.git("remote", "set-url", "origin", "https://me:hunter2@host.example/inner.git")
    inner.git("config", "core.fsmonitor", "/bin/evil")
    inner.git("config", "credential.helper", "store")
    host.git("config", f"submodule.{INNER}.url", "https://me:hunter2@host.example/inner.git")
    hook = Path(inner.git("rev-parse", "--absolute-git-dir")) / "hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\n")
    filled = host.fill()
    git_dir = filled.inside / ".git/modules" / INNER
    names = {str(path.relative_to(git_dir)) for path in git_dir.rglob("*") if path.is_file()}
    names = {name for name in names if not name.startswith("objects/pack/pack-")}
    assert names == {"HEAD", "config", "index", "info/exclude"}
    assert (git_dir / "HEAD").read_text() == inner.git("rev-parse", "HEAD") + "\n"
    assert b"hunter2" not in filled.tar
    assert b"evil" not in filled.tar
    work = filled.inside / INNER
    config = (git_dir / "config").read_text()
    assert "remote" not in config
    assert "credential" not in config
    objects = guest_git(work, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split()
    assert {blob, private}.isdisjoint(objects)
    assert set(objects) == set(guest_git(work, "rev-list", "--objects", "--no-object-names", "HEAD").split())


def test_a_shallow_submodule_alone_is_shallow(tmp_path: Path) -> None:
    host = kinds.submodule_shallow(tmp_path)
    filled = host.fill()
    assert host.inside(filled, "rev-parse", "--is-shallow-repository") == "false"
    assert guest_git(filled.inside / INNER, "rev-parse", "--is-shallow-repository") == "true"
    assert host.inside(filled, "rev-list", "--count", "HEAD") == host.git("rev-list", "--count", "HEAD")


def test_a_clean_copy_takes_the_commit_that_is_recorded(tmp_path: Path) -> None:
    host = kinds.submodule_changed(tmp_path)
    recorded = host.git("rev-parse", f"HEAD:{INNER}")
    filled = host.fill(clean=True)
    assert host.inside(filled, "status", "--porcelain", "--untracked-files=all") == ""
    assert guest_git(filled.inside / INNER, "rev-parse", "HEAD") == recorded
    assert (filled.inside / INNER / "kept").read_text() == "kept\n"
    assert not (filled.inside / INNER / "notes").exists()


def test_a_clean_copy_takes_no_commit_that_the_checkout_does_not_contain(host: Host) -> None:
    """The id in a commit, which anybody can write, must not reach another branch of the submodule."""
    inner = inner_of(host)
    inner.git("checkout", "--quiet", "--detach", "HEAD")
    inner.commit(private="x\n")
    private = inner.git("rev-parse", "HEAD")
    inner.git("checkout", "--quiet", "HEAD~1")
    host.git("update-index", "--cacheinfo", f"160000,{private},{INNER}")
    host.git("commit", "--quiet", "-m", "named")
    filled = host.fill(clean=True)
    assert filled.plan.submodules == ()
    assert "does not contain" in filled.plan.reasons[INNER]
    assert list((filled.inside / INNER).iterdir()) == []


# --- the way back --------------------------------------------------------------------------------------------


def keep_by_save(session: Session) -> None:
    saved = session.save()
    assert saved.pushed, saved


def keep_by_salvage(session: Session) -> None:
    place = replaced(session.place, relay=str(session.relay.git_dir))
    report = salvage(session.config, place, time.monotonic() + 60)
    assert isinstance(report, Salvaged), report
    assert not report.notes, report


HOW = pytest.mark.parametrize("keep", [keep_by_save, keep_by_salvage])


def nested_tips(session: Session) -> dict[str, str]:
    refs = session.relay.store.refs(NESTED)
    return {ref.removeprefix(NESTED): oid for ref, oid in refs.items()}


@HOW
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_stands_as_it_went_in_does_not_come_back(
    tmp_path: Path, kind: kinds.Kind, keep: Callable[[Session], None]
) -> None:
    """Neither the submodule, with the user's own work in it, nor a commit of the repository around it."""
    session = begin(kind.build(tmp_path))
    head = session.git("rev-parse", "HEAD")
    keep(session)
    assert nested_tips(session) == {}
    assert session.relay.store.resolve(session.relay.branch.ref) == head
    assert "refs/coding-agents/salvage/worktree" not in session.relay.store.refs()


@pytest.mark.parametrize("had_been_there", [True, False])
def test_files_where_a_submodule_has_no_git_directory_are_salvaged(host: Host, had_been_there: bool) -> None:
    """git sees nothing there, neither the repository around it nor one of its own; they are taken as files of it."""
    if not had_been_there:
        host.git("submodule", "--quiet", "deinit", INNER)
    session = begin(host)
    (session.work / INNER / ".git").unlink(missing_ok=True)
    (session.work / INNER / "new").write_text("by the agent\n")
    keep_by_salvage(session)
    store = session.relay.store
    assert store.git("show", f"{REFS}/worktree:{INNER}/new").text() == "by the agent\n"


@HOW
def test_changes_come_back_on_top_of_what_went_in(tmp_path: Path, keep: Callable[[Session], None]) -> None:
    host = kinds.submodule_nested(tmp_path)
    session = begin(host)
    deep = session.work / "libs/out/mid/deep/est"
    middle = session.work / "libs/out/mid"
    (deep / "new").write_text("by the agent\n")
    (middle / "committed").write_text("by the agent\n")
    session.git("add", "committed", cwd=middle)
    session.git("commit", "--quiet", "-m", "work", cwd=middle)
    keep(session)
    tips = nested_tips(session)
    names = {
        name: nested_ref(places).removeprefix(NESTED)
        for name, places in (("mid", ("libs/out", "mid")), ("deep", ("libs/out", "mid", "deep/est")))
    }
    assert tips.keys() >= set(names.values())
    assert tips[names["mid"]] == session.git("rev-parse", "HEAD", cwd=middle)
    store = session.relay.store
    assert store.git("show", f"{tips[names['deep']]}:new").text() == "by the agent\n"
    assert store.git("show", f"{tips[names['deep']]}:changed").text() == "by the user\n"
    assert store.resolve(f"{tips[names['deep']]}^") == session.git("rev-parse", "HEAD", cwd=deep)
    bring_nested(host.facts(), session.relay, session=SESSION, env=host.env)
    found = {one.path: one for one in list_nested(host.facts(), session=SESSION, env=host.env)}
    assert found.keys() >= {"libs/out/mid", "libs/out/mid/deep/est"}
    for path, one in found.items():
        assert inner_of(host, path).git("rev-parse", one.ref) == one.tip
        assert inner_of(host, path).git("fsck", "--full", "--no-dangling") == ""
    assert host.git("for-each-ref", NESTED) == ""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_work_comes_home_into_the_submodule_and_is_taken_over(tmp_path: Path, kind: kinds.Kind) -> None:
    host = kind.build(tmp_path)
    session = begin(host)
    path = session.filled.plan.submodules[-1].path
    (session.work / path / "new").write_text("by the agent\n")
    session.git("add", "new", cwd=session.work / path)
    session.git("commit", "--quiet", "-m", "work", cwd=session.work / path)
    keep_by_save(session)
    facts, inner = host.facts(), inner_of(host, path)
    before = inner.git("count-objects", "-v")
    bring_nested(facts, session.relay, session=SESSION, env=host.env)
    after = inner.git("count-objects", "-v")
    assert before != after
    found = {one.path: one for one in list_nested(facts, session=SESSION, env=host.env)}
    status, tip = inner.status(), session.git("rev-parse", "HEAD", cwd=session.work / path)
    assert take_nested(facts, found[path], BRANCH, into=inner.work, env=host.env) is False
    # The user's own changes are a commit on top, for a branch holds all that stood there.
    assert tip in inner.git("rev-list", "--max-count=2", BRANCH.short).split()
    assert inner.git("show", f"{BRANCH.short}:new") == "by the agent"
    assert inner.status() == status
    assert inner.git("fsck", "--full", "--no-dangling") == ""
    assert host.git("fsck", "--full", "--no-dangling") == ""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_another_branch_of_a_submodule_comes_home_into_it(tmp_path: Path, kind: kinds.Kind) -> None:
    """Its HEAD stands as it went in; where its history is cut off, the repository around it could not take it."""
    host = kind.build(tmp_path)
    session = begin(host)
    path = session.filled.plan.submodules[-1].path
    inside = session.work / path
    side = session.git("commit-tree", "-p", "HEAD", "-m", "side", "HEAD^{tree}", cwd=inside)
    session.git("branch", "side", side, cwd=inside)
    assert not session.save().pushed
    place = replaced(session.place, relay=str(session.relay.git_dir))
    report = salvage(session.config, place, time.monotonic() + 60)
    assert isinstance(report, Salvaged), report
    assert report.left_out == ()
    bring_nested(host.facts(), session.relay, session=SESSION, env=host.env)
    (found,) = list_nested(host.facts(), session=SESSION, env=host.env)
    assert found.path == f"{path}/.git"
    assert inner_of(host, path).git("rev-parse", f"{found.ref}^") == side
    assert host.git("for-each-ref", NESTED) == ""
    assert inner_of(host, path).git("fsck", "--full", "--no-dangling") == ""


def test_a_shallow_one_that_is_gone_is_kept_and_breaks_nothing(tmp_path: Path) -> None:
    """Its history ends where only the submodule knows: in the repository around it that would be damage."""
    host = kinds.submodule_shallow(tmp_path)
    session = begin(host)
    (session.work / INNER / "new").write_text("by the agent\n")
    keep_by_save(session)
    moved = host.root / "moved"
    (host.work / INNER).rename(moved)
    with pytest.raises(GitError, match="shallow submodule 'libs/inner' is not where it was"):
        bring_nested(host.facts(), session.relay, session=SESSION, env=host.env)
    assert host.git("for-each-ref", NESTED) == ""
    moved.rename(host.work / INNER)
    assert bring_nested(host.facts(), session.relay, session=SESSION, env=host.env)
    assert inner_of(host).git("for-each-ref", NESTED)


def test_one_that_is_gone_comes_into_the_repository_around_it(host: Host) -> None:
    session = begin(host)
    (session.work / INNER / "new").write_text("by the agent\n")
    keep_by_save(session)
    (host.work / INNER).rename(host.root / "moved")
    bring_nested(host.facts(), session.relay, session=SESSION, env=host.env)
    (ref,) = host.git("for-each-ref", "--format=%(refname)", NESTED).splitlines()
    assert host.git("show", f"{ref}:new") == "by the agent"
    assert host.git("fsck", "--full", "--no-dangling") == ""


@pytest.mark.parametrize("kind", [kinds.submodule, kinds.submodule_shallow], ids=["whole", "shallow"])
def test_only_what_is_new_travels_back(tmp_path: Path, kind: Callable[[Path], Host]) -> None:
    """The relay tells the guest what it has of the submodule: of that one commit, one tree and one file are sent."""
    session = begin(kind(tmp_path))
    work = session.work / INNER
    (work / "new").write_text("by the agent\n")
    session.git("add", "new", cwd=work)
    session.git("commit", "--quiet", "-m", "work", cwd=work)
    history = set(session.git("rev-list", "HEAD~1", cwd=work).split())
    keep_by_save(session)
    around = session.git("rev-list", "--objects", "HEAD", f"^{session.config.base}").splitlines()
    new = 3 + len(around)
    arrived = in_packs(session)
    assert new <= len(arrived) <= 2 * new  # a thin pack brings the base of a delta along
    assert history.isdisjoint(arrived)
    assert nested_tips(session) == {INNER: session.git("rev-parse", "HEAD", cwd=work)}


def in_packs(session: Session) -> set[str]:
    """Objects that the relay holds itself, not by what it borrows."""
    found: set[str] = set()
    for index in (session.relay.git_dir / "objects/pack").glob("*.idx"):
        with index.open("rb") as file:
            listed = subprocess.run(
                ["git", "show-index"], stdin=file, capture_output=True, text=True, check=True
            )
        found |= {line.split()[1] for line in listed.stdout.splitlines()}
    return found


def test_nobody_inside_moves_what_the_host_says_went_in(host: Host) -> None:
    session = begin(host)
    with serving(session.relay, session.home / "relay") as server:
        (session.home / ".gitconfig").write_text(f"[core]\n\tgitProxy = {server.proxy}\n")
        for ref in (f"{GIVEN_HEADS}{INNER}", f"{GIVEN_HEADS}other"):
            with pytest.raises(AssertionError, match="rejected"):
                session.git("push", session.place.relay, f"+HEAD:{ref}")
    assert session.relay.store.refs(GIVEN_HEADS) == {
        f"{GIVEN_HEADS}{INNER}": inner_of(host).git("rev-parse", "HEAD")
    }


# --- what does not belong to the repository --------------------------------------------------------------------


def left_out(filled: Filled, path: str = INNER) -> str:
    """The reason; nothing of it is inside."""
    assert [one.path for one in filled.plan.submodules if one.path == path] == []
    assert path in filled.plan.nested
    place = filled.inside / path
    assert place.is_dir()
    assert list(place.iterdir()) == []
    return filled.plan.reasons[path]


def outsider(host: Host) -> Host:
    """A repository of the user's that is no part of the launched one."""
    other = make_host(host.root / "outsider")
    other.commit(private="private\n")
    return other


def test_a_git_file_that_names_a_repository_elsewhere(host: Host) -> None:
    other = outsider(host)
    for target in (other.work / ".git", Path("../../../outsider/work/.git"), host.work / ".git", Path("..")):
        (inner_of(host).work / ".git").write_text(f"gitdir: {target}\n")
        assert "not this repository's" in left_out(host.fill())


def test_a_git_file_that_leads_out_through_a_link(host: Host) -> None:
    other = outsider(host)
    (host.work / ".git/modules/way").symlink_to(other.work)
    (inner_of(host).work / ".git").write_text("gitdir: ../../.git/modules/way/.git\n")
    assert "not this repository's" in left_out(host.fill())


def test_a_git_entry_that_is_a_link(host: Host) -> None:
    other = outsider(host)
    git = inner_of(host).work / ".git"
    git.unlink()
    git.symlink_to(other.work / ".git")
    assert "neither a file nor a directory" in left_out(host.fill())


@pytest.mark.parametrize("part", ["objects", "refs", "config", "HEAD"])
def test_a_git_directory_with_a_link_in_it(host: Host, part: str) -> None:
    other = outsider(host)
    git_dir = host.work / ".git/modules" / INNER
    (git_dir / part).rename(git_dir / f"old-{part}")
    (git_dir / part).symlink_to(other.work / ".git" / part)
    assert "symbolic link" in left_out(host.fill())


def test_a_git_directory_that_borrows_from_another(host: Host) -> None:
    other = outsider(host)
    git_dir = host.work / ".git/modules" / INNER
    (git_dir / "commondir").write_text(f"{other.work}/.git\n")
    (git_dir / "HEAD").write_text(other.git("rev-parse", "HEAD") + "\n")
    assert "borrows" in left_out(host.fill())


def test_two_that_share_a_git_directory(host: Host) -> None:
    host.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},libs/twin")
    (host.work / "libs/twin").mkdir()
    (host.work / "libs/twin/.git").write_text(f"gitdir: ../../.git/modules/{INNER}\n")
    filled = host.fill()
    assert "shares" in left_out(filled, "libs/twin")
    assert [one.path for one in filled.plan.submodules] == [INNER]


@pytest.mark.parametrize(
    "name", ["../../x", "..", "a/../../x", "/tmp/x", "a//b", "-x", "a/.git/b", "a\\..\\b", "x\ty"]
)
def test_a_name_that_leads_elsewhere(host: Host, name: str) -> None:
    escaped = name.replace("\\", "\\\\")
    (host.work / ".gitmodules").write_text(f'[submodule "{escaped}"]\n\tpath = {INNER}\n\turl = x\n')
    filled = host.fill()
    assert "name" in left_out(filled)
    assert not any(".." in line.split("/") for line in tar_names(filled))


def tar_names(filled: Filled) -> list[str]:
    listed = subprocess.run(["tar", "-t"], input=filled.tar, capture_output=True, check=True)
    return os.fsdecode(listed.stdout).splitlines()


def test_names_that_collide(host: Host) -> None:
    other = origin_of(host.root, "second")
    for path in ("second", "third"):
        add_submodule(host, other.work, path)
    text = (host.work / ".gitmodules").read_text()
    text = text.replace('"second"', f'"{INNER}/objects"').replace('"third"', f'"{INNER.upper()}"')
    (host.work / ".gitmodules").write_text(text)
    filled = host.fill()
    assert "collides" in left_out(filled, "second")
    assert "collides" in left_out(filled, "third")
    assert [one.path for one in filled.plan.submodules] == [INNER]


def test_a_path_that_is_a_link_goes_in_as_a_link(host: Host) -> None:
    other = outsider(host)
    work = inner_of(host).work
    work.rename(host.root / "moved")
    work.symlink_to(other.work)
    filled = host.fill()
    assert filled.plan.submodules == ()
    assert (filled.inside / INNER).readlink() == other.work
    assert b"private" not in filled.tar


def test_a_path_behind_a_link_does_not_go_in(host: Host) -> None:
    other = outsider(host)
    (host.work / "libs").rename(host.root / "libs")
    sh(other.work, "clone", "--quiet", ".", "inner", env=host.env)
    (host.work / "libs").symlink_to(other.work)
    filled = host.fill()
    assert filled.plan.submodules == ()
    assert (filled.inside / "libs").readlink() == other.work
    assert not any(name.startswith("./libs/") or name.startswith("libs/") for name in tar_names(filled))


def test_a_broken_one_costs_nothing_else(host: Host) -> None:
    """Without a commit; with a file that cannot be copied; with objects that are gone."""
    second, third, fourth = (
        add_submodule(host, origin_of(host.root, name).work, name) for name in ("second", "third", "fourth")
    )
    second.git("checkout", "--quiet", "--orphan", "none")
    os.mkfifo(third.work / "pipe")
    tree = fourth.git("rev-parse", "HEAD~2^{tree}")
    for pack in (host.work / ".git/modules/fourth/objects/pack").glob("pack-*"):
        pack.rename(host.root / pack.name)
    for pack in host.root.glob("pack-*.pack"):
        with pack.open("rb") as content:
            subprocess.run(
                ["git", "unpack-objects", "-q"], stdin=content, cwd=fourth.work, env=host.env, check=True
            )
    (host.work / ".git/modules/fourth/objects" / tree[:2] / tree[2:]).unlink()
    filled = host.fill()
    assert [one.path for one in filled.plan.submodules] == [INNER]
    assert "no commit" in left_out(filled, "second")
    assert "'pipe'" in left_out(filled, "third")
    assert "pack-objects" in left_out(filled, "fourth")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("part", ["", "objects", "config"])
def test_one_of_another_owner(host: Host, part: str) -> None:
    os.chown(host.work / ".git/modules" / INNER / part, 65534, 65534)
    assert "another user" in left_out(host.fill())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root launches on another user's repository")
def test_root_takes_submodules_of_another_users_repository() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own directory is closed to other users
        Path(name).chmod(0o755)
        host = kinds.submodule_changed(Path(name))
        outside = host.git("status", "--porcelain")
        for path in [host.work, *host.work.rglob("*")]:
            os.lchown(path, 65534, 65534)
        filled = host.fill()
        assert [one.path for one in filled.plan.submodules] == [INNER]
        assert host.inside(filled, "status", "--porcelain") == outside
        assert {path.lstat().st_uid for path in host.work.rglob("*")} == {65534}


def test_no_more_than_a_bounded_number(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submodules, "MAX_SUBMODULES", 2)
    for name in ("second", "third"):
        add_submodule(host, origin_of(host.root, name).work, name)
    filled = host.fill()
    assert len(filled.plan.submodules) == 2
    assert "2 submodules" in left_out(filled, "third")


def test_a_thousand_that_are_not_there_cost_no_process_each(host: Host) -> None:
    lines = "".join(f"160000 {number:040x}\tmany/s{number}\n" for number in range(1, 1001))
    subprocess.run(
        ["git", "update-index", "--index-info"], input=lines.encode(), cwd=host.work, env=host.env, check=True
    )
    for number in range(1, 1001):
        (host.work / f"many/s{number}").mkdir(parents=True)
    calls = counted(host)
    assert len(host.plan().nested) == 1000
    assert len(calls()) < 10


def test_a_repository_without_submodules_pays_nothing(tmp_path: Path) -> None:
    """One process of git lists the copy set, as before there were any; what knows submodules is not even loaded."""
    host = plain(tmp_path)
    calls = counted(host)
    program = (
        "import os, sys; from pathlib import Path; from coding_agents.gitsync.discover import discover; "
        "from coding_agents.workspace.listing import plan_copy; env = dict(os.environ); "
        "facts = discover(Path.cwd(), env=env); open(os.environ['CALLS'], 'w').close(); "
        "plan_copy(facts, env=env, include=(), clean=False); "
        "print('coding_agents.workspace.submodules' in sys.modules)"
    )
    env = {**host.env, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=host.work, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    assert len(calls()) == 1


def counted(host: Host) -> Callable[[], list[str]]:
    """Count the processes of git from now on, by a program in its place."""
    directory, log = host.root / "counting", host.root / "calls"
    directory.mkdir()
    real = shutil.which("git", path=host.env["PATH"])
    (directory / "git").write_text(f'#!/bin/sh\necho "$*" >> {log}\nexec {real} "$@"\n')
    (directory / "git").chmod(0o755)
    log.write_text("")
    host.env["PATH"] = f"{directory}:{host.env['PATH']}"
    host.env["CALLS"] = str(log)
    return lambda: log.read_text().splitlines()
