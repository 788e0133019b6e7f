"""What a salvage or an automatic save found is in the session's branch afterwards, or brought home beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from coding_agents.errors import GitError, GuestError
from coding_agents.gitsync.relay_repo import ARCHIVE, SALVAGE, SALVAGE_HEADS
from coding_agents.model.refs import Oid
from coding_agents.model.session import Saved
from coding_agents.supervisor import ending, process
from coding_agents.supervisor.adoption import HEAD, WORKTREE, State, adopt_found, adopt_saves
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.protocol import Op
from coding_agents_guest import events
from coding_agents_guest.nestedref import AUTOSAVE_MESSAGE, LATEST
from support.fake_engine import FakeEngine
from support.product import git
from support.supervised import commit, give_volume, home, make_session, supervise

IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@example.invalid")


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SessionContext:
    monkeypatch.setattr(process, "_IDLE_S", 0.05)
    engine = FakeEngine(tmp_path / "engine")
    engine.directory.mkdir()
    return make_session(tmp_path, engine)


@pytest.fixture
def volume(session: SessionContext, monkeypatch: pytest.MonkeyPatch) -> Volume:
    return Volume(session, monkeypatch)


class Volume:
    """A session's volume, which a salvage finds in it what the test says."""

    def __init__(self, session: SessionContext, monkeypatch: pytest.MonkeyPatch) -> None:
        self._session = session
        session.update(phase="stopped", started_at="")
        self._name = give_volume(session)
        monkeypatch.setattr(ending, "salvage", self._salvage)
        self._found: Callable[[], events.Salvaged] = found

    def salvage(self, find: Callable[[], events.Salvaged]) -> Saved:
        """What `recover` tells; `find` is what the container does and reports."""
        self._found = find
        return self.recover()

    def recover(self) -> Saved:
        supervise(self._session, lambda supervisor: supervisor.handle(Op.SALVAGE, {}))
        return self._session.reload().saved

    def lose(self) -> None:
        self._session.engine.remove_volume(self._name)

    async def _salvage(self, *_: object) -> events.Salvaged:
        return await asyncio.to_thread(self._found)


def cut_short() -> events.Salvaged:
    raise GuestError("the container was killed")


def at_home(session: SessionContext, oid: Oid) -> str:
    """The refs of the user's repository that hold `oid`."""
    return git(
        Path(session.record.repo.work_tree),
        "for-each-ref",
        "--format=%(refname)",
        "--contains",
        oid,
        check=False,
    )


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
    left = adopt_found(session, found(head=head))
    # An amended commit does not continue the branch; the others do.
    assert left == (State("salvage", head, ours=False),) or tip(session) == head


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
    assert adopt_found(session, found(worktree=again)) == ()
    assert tip(session) == pushed


def test_an_unchanged_work_tree_that_was_saved_automatically_is_nothing_new(session: SessionContext) -> None:
    pushed = commit(session, "tip")
    commit(session, AUTOSAVE_MESSAGE, ref=LATEST)
    assert adopt_saves(session) == ()
    assert tip(session) == pushed


def test_a_rewritten_history_that_is_salvaged_is_left_over(session: SessionContext) -> None:
    pushed = commit(session, "tip")
    other = commit(session, "other", ref=WORKTREE, content="other\n")
    assert adopt_found(session, found(worktree=other)) == (State("salvage", other, ours=True),)
    assert tip(session) == pushed


def test_a_salvage_that_claims_what_it_did_not_bring_is_not_believed(session: SessionContext) -> None:
    commit(session, "tip")
    with pytest.raises(GitError, match="did not arrive"):
        adopt_found(session, found(worktree=Oid("1" * 40)))


# --- What is not home when a salvage has ended, or begins ------------------------------------------------


