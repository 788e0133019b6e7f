"""`remove` deletes no branch that is not where we left it, and names the ref that has the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from coding_agents.app import remove as verb
from coding_agents.app.stop import Ended
from coding_agents.gitsync.integrate import INCOMING
from coding_agents.model.refs import Oid
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.settle import bring_home, bring_home_beside, saved_of
from support.fake_engine import FakeEngine
from support.product import git
from support.supervised import commit, give_volume, home, make_session


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SessionContext:
    """One that has ended, and whose pushed work is on its branch."""
    monkeypatch.setattr(verb, "salvage", _bring)
    engine = FakeEngine(tmp_path / "engine")
    engine.directory.mkdir()
    made = make_session(tmp_path, engine)
    give_volume(made)
    made.update(phase="stopped", started_at="", container_id="", enforced={"user": "1000"})
    commit(made, "pushed")
    bring_home(made)
    return made


def _bring(session: SessionContext) -> Ended:
    """Bring home what a salvage would have found: as the supervisor does, with a record of its own."""
    of_supervisor = SessionContext(session.env, session.store, session.store.load(session.record.id))
    result = bring_home(of_supervisor)
    beside = of_supervisor.relay.store.resolve("refs/heads/beside")
    if beside is not None:
        result = bring_home_beside(of_supervisor, beside)
    return Ended(0, saved_of(result, verified=True), removed=False)


def user_git(session: SessionContext, *args: str) -> str:
    return git(Path(session.record.repo.work_tree), *args)


def merge(session: SessionContext) -> None:
    user_git(session, "merge", "--quiet", "--ff-only", session.record.branch)


def test_a_merged_branch_is_deleted(session: SessionContext) -> None:
    merge(session)
    removed = verb.remove(session, force=False)
    assert (removed.branch_deleted, removed.kept_ref) == (True, "")
    assert home(session) == ""


def test_what_is_merged_after_the_last_push_was_moved_by_the_salvage(session: SessionContext) -> None:
    """The record that the verb has read is older than where the branch stands."""
    new = _push_on(session)
    user_git(session, "fetch", "--quiet", str(session.relay.git_dir), session.relay.branch.ref)
    user_git(session, "merge", "--quiet", "--ff-only", new)
    assert verb.remove(session, force=False).branch_deleted


def test_a_branch_that_is_not_merged_stays_and_is_named(session: SessionContext) -> None:
    removed = verb.remove(session, force=False)
    assert (removed.branch_deleted, removed.kept_ref) == (False, session.relay.branch.ref)


def test_a_branch_that_somebody_else_has_moved_is_theirs(session: SessionContext) -> None:
    user_git(session, "branch", "--force", session.record.branch, "main")
    _push_on(session)
    removed = verb.remove(session, force=False)
    assert not removed.branch_deleted
    assert home(session) == user_git(session, "rev-parse", "main")
    assert removed.kept_ref == f"{INCOMING}/{session.record.id}"


def test_work_that_is_not_on_the_branch_is_named_also_when_that_is_deleted(session: SessionContext) -> None:
    merge(session)
    beside = commit(session, "beside", ref="refs/heads/beside", content="beside\n")
    removed = verb.remove(session, force=False)
    assert removed.branch_deleted
    assert user_git(session, "rev-parse", removed.kept_ref) == beside


def _push_on(session: SessionContext) -> Oid:
    work = Path(session.record.repo.work_tree).with_name("agent-pushed")
    (work / "more.txt").write_text("more\n")
    git(work, "add", ".")
    git(work, "-c", "user.name=a", "-c", "user.email=a@example.invalid", "commit", "--quiet", "-m", "more")
    git(work, "push", "--quiet", str(session.relay.git_dir), f"HEAD:{session.relay.branch.ref}")
    return Oid.parse(git(work, "rev-parse", "HEAD"))
