"""Where pushes to origin wait: there while it is used or something is held, gone otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from coding_agents.errors import GitError
from coding_agents.gitsync.base import init_bare
from coding_agents.gitsync.origin_quarantine import Quarantine
from coding_agents.gitsync.origin_store import OriginStore
from coding_agents.model.origin import FETCHED
from coding_agents.model.refs import Oid
from support.repos import commit, git_env, head, make_repo, sh

ONE, TWO = "0" * 10, "1" * 10


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Quarantine, OriginStore, Oid]:
    env = git_env(tmp_path / "home")
    store = OriginStore(tmp_path / "data", "https://forge.example/x", FETCHED, env=env)
    store.git_dir.parent.mkdir(parents=True)
    init_bare(store.git_dir, object_format="sha1", env=env)
    user = make_repo(tmp_path / "user", env=env)
    sh(user, "push", "-q", str(store.git_dir), "main", env=env)
    return Quarantine(tmp_path, env=env), store, head(user, env=env)


def test_it_goes_with_the_last_push_and_not_from_under_one(
    scene: tuple[Quarantine, OriginStore, Oid],
) -> None:
    quarantine, origin, tip = scene
    refs = {"refs/heads/main": tip}
    quarantine.open(origin, refs, object_format="sha1")
    assert quarantine.store.refs() == refs
    quarantine.hold(ONE, tip)
    quarantine.close()
    quarantine.open(origin, {"refs/heads/trunk": tip}, object_format="sha1")  # a push that arrives ...
    quarantine.release(ONE)  # ... while the one that waited is decided
    assert quarantine.git_dir.exists()
    quarantine.hold(TWO, tip)
    quarantine.close()
    assert quarantine.store.refs() == {"refs/heads/trunk": tip, f"refs/coding-agents/asked/{TWO}": tip}
    assert (quarantine.held(ONE), quarantine.held(TWO)) == (None, tip)
    quarantine.release(TWO)
    assert not quarantine.git_dir.exists()


def test_a_push_that_came_to_nothing_leaves_nothing(scene: tuple[Quarantine, OriginStore, Oid]) -> None:
    quarantine, origin, tip = scene
    quarantine.open(origin, {"refs/heads/main": tip}, object_format="sha1")
    quarantine.close()
    assert not quarantine.git_dir.exists()
    quarantine.release(ONE)
    for evil in ("../x", "", "A" * 10):
        with pytest.raises(GitError):
            quarantine.held(evil)


def test_what_it_borrows_is_origin_alone(scene: tuple[Quarantine, OriginStore, Oid], tmp_path: Path) -> None:
    quarantine, origin, tip = scene
    private = commit(tmp_path / "user", "secret", "s\n", env=git_env(tmp_path / "home"))
    quarantine.open(origin, {"refs/heads/main": tip}, object_format="sha1")
    assert quarantine.store.present([tip, private]) == [tip]
    assert (quarantine.git_dir / "objects/info/alternates").read_text() == f"{origin.git_dir}/objects\n"
    quarantine.close()