def test_what_did_not_come_home_is_not_forgotten_when_the_next_salvage_is_cut_short(
    session: SessionContext, volume: Volume
) -> None:
    """The repository was not there at first; then the volume is lost, and `remove` would take the relay."""
    commit(session, "pushed")
    branch = commit(session, "branch", ref=f"{SALVAGE_HEADS}feature", content="branch\n")
    files = commit(session, "files", ref=WORKTREE, content="files\n")
    with pytest.raises(GuestError):
        volume.salvage(cut_short)
    volume.lose()
    saved = volume.recover()
    assert at_home(session, branch) == f"refs/coding-agents/incoming/{session.record.id}-branches/feature"
    assert at_home(session, files) == f"refs/coding-agents/incoming/{session.record.id}-salvage"
    assert (saved.where, saved.verified) == ("branch", False)
    assert f"cut short, is refs/coding-agents/incoming/{session.record.id}-salvage" in saved.note


def test_what_did_not_come_home_comes_with_the_next_salvage(session: SessionContext, volume: Volume) -> None:
    commit(session, "pushed")
    old = commit(session, "old", ref=f"{SALVAGE_HEADS}feature/x", content="old\n")
    files = commit(session, "files", ref=WORKTREE, content="files\n")
    new: list[Oid] = []

    def find() -> events.Salvaged:
        new.append(commit(session, "new", ref=f"{SALVAGE_HEADS}feature", content="new\n"))
        return found()

    saved = volume.salvage(find)
    assert (saved.where, saved.verified) == ("branch", True), "which is the last state, and no earlier one"
    incoming = f"refs/coding-agents/incoming/{session.record.id}"
    assert at_home(session, new[0]) == f"{incoming}-branches/feature"
    assert at_home(session, old) == f"{incoming}-branches-2/feature/x"
    assert at_home(session, files) == f"{incoming}-salvage"
    assert f"cut short, is {incoming}-salvage" in saved.note
    assert "rewritten" not in saved.note
    # What is home stays in the relay, but not where the next salvage would bring it again.
    assert session.relay.store.refs(f"{SALVAGE}/") == {}
    assert {old, files, *new} <= set(session.relay.store.refs(f"{ARCHIVE}/").values())


def test_a_salvage_that_finds_the_same_again_adds_nothing(session: SessionContext, volume: Volume) -> None:
    commit(session, "pushed")
    other = commit(session, "other", ref="refs/heads/kept", content="other\n")

    def find() -> events.Salvaged:
        session.relay.store.update_refs(f"create {HEAD} {other}", f"create {SALVAGE_HEADS}feature {other}")
        return found(head=other)

    repo = Path(session.record.repo.work_tree)
    seen = []
    for _ in range(2):
        volume.salvage(find)
        seen.append((git(repo, "for-each-ref"), session.relay.store.refs()))
    assert seen[0] == seen[1]


def test_tips_that_the_agent_left_behind_come_home_when_the_volume_is_gone(
    session: SessionContext, volume: Volume
) -> None:
    commit(session, "pushed")
    one = commit(session, "one", ref=f"{ARCHIVE}/1", content="one\n")
    two = commit(session, "two", ref=f"{ARCHIVE}/2", content="two\n")
    volume.salvage(found)
    assert at_home(session, one) == ""  # the volume is there, and it holds what the agent wanted
    volume.lose()
    repo = Path(session.record.repo.work_tree)
    seen = []
    for _ in range(2):
        assert "-earlier" in volume.recover().note
        seen.append(git(repo, "for-each-ref"))
    assert at_home(session, one) == at_home(session, two) != ""
    assert seen[0] == seen[1]
    git(repo, "fsck", "--strict")


def test_one_tip_that_the_agent_left_behind_comes_home_as_it_is(
    session: SessionContext, volume: Volume
) -> None:
    commit(session, "pushed")
    one = commit(session, "one", ref=f"{ARCHIVE}/1", content="one\n")
    volume.lose()
    volume.recover()
    repo = Path(session.record.repo.work_tree)
    assert git(repo, "rev-parse", f"refs/coding-agents/incoming/{session.record.id}-earlier") == one
