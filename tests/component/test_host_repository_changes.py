"""What happens to the user's repository while a session runs must not cost the session's work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coding_agents.errors import WorkspaceError
from coding_agents.gitsync.integrate import Integrated, Landing, integrate
from coding_agents.gitsync.packs import Store
from support.kinds import plain
from support.repos import SESSION, make_repo
from support.roundtrip import Session, begin, files_of, tree_of
from support.workspaces import Host


def _forget_everything(host: Host) -> None:
    """A branch that was rewritten, and a gc that keeps nothing of what it was."""
    host.git("checkout", "--quiet", "--orphan", "new")
    host.git("commit", "--quiet", "--allow-empty", "-m", "anew")
    host.git("branch", "-D", "main")
    host.git("branch", "-m", "main")
    host.git("reflog", "expire", "--expire=now", "--all")
    host.git("gc", "--quiet", "--prune=now")
    host.git("prune", "--expire=now")


def _rebase(host: Host) -> None:
    host.git("commit", "--quiet", "--amend", "--allow-empty", "-m", "amended")
    host.git("reflog", "expire", "--expire=now", "--all")
    host.git("gc", "--quiet", "--prune=now")


def _repack(host: Host) -> None:
    host.git("repack", "-adfq")
    host.git("pack-refs", "--all")


def _lose_a_file(host: Host) -> None:
    """Of no branch any more; the commit is still there, but not all that it names, as after half a gc."""
    blob = host.git("rev-parse", "HEAD:src/app.py").strip()
    _leave_the_branch(host)
    _loose(host, blob).unlink()


def _lose_a_tree(host: Host) -> None:
    tree = host.git("rev-parse", "HEAD^{tree}").strip()
    _leave_the_branch(host)
    _loose(host, tree).unlink()


def _leave_the_branch(host: Host) -> None:
    host.git("checkout", "--quiet", "--orphan", "new")
    host.git("rm", "-rfq", "--cached", ".")
    host.git("commit", "--quiet", "--allow-empty", "-m", "anew")
    host.git("branch", "-D", "main")


def _break_another_branch(host: Host) -> None:
    (host.work / ".git/refs/heads/broken").write_text("1" * 40 + "\n")


def _clone_anew(host: Host) -> None:
    copy = host.work.with_name("copy")
    host.git("clone", "--quiet", "--no-local", str(host.work), str(copy))
    shutil.rmtree(host.work)
    copy.rename(host.work)


def _start_anew(host: Host) -> None:
    shutil.rmtree(host.work)
    make_repo(host.work, env=host.env, commits=1)


def _move_the_head(host: Host) -> None:
    host.git("checkout", "--quiet", "--detach", "HEAD~1")
    host.git("branch", "-m", "main", "trunk")


def _loose(host: Host, oid: str) -> Path:
    return host.work / ".git/objects" / oid[:2] / oid[2:]


CHANGES = [
    _forget_everything, _rebase, _repack, _lose_a_file, _lose_a_tree, _break_another_branch, _clone_anew,
    _start_anew, _move_the_head,
]  # fmt: skip


def _session(root: Path) -> Session:
    session = begin(plain(root))
    (session.work / "work").write_text("of the agent\n")
    session.git("add", "work")
    session.git("commit", "--quiet", "-m", "mine")
    (session.work / "later").write_text("not committed\n")
    return session


@pytest.mark.parametrize("change", CHANGES)
def test_the_work_comes_home_whole(tmp_path: Path, change: Callable[[Host], None]) -> None:
    session = _session(tmp_path)
    facts = session.host.facts()
    change(session.host)
    assert session.save().pushed
    landed = integrate(facts, session.relay, session=SESSION, expected_old=None, env=session.host.env)
    assert landed.where is Landing.BRANCH, landed
    assert tree_of(session.host, str(landed.tip)) == files_of(session)
    session.host.git("rev-list", "--objects", "--quiet", str(landed.tip))


def test_work_that_came_home_before_is_followed_after_a_gc(tmp_path: Path) -> None:
    session = _session(tmp_path)
    assert session.save().pushed
    first = session.bring()
    session.host.git("gc", "--quiet", "--prune=now")
    (session.work / "third").write_text("more\n")
    assert session.save().pushed
    second = session.bring(expected_old=first.tip)
    assert (second.where, second.tip != first.tip) == (Landing.BRANCH, True)
    assert tree_of(session.host, str(second.tip)) == files_of(session)


def test_a_repository_that_is_gone_is_an_error_and_the_work_stays(tmp_path: Path) -> None:
    session = _session(tmp_path)
    facts = session.host.facts()
    away = session.host.work.rename(tmp_path / "away")
    assert session.save().pushed

    def bring() -> Integrated:
        return integrate(facts, session.relay, session=SESSION, expected_old=None, env=session.host.env)

    with pytest.raises(WorkspaceError, match="is gone"):
        bring()
    away.rename(session.host.work)
    assert bring().where is Landing.BRANCH


def test_damage_is_no_reason_to_copy_everything_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where the check finds something missing."""
    session = _session(tmp_path)
    assert session.save().pushed
    checks: list[tuple[str, ...]] = []
    run = Store.git

    def counting(self: Store, *args: str, **options: object) -> object:
        checks.extend([args] if args[0] == "rev-list" else [])
        return run(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "git", counting)
    assert session.bring().where is Landing.BRANCH
    assert len(checks) == 1
