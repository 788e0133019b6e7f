"""Ten small trees that name ten thousand million files: whoever looks at them must not use up the host."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from coding_agents.app.stop import Ended
from coding_agents.cli import ending_view
from coding_agents.cli.context import AppContext
from coding_agents.cli.output import Output
from coding_agents.errors import GitError
from coding_agents.gitsync.findings import objects
from coding_agents.gitsync.findings.objects import changed_paths
from coding_agents.gitsync.summary import Summary, summarize
from coding_agents.model.refs import Oid
from coding_agents.model.session import Saved
from coding_agents.proc.runner import Command, Owner, run
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext
from support.host import host_environment
from support.relay_scene import Scene, make_scene
from support.relay_server import URL, serving
from support.repos import BRANCH, sh
from support.sessions import session_record

LEVELS = 10


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path)


@pytest.fixture
def bomb(scene: Scene) -> Oid:
    """Pushed by the agent: the relay measures objects, and these are small."""
    with serving(scene.relay, scene.tmp / "run") as server:
        env = server.guest_env(scene.env)
        sh(scene.guest, "fetch", "-q", "local", env=env)
        sh(scene.guest, "checkout", "-qB", BRANCH.short, f"local/{BRANCH.short}", env=env)
        entry = "100644 blob " + sh(scene.guest, "hash-object", "-w", "--stdin", env=env, stdin="x\n")
        for _ in range(LEVELS):
            names = "".join(f"{entry}\t{number}\n" for number in range(10))
            entry = "040000 tree " + sh(scene.guest, "mktree", env=env, stdin=names)
        made = sh(scene.guest, "commit-tree", "-m", "bomb", "-p", "HEAD", entry.split()[-1], env=env)
        sh(scene.guest, "push", "-q", URL, f"{made}:{BRANCH.ref}", env=env)
    return Oid.parse(made)


def test_it_is_given_up_within_bounds(scene: Scene, bomb: Oid, monkeypatch: pytest.MonkeyPatch) -> None:
    less = replace(objects.READ_LIMITS, memory_bytes=1 << 29, cpu_s=60)
    monkeypatch.setattr(objects, "READ_LIMITS", less)  # which takes seconds less
    store = scene.relay.store
    with pytest.raises(GitError, match=r"[Oo]ut of memory"):
        summarize(store, base=scene.base, tip=bomb)
    with pytest.raises(GitError):
        changed_paths(store, scene.base, bomb, limit=1000)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs git as somebody else")
def test_the_bounds_hold_for_git_that_runs_as_the_repositorys_owner() -> None:
    command = Command(
        ("cat", "/proc/self/limits"), env={"PATH": os.environ["PATH"]}, owner=Owner(12345, 12345)
    )
    said = run(replace(command, limits=objects.READ_LIMITS)).text()
    assert re.search(rf"Max address space +{objects.READ_LIMITS.memory_bytes} ", said), said
    assert re.search(rf"Max cpu time +{objects.READ_LIMITS.cpu_s} ", said), said


@pytest.mark.parametrize("fails", ["summary_of", "to_look_at"])
def test_the_end_of_a_session_says_that_it_could_not_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def give_up(*_: object) -> None:
        raise GitError("git diff-tree failed: fatal: Out of memory, malloc failed")

    monkeypatch.setattr(ending_view, "summary_of", lambda *_: Summary(1, 1, 1, 0))
    monkeypatch.setattr(ending_view, fails, give_up)
    env, err = host_environment(tmp_path), io.StringIO()
    session = SessionContext(env, SessionStore(env.state_dir), session_record())
    saved = Saved(relay_tip="1" * 40, integrated="refs/heads/x", where="branch")
    ending_view.show_end(AppContext(env, Output(io.StringIO(), err)), session, Ended(0, saved, removed=False))
    assert "look at  all of it before you use it, it could not be read: git diff-tree" in err.getvalue()
