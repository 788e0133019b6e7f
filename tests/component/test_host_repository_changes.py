"""What happens to the user's repository while a session runs must not cost the session's work."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coding_agents.errors import WorkspaceError
from coding_agents.gitsync import packs
from coding_agents.gitsync.integrate import Integrated, Landing, integrate
from support.homeways import WAYS, require_home
from support.repos import SESSION, make_repo
from support.roundtrip import files_of, tree_of
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
    blob = _app(host)
    _leave_the_branch(host)
    _loose(host, blob).unlink()


def _lose_a_tree(host: Host) -> None:
    tree = host.git("rev-parse", "HEAD^{tree}").strip()
    _leave_the_branch(host)
    _loose(host, tree).unlink()


def _lose_a_commit(host: Host) -> None:
    """Of the history, which an earlier gc has written down in a commit-graph."""
    commit = host.git("rev-parse", "HEAD~1").strip()
    host.git("commit-graph", "write", "--reachable")
    _leave_the_branch(host)
    _loose(host, commit).unlink()


def _lose_a_file_of_the_branch(host: Host) -> None:
    _loose(host, _app(host)).unlink()


def _empty_a_tree(host: Host) -> None:
    """What a power cut leaves of an object that was never synced."""
    path = _loose(host, host.git("rev-parse", "HEAD^{tree}").strip())
    path.chmod(0o600)
    path.write_bytes(b"")


def _leave_the_branch(host: Host) -> None:
    host.git("checkout", "--quiet", "--orphan", "new")
    host.git("rm", "-rfq", "--cached", ".")
    host.git("commit", "--quiet", "--allow-empty", "-m", "anew")
    host.git("branch", "-D", "main")
    for remote in host.git("remote").split():
        host.git("remote", "remove", remote)


def _break_another_branch(host: Host) -> None:
    Path(_git_path(host, "refs/heads/broken")).write_text("1" * 40 + "\n")


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


def _app(host: Host) -> str:
    return host.git("rev-parse", "HEAD:src/app.py").strip()


def _git_path(host: Host, name: str) -> Path:
    return Path(host.git("rev-parse", "--path-format=absolute", "--git-path", name))


def _loose(host: Host, oid: str) -> Path:
    """The file of an object, after all that came in packs was taken out of them."""
    aside = host.root / f"aside-{time.monotonic_ns()}"
    aside.mkdir()
    for pack in _git_path(host, "objects/pack").iterdir():
        pack.rename(aside / pack.name)
    for pack in aside.glob("*.pack"):
        with pack.open("rb") as content:
            subprocess.run(
                ["git", "unpack-objects", "-q"], cwd=host.work, env=host.env, stdin=content, check=True
            )
    return _git_path(host, f"objects/{oid[:2]}/{oid[2:]}")


CHANGES = [
    _forget_everything, _rebase, _repack, _lose_a_file, _lose_a_tree, _lose_a_commit, _lose_a_file_of_the_branch,
    _empty_a_tree, _break_another_branch, _clone_anew, _start_anew, _move_the_head,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("way", WAYS)
def test_the_work_comes_home_whole(tmp_path: Path, way: str, change: Callable[[Host], None]) -> None:
    session = WAYS[way].begin(tmp_path)
    facts = session.host.facts()
    change(WAYS[way].user(session))
    assert session.save().pushed
    tip = WAYS[way].bring(session, facts)
    require_home(WAYS[way], session, tip)


@pytest.mark.parametrize("what", ["work", "tree", "commit"])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_lost_of_it_at_home_comes_again(tmp_path: Path, way: str, what: str) -> None:
    """Such as before a `remove`, with which the relay goes."""
    session = WAYS[way].begin(tmp_path)
    facts = session.host.facts()
    assert session.save().pushed
    tip = WAYS[way].bring(session, facts)
    user = WAYS[way].user(session)
    revision = {"work": f"{tip}:work", "tree": f"{tip}^{{tree}}", "commit": f"{tip}~1"}[what]
    lost = user.git("rev-parse", revision).strip()
    _loose(user, lost).unlink()
    assert WAYS[way].bring(session, facts) == tip
    require_home(WAYS[way], session, tip)


def test_work_that_came_home_before_is_followed_after_a_gc(tmp_path: Path) -> None:
    session = WAYS["branch"].begin(tmp_path)
    assert session.save().pushed
    first = session.bring()
    session.host.git("gc", "--quiet", "--prune=now")
    (session.work / "third").write_text("more\n")
    assert session.save().pushed
    second = session.bring(expected_old=first.tip)
    assert (second.where, second.tip != first.tip) == (Landing.BRANCH, True)
    assert tree_of(session.host, str(second.tip)) == files_of(session)


def test_a_repository_that_is_gone_is_an_error_and_the_work_stays(tmp_path: Path) -> None:
    session = WAYS["branch"].begin(tmp_path)
    facts = session.host.facts()
    away = session.host.work.rename(tmp_path / "away")
    assert session.save().pushed

    def bring() -> Integrated:
        return integrate(facts, session.relay, session=SESSION, expected_old=None, env=session.host.env)

    with pytest.raises(WorkspaceError, match="is gone"):
        bring()
    away.rename(session.host.work)
    assert bring().where is Landing.BRANCH


@pytest.mark.parametrize("way", WAYS)
def test_what_is_whole_is_copied_once(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it again only where a check finds something missing."""
    session = WAYS[way].begin(tmp_path)
    assert session.save().pushed
    copies: list[object] = []
    copy = packs.copy_closure

    def counting(*args: object, **options: object) -> None:
        copies.append(options)
        copy(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(packs, "copy_closure", counting)
    for _ in range(2):
        WAYS[way].bring(session, session.host.facts())
        assert len(copies) == 1
