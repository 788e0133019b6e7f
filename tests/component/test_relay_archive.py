"""Old tips that a push leaves behind: kept before git moves a ref, whatever else is in the push and whoever dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_agents.errors import GitError
from coding_agents.gitsync import relay_push
from coding_agents.gitsync.archive import bundle_archive
from coding_agents.gitsync.relay_limits import RelayLimits
from coding_agents.gitsync.relay_repo import ARCHIVE, ARCHIVING
from coding_agents.model.refs import Oid
from coding_agents_guest.nestedref import LATEST, NESTED, NESTED_MESSAGE
from support.relay_scene import Scene, at_work, eventually, make_scene
from support.relay_server import URL, RelayServer, serving
from support.repos import BRANCH, commit, sh, sh_fails

_INNER = f"{NESTED}x"


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path)


@pytest.fixture
def server(scene: Scene) -> Iterator[RelayServer]:
    with serving(scene.relay, scene.tmp / "run") as running:
        yield running


def blob(scene: Scene, env: dict[str, str]) -> str:
    return sh(scene.guest, "hash-object", "-w", "--stdin", env=env, stdin="no commit")


def kept(scene: Scene) -> set[str]:
    return set(scene.relay.store.refs(ARCHIVE).values())


def left(scene: Scene) -> list[Oid]:
    """What the archive has not yet decided about."""
    return list(scene.relay.store.refs(ARCHIVING).values())


def test_what_git_cannot_compare_hides_no_rewrite(scene: Scene, server: RelayServer) -> None:
    """A blob in the same push made git fail before the branch's old tip was kept: no archive, no record, no news."""
    env = at_work(scene, server)
    old = commit(scene.guest, "work", "precious\n", env=env)
    sh(scene.guest, "push", "-q", URL, f"HEAD:{BRANCH.ref}", f"HEAD:{_INNER}", env=env)
    sh(scene.guest, "reset", "-q", "--hard", "HEAD^", env=env)
    new = commit(scene.guest, "other", "rewritten\n", env=env)
    sh(scene.guest, "push", "-q", URL, f"+{blob(scene, env)}:{_INNER}", f"+{new}:{BRANCH.ref}", env=env)
    eventually(lambda: any(change.new == new for change in server.changes))
    (archived,) = [change.archived for change in server.changes if change.new == new]
    assert archived is not None
    assert scene.relay.store.refs(ARCHIVE) == {archived: old}
    assert [event.rule for event in server.events].count("git-push-rewrite") == 1
    assert scene.relay.store.resolve(_INNER) == old


@pytest.mark.parametrize("message", ["Mine", NESTED_MESSAGE])
def test_of_a_repository_inside_only_our_own_commits_are_let_go(
    scene: Scene, server: RelayServer, message: str
) -> None:
    env = at_work(scene, server)
    below = commit(scene.guest, "work", "precious\n", env=env)
    sh(scene.guest, "commit", "-q", "--allow-empty", "-m", message, env=env)
    top = Oid.parse(sh(scene.guest, "rev-parse", "HEAD", env=env))
    sh(scene.guest, "push", "-q", URL, f"HEAD:{_INNER}", env=env)
    sh(scene.guest, "reset", "-q", "--hard", scene.base, env=env)
    commit(scene.guest, "other", "rewritten\n", env=env)
    sh(scene.guest, "push", "-q", URL, f"+HEAD:{_INNER}", env=env)
    eventually(lambda: len(server.changes) == 2)
    assert kept(scene) == {below if message == NESTED_MESSAGE else top}


@pytest.mark.parametrize("ref", [f"{NESTED}new", LATEST])
def test_a_ref_for_commits_that_names_none_is_taken_back(scene: Scene, server: RelayServer, ref: str) -> None:
    env = at_work(scene, server)
    sh(scene.guest, "push", "-q", URL, f"{blob(scene, env)}:{ref}", env=env)
    eventually(lambda: server.events[-1].outcome == "failed")
    assert server.events[-1].detail["reason"] == "it names no commit"
    assert scene.relay.store.resolve(ref) is None
    assert server.changes == []


def test_a_supervisor_that_dies_as_soon_as_git_is_done_has_kept_the_old_tip(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(scene.relay, scene.tmp / "run") as server:
        env = at_work(scene, server)
        old = commit(scene.guest, "work", "precious\n", env=env)
        sh(scene.guest, "push", "-q", URL, f"HEAD:{BRANCH.ref}", env=env)
        eventually(lambda: len(server.changes) == 1)
        sh(scene.guest, "reset", "-q", "--hard", "HEAD^", env=env)
        commit(scene.guest, "other", "rewritten\n", env=env)

        def dies(*_: object) -> None:
            raise GitError("this is where it dies")

        with monkeypatch.context() as patched:
            patched.setattr(relay_push, "take_back", dies)
            sh(scene.guest, "push", "-qf", URL, f"HEAD:{BRANCH.ref}", env=env)
            eventually(lambda: server.events[-1].outcome == "failed")
    assert kept(scene) == set()
    assert left(scene) == [old]
    assert bundle_archive(scene.relay, without=[]) == old  # what comes home when the volume is lost now
    with serving(scene.relay, scene.tmp / "run") as server:
        commit(scene.guest, "more", "goes on\n", env=env)
        sh(scene.guest, "push", "-q", URL, f"HEAD:{BRANCH.ref}", env=server.guest_env(scene.env))
        eventually(lambda: len(server.changes) == 1)
    assert (kept(scene), left(scene)) == ({old}, [])


def test_what_is_no_rewrite_leaves_nothing_in_the_archive(scene: Scene, server: RelayServer) -> None:
    env = at_work(scene, server)
    for text in ("one\n", "two\n"):
        commit(scene.guest, "work", text, env=env)
        sh(scene.guest, "push", "-q", URL, f"HEAD:{BRANCH.ref}", f"HEAD:{_INNER}", env=env)
    eventually(lambda: len(server.changes) == 4)
    assert (kept(scene), left(scene)) == (set(), [])


def test_a_push_that_a_budget_ends_leaves_nothing_in_the_archive(scene: Scene) -> None:
    with serving(scene.relay, scene.tmp / "run", limits=RelayLimits(object_bytes=1 << 16)) as server:
        env = at_work(scene, server)
        commit(scene.guest, "work", "too large\n" * 10_000, env=env)
        assert "relay.object" in sh_fails(scene.guest, "push", "-qf", URL, f"HEAD:{BRANCH.ref}", env=env)
    assert (kept(scene), left(scene)) == (set(), [])
