"""Refs are moved past the locks of a git of ours that was killed, and past nobody else's."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from coding_agents.errors import GitError
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.packs import user_store
from coding_agents.proc import git_refs
from coding_agents.proc.git import Profile
from coding_agents.proc.git_refs import clear_abandoned, sweep_locks, update_refs
from support.repos import commit, git_env, head, make_repo, sh

BRANCH = "refs/heads/demo/work"
OURS = "refs/coding-agents/incoming/0123456789ab"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return git_env(tmp_path / "home")


@pytest.fixture
def git_dir(tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(git_refs, "OWN_LOCK_S", 0.5)
    return make_repo(tmp_path / "user", env=env) / ".git"


def lock(git_dir: Path, name: str, *, age_s: float = 0.0) -> Path:
    path = git_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def move(git_dir: Path, ref: str, env: dict[str, str], profile: Profile = Profile.USER_WRITE) -> None:
    update_refs([f"update {ref} {head(git_dir, env=env)}"], profile=profile, env=env, git_dir=git_dir)


def test_the_users_own_lock_stays_however_old_it_is(git_dir: Path, env: dict[str, str]) -> None:
    mine = lock(git_dir, f"{BRANCH}.lock", age_s=86400)
    with pytest.raises(
        GitError, match=r"demo/work cannot be written: .*demo/work\.lock is in the way"
    ) as caught:
        move(git_dir, BRANCH, env)
    assert "remove that file" in caught.value.hint
    assert mine.exists()
    assert list(git_dir.glob("coding-agents-moving-*")) == []


def test_locks_of_a_git_that_was_killed_with_us_go(git_dir: Path, env: dict[str, str]) -> None:
    stale = [
        lock(git_dir, name) for name in (f"{BRANCH}.lock", "packed-refs.lock", "packed-refs.new", "HEAD.lock")
    ]
    other = lock(git_dir, "refs/heads/mine.lock", age_s=86400)
    note = git_dir / "coding-agents-moving-1-abcd"
    note.write_text(f"{BRANCH}\nrefs/../../outside\n")
    outside = lock(git_dir.parent.parent, "outside.lock", age_s=86400)
    clear_abandoned(git_dir)
    assert [path for path in (*stale, note) if path.exists()] == []
    assert other.exists()
    assert outside.exists()
    sh(git_dir, "pack-refs", "--all", env=env)


def test_the_next_move_of_any_ref_clears_what_was_left(git_dir: Path, env: dict[str, str]) -> None:
    stale = lock(git_dir, f"{BRANCH}.lock")
    (git_dir / "coding-agents-moving-1-abcd").write_text(f"{BRANCH}\n")
    move(git_dir, "refs/coding-agents/incoming/other", env)
    assert not stale.exists()


def test_whoever_looks_into_the_users_repository_clears_what_was_left(
    git_dir: Path, env: dict[str, str]
) -> None:
    stale = lock(git_dir, "packed-refs.lock")
    note = git_dir / "coding-agents-moving-1-abcd"
    note.write_text(f"{BRANCH}\n")
    user_store(discover(git_dir.parent, env=env), env)
    assert not stale.exists()
    assert not note.exists()
    sh(git_dir, "pack-refs", "--all", env=env)


def test_locks_of_one_of_us_that_lives_stay(git_dir: Path, env: dict[str, str]) -> None:
    held = lock(git_dir, f"{BRANCH}.lock", age_s=86400)
    note = git_dir / "coding-agents-moving-1-abcd"
    note.write_text(f"{BRANCH}\n")
    with note.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        clear_abandoned(git_dir)
        assert held.exists()
        assert note.exists()
    clear_abandoned(git_dir)
    assert not held.exists()


def test_refs_of_ours_in_the_users_repository_need_no_note(git_dir: Path, env: dict[str, str]) -> None:
    lock(git_dir, f"{OURS}.lock")
    began = time.monotonic()
    move(git_dir, OURS, env)
    assert time.monotonic() - began >= 0.3  # it was watched
    assert head(git_dir, OURS, env=env) == head(git_dir, env=env)


def test_a_lock_whose_holder_lives_is_waited_for(git_dir: Path, env: dict[str, str]) -> None:
    held = lock(git_dir, f"{OURS}.lock")
    inode = held.stat().st_ino
    seen: list[int] = []

    def release() -> None:
        seen.append(held.stat().st_ino)
        held.unlink()

    timer = threading.Timer(0.25, release)
    timer.start()
    move(git_dir, OURS, env)
    timer.join()
    assert seen == [inode]
    assert head(git_dir, OURS, env=env) == head(git_dir, env=env)


def test_a_repository_of_ours_is_swept(git_dir: Path, env: dict[str, str]) -> None:
    stale = [lock(git_dir, name, age_s=60) for name in (f"{BRANCH}.lock", "HEAD.lock", "refs/heads/x/y.lock")]
    sweep_locks(git_dir)
    assert [path for path in stale if path.exists()] == []
    lock(git_dir, f"{BRANCH}.lock")
    move(git_dir, BRANCH, env, Profile.OWN)
    assert head(git_dir, BRANCH, env=env) == head(git_dir, env=env)


def test_no_link_is_followed_to_a_lock(git_dir: Path, env: dict[str, str], tmp_path: Path) -> None:
    """Root works in other users' repositories: what they link to is not removed by its name."""
    elsewhere = tmp_path / "elsewhere"
    victim = lock(elsewhere, "victim.lock", age_s=86400)
    (git_dir / "refs" / "coding-agents").symlink_to(elsewhere)
    (git_dir / "coding-agents-moving-1-abcd").write_text("refs/coding-agents/victim\n")
    (git_dir / "coding-agents-moving-2-abcd").symlink_to(elsewhere / "victim.lock")
    clear_abandoned(git_dir)
    assert victim.exists()


def test_a_transaction_moves_all_refs_or_none(git_dir: Path, env: dict[str, str]) -> None:
    old = head(git_dir, env=env)
    new = commit(git_dir.parent, "more", "x\n", env=env)
    with pytest.raises(GitError, match="git update-ref failed"):
        update_refs(
            [f"update {BRANCH} {new}", f"update {OURS} {new} {old}"],
            profile=Profile.USER_WRITE, env=env, git_dir=git_dir,
        )  # fmt: skip
    assert sh(git_dir, "for-each-ref", "refs/heads/demo", "refs/coding-agents", env=env) == ""
