"""`recover NAME` moves work to its branch as soon as nothing stands in the way, and overwrites nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coding_agents.app import recover as verb
from coding_agents.app.stop import Ended
from coding_agents.errors import WorkspaceError
from coding_agents.gitsync.integrate import INCOMING, Integrated, Landing
from coding_agents.model.refs import Oid
from coding_agents.supervisor import settle
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.settle import bring_home, saved_of
from support.crash_scene import Scene, build
from support.repos import BRANCH, SESSION, commit, head, sh

INCOMING_REF = f"{INCOMING}/{SESSION}"


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A session whose first commit is on its branch; what a salvage would find has been pushed already."""
    monkeypatch.setattr(verb, "salvage", _bring)
    made = build(tmp_path)
    bring_home(made.session)
    return made


def _bring(session: SessionContext) -> Ended:
    return Ended(0, saved_of(bring_home(session)), removed=False)


def work_on(scene: Scene, *, rewrite: bool = False) -> Oid:
    """The agent's next commit, in the relay."""
    guest = scene.root / "guest"
    sh(guest, "checkout", "-q", "--detach", scene.relay.store.resolve(BRANCH.ref) or "", env=scene.env)
    if rewrite:
        sh(guest, "reset", "-q", "--hard", "HEAD~1", env=scene.env)
    new = commit(guest, "next", "next\n", env=scene.env, append=True)
    sh(guest, "push", "-q", str(scene.relay_dir), f"+HEAD:{BRANCH.ref}", env=scene.env)
    return new


def branch(scene: Scene) -> str:
    return sh(scene.user, "rev-parse", "--quiet", "--verify", BRANCH.ref, env=scene.env, check=False)


def git(scene: Scene, *args: str) -> str:
    return sh(scene.user, *args, env=scene.env)


@dataclass(frozen=True)
class Hindrance:
    """What a person does with the branch, what is said of it, and how it is undone."""

    take: Callable[[Scene], object]
    says: str
    free: Callable[[Scene], object] = lambda scene: None


def _lock(scene: Scene) -> Path:
    return scene.user / ".git" / f"{BRANCH.ref}.lock"


def _collide(scene: Scene) -> None:
    git(scene, "branch", "-D", BRANCH.short)
    git(scene, "branch", f"{BRANCH.short}/deeper")


def _move_forward(scene: Scene) -> None:
    """To work that stayed under incoming, as a person takes it who does not know of `recover`."""
    git(scene, "checkout", "-q", BRANCH.short)
    work_on(scene)
    bring_home(scene.session)
    git(scene, "merge", "-q", "--ff-only", INCOMING_REF)
    git(scene, "checkout", "-q", "main")


