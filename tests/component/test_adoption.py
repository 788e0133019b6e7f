"""What a salvage or an automatic save found is in the session's branch afterwards, or brought home beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from coding_agents.errors import GitError
from coding_agents.model.refs import Oid
from coding_agents.supervisor import process
from coding_agents.supervisor.adoption import HEAD, WORKTREE, adopt_saves, adopted_tip
from coding_agents.supervisor.context import SessionContext
from coding_agents_guest import events
from coding_agents_guest.nestedref import AUTOSAVE_MESSAGE, LATEST
from support.fake_engine import FakeEngine
from support.product import git
from support.supervised import commit, home, make_session, supervise

IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@example.invalid")


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SessionContext:
    monkeypatch.setattr(process, "_IDLE_S", 0.05)
    engine = FakeEngine(tmp_path / "engine")
    engine.directory.mkdir()
    return make_session(tmp_path, engine)


def tip(session: SessionContext) -> Oid | None:
    return session.relay.store.resolve(session.relay.branch.ref)


def found(*, head: str = "", worktree: str = "") -> events.Salvaged:
    return events.Salvaged(head=head, worktree=worktree, clean=False, left_out=(), notes=())


def _merged_for_its_history(work: Path) -> None:
    git(work, "checkout", "--quiet", "-b", "feature", "HEAD^")
    (work / "precious").write_text("x\n")
    git(work, "add", ".")
    git(work, *IDENTITY, "commit", "--quiet", "-m", "precious")
    git(work, "checkout", "--quiet", "-")
    git(work, *IDENTITY, "merge", "--quiet", "-s", "ours", "-m", "merge", "feature")


def _committed_nothing_but_a_message(work: Path) -> None:
    git(work, *IDENTITY, "commit", "--quiet", "--allow-empty", "-m", "how to release")


def _amended_a_message(work: Path) -> None:
    git(work, *IDENTITY, "commit", "--quiet", "--amend", "-m", "explained at length")


OF_THE_SAME_FILES = [_merged_for_its_history, _committed_nothing_but_a_message, _amended_a_message]


@pytest.fixture(params=OF_THE_SAME_FILES, ids=lambda act: act.__name__.strip("_"))
def same_files(request: pytest.FixtureRequest, session: SessionContext) -> Path:
    """The agent's repository, whose HEAD has the files of what it has pushed but is another commit."""
    commit(session, "pushed")
    work = Path(session.record.repo.work_tree).with_name("agent-pushed")
    request.param(work)
    return work


def _push(session: SessionContext, work: Path, ref: str) -> Oid:
    git(work, "push", "--quiet", str(session.directory / "relay.git"), f"HEAD:{ref}")
    return Oid.parse(git(work, "rev-parse", "HEAD"))


def test_a_head_with_the_files_of_the_branch_is_work_of_its_own(
    session: SessionContext, same_files: Path
) -> None:
    head = _push(session, same_files, HEAD)
    left = adopted_tip(session, found(head=head))
    # An amended commit does not continue the branch; the others do.
    assert (left or tip(session)) == head


@pytest.mark.parametrize("ref", [HEAD, LATEST])
def test_it_is_also_when_the_volume_is_gone(session: SessionContext, same_files: Path, ref: str) -> None:
    """An automatic save of a clean work tree is the agent's own HEAD."""
    head = _push(session, same_files, ref)
    supervise(session)
    repo = Path(session.record.repo.work_tree)
    assert git(repo, "for-each-ref", "--contains", head)
    assert home(session)


def test_an_unchanged_work_tree_that_is_salvaged_again_is_nothing_new(session: SessionContext) -> None:
    pushed = commit(session, "tip")
    again = commit(session, "again", ref=WORKTREE)
    assert pushed != again
    assert adopted_tip(session, found(worktree=again)) is None
    assert tip(session) == pushed


def test_an_unchanged_work_tree_that_was_saved_automatically_is_nothing_new(session: SessionContext) -> None:
    pushed = commit(session, "tip")
    commit(session, AUTOSAVE_MESSAGE, ref=LATEST)
    assert adopt_saves(session) == {}
    assert tip(session) == pushed


def test_a_rewritten_history_that_is_salvaged_is_left_over(session: SessionContext) -> None:
    pushed = commit(session, "tip")
    other = commit(session, "other", ref=WORKTREE, content="other\n")
    assert adopted_tip(session, found(worktree=other)) == other
    assert tip(session) == pushed


def test_a_salvage_that_claims_what_it_did_not_bring_is_not_believed(session: SessionContext) -> None:
    commit(session, "tip")
    with pytest.raises(GitError, match="did not arrive"):
        adopted_tip(session, found(worktree=Oid("1" * 40)))
