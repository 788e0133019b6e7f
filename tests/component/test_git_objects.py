"""Objects arrive beside the repository, become part of it when they are whole, and leave nothing however that ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import coding_agents
from coding_agents.errors import GitError
from coding_agents.gitsync.packs import Store, copy_closure, user_store
from coding_agents.proc.git import Profile
from coding_agents.proc.git_objects import arriving, clear_arrivals
from coding_agents.proc.runner import Owner
from support.repos import commit, git_env, make_repo, sh
from support.workspaces import Host

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Whose repository lies where its path must be quoted."""
    env = git_env(tmp_path / "home")
    return Host(tmp_path, make_repo(tmp_path / 'od:d "pa\\th\u00e9', env=env), env)


@pytest.fixture
def source(host: Host) -> Store:
    """A clone with one more commit on `main`."""
    clone = host.root / "clone"
    sh(host.root, "clone", "-q", str(host.work), str(clone), env=host.env)
    commit(clone, "README", "more\n", env=host.env, append=True)
    return Store(clone / ".git", Profile.OWN, host.env)


def arrivals(host: Host) -> list[str]:
    return [entry.name for entry in (host.work / ".git/objects").iterdir() if entry.name.startswith("tmp_")]


def bring(source: Store, host: Host) -> str:
    tip, known = source.resolve("refs/heads/main"), host.facts().head
    assert tip is not None
    assert known is not None
    copy_closure(source, user_store(host.facts(), host.env), tips=[tip], known=[known])
    return tip


def test_they_are_there_and_nothing_else_is(host: Host, source: Store) -> None:
    tip = bring(source, host)
    host.git("rev-list", "--objects", "--quiet", tip)
    assert arrivals(host) == []
    kinds = {path.suffix for path in (host.work / ".git/objects/pack").iterdir()}
    assert {".pack", ".idx"} <= kinds <= {".pack", ".idx", ".rev"}


def test_a_pack_that_was_damaged_is_replaced_by_itself(host: Host, source: Store) -> None:
    tip = bring(source, host)
    (pack,) = (host.work / ".git/objects/pack").glob("*.pack")
    pack.chmod(0o600)
    pack.write_bytes(b"")
    bring(source, host)
    host.git("rev-list", "--objects", "--quiet", tip)


def test_what_cannot_be_written_is_told(host: Host, source: Store) -> None:
    objects = host.work / ".git/objects"
    objects.rename(objects.with_name("away"))
    objects.touch()
    with pytest.raises(GitError, match="cannot write to"), arriving(host.work / ".git", None):
        pass


_KILLED = """
import os, sys, time
from pathlib import Path
from coding_agents.proc.git_objects import arriving
with arriving(Path(sys.argv[1]), None):
    print("there", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_one_left_goes_and_what_a_living_one_has_stays(host: Host) -> None:
    git_dir = host.work / ".git"
    there: list[subprocess.Popen[str]] = []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(git_dir)], stdout=subprocess.PIPE, text=True,
            env={"PYTHONPATH": str(Path(coding_agents.__file__).parents[1])},
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        there.append(process)
    killed, living = there
    try:
        killed.kill()
        killed.wait()
        clear_arrivals(git_dir)
        assert len(arrivals(host)) == 2  # one that is so young may be about to be locked
        then = time.time() - 60
        for name in arrivals(host):
            os.utime(git_dir / "objects" / name, (then, then))
        user_store(host.facts(), host.env)
        (left,) = arrivals(host)
        assert f"-{living.pid}-" in left
        living.send_signal(signal.SIGINT)
        living.wait()
        assert arrivals(host) == []
    finally:
        for process in there:
            process.kill()
            process.communicate()


def test_a_repository_whose_objects_are_elsewhere(host: Host, source: Store) -> None:
    """By a link, as git's own contrib/workdir makes it."""
    objects = host.work / ".git/objects"
    objects.rename(host.root / "objects")
    objects.symlink_to(host.root / "objects")
    host.git("rev-list", "--objects", "--quiet", bring(source, host))


@as_root
def test_in_a_shared_repository_of_another_user_they_are_that_users_and_the_groups(
    host: Host, source: Store
) -> None:
    host.git("config", "core.sharedRepository", "group")
    for path in (host.work, *host.work.rglob("*")):
        os.chown(path, 4242, 4343)
        if path.is_dir():
            path.chmod(0o2775)
    for parent in (host.root, *host.root.parents):
        if parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    tip = source.resolve("refs/heads/main")
    assert tip is not None
    copy_closure(
        source, Store(host.work / ".git", Profile.USER_WRITE, host.env, Owner(4242, 4242)), tips=[tip]
    )
    packs = list((host.work / ".git/objects/pack").iterdir())
    assert packs
    for path in packs:
        info = path.stat()
        assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (4242, 4343, 0o444)


@as_root
@pytest.mark.parametrize("part", ["objects", "objects/pack"])
def test_root_writes_through_no_link_into_what_is_not_the_owners(
    host: Host, part: str, tmp_path: Path
) -> None:
    git_dir, other = host.work / ".git", tmp_path / "other"
    for path in (host.work, *host.work.rglob("*")):
        os.chown(path, 4242, 4242)
    (git_dir / part).rename(tmp_path / "aside")
    other.mkdir()
    (git_dir / part).symlink_to(other)

    def arrive() -> None:
        with arriving(git_dir, Owner(4242, 4242)) as arrival:
            Path(arrival.env(alone=True)["GIT_OBJECT_DIRECTORY"], "pack/pack-1.idx").touch()
            arrival.keep()

    with pytest.raises(GitError, match="belongs to another user"):
        arrive()
    assert list(other.iterdir()) == []