HINDRANCES = {
    "checked-out": Hindrance(
        lambda scene: git(scene, "checkout", "-q", BRANCH.short), "is checked out in",
        lambda scene: git(scene, "checkout", "-q", "main"),
    ),
    "checked-out-in-a-linked-work-tree": Hindrance(
        lambda scene: git(scene, "worktree", "add", "-q", str(scene.root / "side"), BRANCH.short),
        "is checked out in", lambda scene: git(scene, "worktree", "remove", str(scene.root / "side")),
    ),
    "colliding": Hindrance(
        _collide, "was deleted by someone else", lambda scene: git(scene, "branch", "-D", f"{BRANCH.short}/deeper")
    ),
    "locked": Hindrance(
        lambda scene: _lock(scene).touch(), "cannot be written", lambda scene: _lock(scene).unlink()
    ),
    "deleted": Hindrance(lambda scene: git(scene, "branch", "-D", BRANCH.short), "was deleted by someone else"),
    "moved-back": Hindrance(
        lambda scene: git(scene, "branch", "-qf", BRANCH.short, f"{BRANCH.short}~1"), "was changed by someone else"
    ),
    "moved-forward": Hindrance(_move_forward, "was changed by someone else"),
    "moved-away-and-deleted": Hindrance(
        lambda scene: git(scene, "branch", "-qf", BRANCH.short, "main"), "was changed by someone else",
        lambda scene: git(scene, "branch", "-D", BRANCH.short),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HINDRANCES)
def test_a_branch_that_is_free_again_gets_the_work(scene: Scene, name: str) -> None:
    hindrance = HINDRANCES[name]
    hindrance.take(scene)
    before, new = branch(scene), work_on(scene)
    stayed = bring_home(scene.session)
    assert hindrance.says in stayed.reason
    assert (branch(scene), head(scene.user, INCOMING_REF, env=scene.env)) == (before, new)
    hindrance.free(scene)
    came = verb.recover(scene.session)
    assert (came.saved.where, came.saved.integrated, branch(scene)) == ("branch", BRANCH.ref, new)
    assert git(scene, "for-each-ref", INCOMING) == ""
    # From now on as if nothing had been.
    later = work_on(scene)
    assert (bring_home(scene.session).reason, branch(scene)) == ("", later)


@pytest.mark.parametrize("name", ["checked-out", "colliding", "locked"])
def test_a_branch_that_is_not_free_is_left_alone(scene: Scene, name: str) -> None:
    HINDRANCES[name].take(scene)
    before, new = branch(scene), work_on(scene)
    for _ in range(2):
        assert verb.recover(scene.session).saved.where == "incoming"
        assert (branch(scene), head(scene.user, INCOMING_REF, env=scene.env)) == (before, new)
    HINDRANCES[name].free(scene)
    assert verb.recover(scene.session).saved.where == "branch"
    assert branch(scene) == new


def test_commits_that_are_nowhere_else_are_never_overwritten(scene: Scene) -> None:
    git(scene, "checkout", "-q", BRANCH.short)
    (scene.user / "README").write_text("line 0\nline 1\n")
    mine = commit(scene.user, "mine", "of the user\n", env=scene.env)
    git(scene, "checkout", "-q", "main")
    new = work_on(scene)
    for _ in range(2):
        came = verb.recover(scene.session)
        assert (came.saved.where, came.saved.note) == (
            "incoming", f"{BRANCH.short} was changed by someone else meanwhile"
        )  # fmt: skip
        assert (branch(scene), head(scene.user, INCOMING_REF, env=scene.env)) == (mine, new)


def test_what_the_agent_has_rewritten_is_no_part_of_its_branch(scene: Scene) -> None:
    """A person's branch at the agent's earlier work, which its branch does not contain any more."""
    earlier = branch(scene)
    rewritten = work_on(scene, rewrite=True)
    assert bring_home(scene.session).reason == ""
    git(scene, "branch", "-qf", BRANCH.short, earlier)
    assert verb.recover(scene.session).saved.where == "incoming"
    assert (branch(scene), head(scene.user, INCOMING_REF, env=scene.env)) == (earlier, rewritten)


def test_without_a_name_nothing_is_made_again_that_somebody_deleted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = scene.session
    git(scene, "branch", "-D", BRANCH.short)
    work_on(scene)
    session.update(container_id="ended")
    monkeypatch.setattr(verb, "_is_running", lambda _: False)
    (recovered,) = verb.recover_all(session.env, session.store)
    assert recovered.ended is not None
    assert recovered.ended.saved.where == "incoming"
    assert branch(scene) == ""


def test_a_repository_that_is_gone_is_told_by_the_salvage(scene: Scene) -> None:
    scene.user.rename(scene.root / "away")
    seen = scene.session.record.branch_tip
    with pytest.raises(WorkspaceError, match="is gone"):
        verb.recover(scene.session)
    assert scene.session.reload().branch_tip == seen


class _KilledError(BaseException):
    pass


def _move_and_die(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be killed when the branch is moved, before that is written down."""

    def integrate(*args: Any, **options: Any) -> Integrated:
        real(*args, **options)
        raise _KilledError

    real = settle.integrate
    with monkeypatch.context() as killing:
        killing.setattr(settle, "integrate", integrate)
        with pytest.raises(_KilledError):
            bring_home(scene.session)


def test_a_branch_that_we_moved_and_could_not_write_down_is_ours(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the agent has pushed on until the next supervisor looks, and nobody asks for a recovery."""
    moved = work_on(scene)
    _move_and_die(scene, monkeypatch)
    assert branch(scene) == moved
    new = work_on(scene)
    assert bring_home(scene.session).where is Landing.BRANCH
    assert branch(scene) == new


def test_it_is_when_the_repository_was_moved_away_then(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    work_on(scene)
    _move_and_die(scene, monkeypatch)
    guest = scene.root / "guest"  # rewrites it, so that nothing but our own note allows to move it
    sh(guest, "commit", "-q", "--amend", "-m", "other", env=scene.env)
    sh(guest, "push", "-q", str(scene.relay_dir), f"+HEAD:{BRANCH.ref}", env=scene.env)
    new = head(guest, env=scene.env)
    elsewhere = scene.user.rename(scene.user.with_name("elsewhere"))
    assert verb.recover(scene.session, repo=elsewhere).saved.where == "branch"
    assert sh(elsewhere, "rev-parse", BRANCH.ref, env=scene.env) == new


def test_where_we_meant_to_move_a_branch_and_did_not_it_stays_whose_it_is(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_on(scene)
    git(scene, "checkout", "-q", BRANCH.short)
    _move_and_die(scene, monkeypatch)
    git(scene, "checkout", "-q", "main")
    git(scene, "branch", "-f", BRANCH.short, "main")
    work_on(scene)
    assert "changed by someone else" in bring_home(scene.session).reason
    assert branch(scene) == git(scene, "rev-parse", "main")
