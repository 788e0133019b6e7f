"""Discovery, base store, integration and branches on real repositories."""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from coding_agents.errors import BareRepositoryError, BranchError, GitError, NotARepositoryError
from coding_agents.gitsync.base import BaseStore, give, open_base
from coding_agents.gitsync.branches import (
    archive_existing,
    branch_names,
    branch_state,
    delete_branch,
    is_merged,
)
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.integrate import INCOMING, Integrated, Landing, integrate, keep_incoming
from coding_agents.gitsync.packs import copy_closure, user_store
from coding_agents.gitsync.relay_repo import BASE, Relay, create_relay
from coding_agents.gitsync.summary import Summary, summarize
from coding_agents.model.refs import Branch, Oid
from coding_agents.model.repo import Identity, RepoFacts, RepoKind
from support.repos import BRANCH, SESSION, commit, git_env, head, make_repo, sh, sh_fails

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return git_env(tmp_path / "home")


@pytest.fixture
def repo(tmp_path: Path, env: dict[str, str]) -> Path:
    return make_repo(tmp_path / "app", env=env)


# --- discovery ------------------------------------------------------------------------------------------


def test_facts_of_an_ordinary_repository(repo: Path, env: dict[str, str]) -> None:
    sh(repo, "remote", "add", "origin", "https://ada:token@h.test/app.git", env=env)
    (repo / "sub").mkdir()
    facts = discover(repo / "sub", env=env)
    assert facts == discover(repo, env=env)
    assert (facts.kind, facts.name, facts.work_tree) == (RepoKind.PATH, "app", repo)
    assert (facts.git_dir, facts.common_dir) == (repo / ".git", repo / ".git")
    assert (facts.head, facts.branch) == (head(repo, env=env), "main")
    assert facts.origin_url == "https://h.test/app.git"
    assert "token" not in repr(facts)
    assert facts.identity == Identity("Ada", "ada@example.test")
    assert facts.owner_uid == os.geteuid()
    assert facts.object_format == "sha1"
    assert len(facts.repo_id) == 12


def test_detached_unborn_and_sha256(tmp_path: Path, repo: Path, env: dict[str, str]) -> None:
    sh(repo, "checkout", "-q", "--detach", env=env)
    assert discover(repo, env=env).branch is None
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    sh(fresh, "init", "-q", "--object-format=sha256", "-b", "trunk", env=env)
    facts = discover(fresh, env=env)
    assert (facts.head, facts.branch, facts.object_format) == (None, "trunk", "sha256")


def test_a_linked_work_tree_is_the_same_repository(tmp_path: Path, repo: Path, env: dict[str, str]) -> None:
    sh(repo, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"), env=env)
    main, side = discover(repo, env=env), discover(tmp_path / "side", env=env)
    assert side.repo_id == main.repo_id
    assert side.name == "app"
    assert side.git_dir != side.common_dir == main.common_dir
    assert side.branch == "side"


def test_a_repository_without_an_identity(repo: Path, env: dict[str, str]) -> None:
    (Path(env["HOME"]) / ".gitconfig").unlink()
    assert discover(repo, env=env).identity is None


def test_the_users_own_global_file_counts(tmp_path: Path, repo: Path, env: dict[str, str]) -> None:
    (tmp_path / "other.conf").write_text("[user]\n\tname = Bob\n\temail = bob@example.test\n")
    facts = discover(repo, env={**env, "GIT_CONFIG_GLOBAL": str(tmp_path / "other.conf")})
    assert facts.identity == Identity("Bob", "bob@example.test")


def test_not_a_repository(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(NotARepositoryError) as caught:
        discover(tmp_path, env=env)
    assert "--empty" in caught.value.hint
    with pytest.raises(NotARepositoryError):
        discover(tmp_path / "missing", env=env)


def test_bare_and_inside_git(tmp_path: Path, repo: Path, env: dict[str, str]) -> None:
    sh(tmp_path, "init", "-q", "--bare", "bare.git", env=env)
    with pytest.raises(BareRepositoryError):
        discover(tmp_path / "bare.git", env=env)
    with pytest.raises(NotARepositoryError):
        discover(repo / ".git", env=env)


@as_root
def test_root_works_on_a_users_repository_as_that_user(tmp_path: Path, env: dict[str, str]) -> None:
    repo = make_repo(tmp_path / "theirs", env=env)
    _give_away(tmp_path, repo)
    facts = discover(repo, env=env)
    assert facts.owner_uid == 4242
    store = open_base(tmp_path / "data", facts, env=env)
    assert facts.head is not None
    give(store, facts, facts.head)
    relay = create_relay(
        tmp_path / "relay.git", base_store=store, branch=BRANCH, base=facts.head, base_branch="main"
    )
    work = _work_in(relay, env, tmp_path / "guest")
    assert integrate(facts, relay, session=SESSION, expected_old=None, env=env).where is Landing.BRANCH
    foreign = [path for path in repo.rglob("*") if path.lstat().st_uid != 4242]
    assert foreign == []
    assert sh(repo, "-c", "safe.directory=*", "rev-parse", BRANCH.ref, env=env) == work


@as_root
def test_a_repository_that_git_does_not_trust_is_refused(tmp_path: Path, env: dict[str, str]) -> None:
    """The git directory is 4242's, but the work tree around it belongs to somebody else."""
    repo = make_repo(tmp_path / "theirs", env=env)
    _give_away(tmp_path, repo)
    os.chown(repo, 4243, 4243)
    with pytest.raises(GitError) as caught:
        discover(repo, env=env)
    assert "does not trust" in caught.value.message
    assert "safe.directory" in caught.value.hint


def _give_away(tmp_path: Path, repo: Path) -> None:
    for path in (repo, *repo.rglob("*")):
        os.lchown(path, 4242, 4242)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_mode & 0o011 != 0o011 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)


# --- base store -----------------------------------------------------------------------------------------


def objects(git_dir: Path, env: dict[str, str]) -> set[str]:
    listing = sh(
        git_dir, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)", "--unordered", env=env
    )
    return set(listing.split())


def test_the_base_store_holds_exactly_what_was_given(tmp_path: Path, repo: Path, env: dict[str, str]) -> None:
    first = head(repo, env=env)
    sh(repo, "checkout", "-qb", "private", env=env)
    commit(repo, "secret", "x\n", env=env)
    sh(repo, "tag", "v1", env=env)
    sh(repo, "checkout", "-q", "main", env=env)
    second = commit(repo, "more", "y\n", env=env)
    facts = discover(repo, env=env)
    store = open_base(tmp_path / "data", facts, env=env)
    for oid in (first, second, second):
        give(store, facts, oid)
    closure = set(sh(repo, "rev-list", "--objects", "--no-object-names", second, env=env).split())
    assert objects(store.git_dir, env) == closure
    assert set(store.store.refs()) == {f"refs/given/{first}", f"refs/given/{second}"}
    assert store.git_dir.stat().st_mode & 0o077 == 0


def test_the_second_gift_brings_only_what_is_new(tmp_path: Path, repo: Path, env: dict[str, str]) -> None:
    facts = discover(repo, env=env)
    store = open_base(tmp_path / "data", facts, env=env)
    give(store, facts, head(repo, env=env))
    before = set((store.git_dir / "objects/pack").glob("*.idx"))
    give(store, facts, commit(repo, "more", "y\n", env=env))
    (added,) = set((store.git_dir / "objects/pack").glob("*.idx")) - before
    # commit, tree and blob; --fix-thin may add a delta base
    assert 3 <= len(_pack_objects(added)) <= 4


def _pack_objects(index: Path) -> list[str]:
    listing = subprocess.run(["git", "verify-pack", "-v", index], capture_output=True, text=True, check=True)
    return [
        line
        for line in listing.stdout.splitlines()
        if " commit " in line or " tree " in line or " blob " in line
    ]


def test_a_commit_that_is_not_there_is_an_error_and_leaves_no_ref(
    tmp_path: Path, repo: Path, env: dict[str, str]
) -> None:
    facts = discover(repo, env=env)
    store = open_base(tmp_path / "data", facts, env=env)
    with pytest.raises(GitError):
        give(store, facts, Oid("a" * 40))
    assert store.store.refs() == {}


def test_losing_the_source_does_not_hurt_the_base(tmp_path: Path, repo: Path, env: dict[str, str]) -> None:
    sh(repo, "checkout", "-qb", "short-lived", env=env)
    oid = commit(repo, "x", "x\n", env=env)
    facts = discover(repo, env=env)
    store = open_base(tmp_path / "data", facts, env=env)
    give(store, facts, oid)
    sh(repo, "checkout", "-q", "main", env=env)
    sh(repo, "branch", "-qD", "short-lived", env=env)
    sh(repo, "-c", "gc.reflogExpire=now", "reflog", "expire", "--expire=now", "--all", env=env)
    sh(repo, "gc", "-q", "--prune=now", env=env)
    sh_fails(repo, "cat-file", "-e", oid, env=env)
    store.store.git("fsck", "--connectivity-only", oid)
    give(store, facts, head(repo, env=env))  # what the source lost is no reason to fail


def test_a_shallow_repository_stays_shallow_all_the_way(
    tmp_path: Path, repo: Path, env: dict[str, str]
) -> None:
    for number in range(3):
        commit(repo, "README", f"{number}\n", env=env)
    sh(tmp_path, "clone", "-q", "--depth=2", f"file://{repo}", "shallow", env=env)
    facts = discover(tmp_path / "shallow", env=env)
    relay = _relay(tmp_path, facts, env)
    assert facts.head is not None
    assert int(relay.store.git("rev-list", "--count", facts.head).text()) == 2
    work = _work_in(relay, env, tmp_path / "guest")
    assert integrate(facts, relay, session=SESSION, expected_old=None, env=env).tip == work
    assert sh(tmp_path / "shallow", "rev-list", "--count", BRANCH.ref, env=env) == "3"


def test_concurrent_gifts(tmp_path: Path, repo: Path, env: dict[str, str]) -> None:
    oids = [commit(repo, "README", f"{number}\n", env=env) for number in range(4)]
    facts = discover(repo, env=env)
    threads = [
        threading.Thread(
            target=lambda oid=oid: give(open_base(tmp_path / "data", facts, env=env), facts, oid)
        )
        for oid in oids
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(open_base(tmp_path / "data", facts, env=env).store.refs().values()) == set(oids)


# --- relay repository -----------------------------------------------------------------------------------


def test_a_relay_appears_whole_and_is_made_once(tmp_path: Path, repo: Path, env: dict[str, str]) -> None:
    facts = discover(repo, env=env)
    relay = _relay(tmp_path, facts, env)
    refs = relay.store.refs()
    assert set(refs) == {BRANCH.ref, "refs/heads/main", BASE}
    assert set(refs.values()) == {facts.head}
    config = (relay.git_dir / "config").read_text()
    assert _relay(tmp_path, facts, env) == relay
    assert (relay.git_dir / "config").read_text() == config
    assert not relay.git_dir.with_name("relay.git.new").exists()


def test_a_base_branch_that_collides_is_not_shown(tmp_path: Path, repo: Path, env: dict[str, str]) -> None:
    sh(repo, "branch", "-m", "demo", env=env)
    facts = discover(repo, env=env)
    relay = _relay(tmp_path, facts, env)
    assert set(relay.store.refs("refs/heads")) == {BRANCH.ref}


# --- integration ----------------------------------------------------------------------------------------


@dataclass
class Session:
    repo: Path
    facts: RepoFacts
    relay: Relay
    work: Oid
    env: dict[str, str]
    tmp: Path

    def integrate(self, expected_old: Oid | None = None, tip: Oid | None = None) -> Integrated:
        return integrate(
            self.facts, self.relay, session=SESSION, expected_old=expected_old, env=self.env, tip=tip
        )


def _relay(tmp_path: Path, facts: RepoFacts, env: dict[str, str]) -> Relay:
    store: BaseStore = open_base(tmp_path / "data", facts, env=env)
    if facts.head is not None:
        give(store, facts, facts.head)
    return create_relay(
        tmp_path / "relay.git", base_store=store, branch=BRANCH, base=facts.head, base_branch=facts.branch
    )


def _work_in(relay: Relay, env: dict[str, str], guest: Path, *, text: str = "done\n") -> Oid:
    """Put a commit on the session's branch of the relay, as a push does."""
    if not guest.exists():
        sh(relay.git_dir.parent, "clone", "-q", str(relay.git_dir), str(guest), env=env)
        sh(guest, "checkout", "-qB", BRANCH.short, env=env)
    new = commit(guest, "work", text, env=env, append=True)
    sh(guest, "push", "-q", "origin", f"HEAD:{BRANCH.ref}", env=env)
    return new


@pytest.fixture
def session(tmp_path: Path, repo: Path, env: dict[str, str]) -> Session:
    facts = discover(repo, env=env)
    relay = _relay(tmp_path, facts, env)
    work = _work_in(relay, env, tmp_path / "guest")
    return Session(repo, facts, relay, work, env, tmp_path)


def test_work_lands_on_its_branch_and_goes_on(session: Session) -> None:
    first = session.integrate()
    assert (first.where, first.ref, first.tip) == (Landing.BRANCH, BRANCH.ref, session.work)
    second = _work_in(session.relay, session.env, session.tmp / "guest", text="more\n")
    result = session.integrate(expected_old=session.work)
    assert (result.where, result.tip) == (Landing.BRANCH, second)
    assert head(session.repo, BRANCH.ref, env=session.env) == second
    assert sh(session.repo, "for-each-ref", INCOMING, env=session.env) == ""
    assert sh(session.repo, "status", "--porcelain", env=session.env) == ""
    sh(session.repo, "fsck", "--strict", env=session.env)


def test_integrating_twice_changes_nothing(session: Session) -> None:
    session.integrate()
    assert session.integrate(expected_old=None).where is Landing.BRANCH


def test_a_rewritten_branch_is_followed(session: Session) -> None:
    session.integrate()
    guest = session.tmp / "guest"
    sh(guest, "commit", "-q", "--amend", "-m", "other", env=session.env)
    sh(guest, "push", "-qf", "origin", f"HEAD:{BRANCH.ref}", env=session.env)
    result = session.integrate(expected_old=session.work)
    assert (result.where, result.tip) == (Landing.BRANCH, head(guest, env=session.env))


def test_no_work_makes_no_branch(tmp_path: Path, repo: Path, env: dict[str, str]) -> None:
    facts = discover(repo, env=env)
    relay = _relay(tmp_path, facts, env)
    result = integrate(facts, relay, session=SESSION, expected_old=None, env=env)
    assert (result.where, result.ref, result.tip) == (Landing.NOTHING, "", None)
    assert sh(repo, "for-each-ref", "--format=%(refname)", env=env) == "refs/heads/main"


def test_work_on_an_unborn_branch_comes_back(tmp_path: Path, env: dict[str, str]) -> None:
    repo = tmp_path / "fresh"
    repo.mkdir()
    sh(repo, "init", "-q", env=env)
    facts = discover(repo, env=env)
    relay = _relay(tmp_path, facts, env)
    guest = make_repo(tmp_path / "guest", env=env)
    sh(guest, "push", "-q", str(relay.git_dir), f"HEAD:{BRANCH.ref}", env=env)
    assert integrate(facts, relay, session=SESSION, expected_old=None, env=env).where is Landing.BRANCH
    assert branch_names(facts, env=env) == (BRANCH.short,)


def stays_incoming(session: Session, reason: str, expected_old: Oid | None = None) -> None:
    before = sh(session.repo, "for-each-ref", "refs/heads", env=session.env)
    result = session.integrate(expected_old)
    assert result.where is Landing.INCOMING
    assert reason in result.reason
    assert head(session.repo, f"{INCOMING}/{SESSION}", env=session.env) == session.work
    assert sh(session.repo, "for-each-ref", "refs/heads", env=session.env) == before


def test_a_branch_that_someone_else_made_is_left_alone(session: Session) -> None:
    sh(session.repo, "branch", BRANCH.short, env=session.env)
    stays_incoming(session, "changed by someone else")


def test_a_branch_that_someone_else_moved_is_left_alone(session: Session) -> None:
    sh(session.repo, "branch", BRANCH.short, "HEAD~1", env=session.env)
    stays_incoming(session, "changed by someone else", expected_old=session.facts.head)


def test_a_branch_that_someone_else_deleted_is_not_made_again(session: Session) -> None:
    stays_incoming(session, "deleted by someone else", expected_old=session.facts.head)


@pytest.mark.parametrize("linked", [False, True])
def test_a_checked_out_branch_is_left_alone(session: Session, linked: bool) -> None:
    if linked:
        side = session.tmp / "side"
        sh(session.repo, "worktree", "add", "-q", "-b", BRANCH.short, str(side), env=session.env)
    else:
        sh(session.repo, "checkout", "-qb", BRANCH.short, env=session.env)
    stays_incoming(session, "checked out", expected_old=session.facts.head)


def test_a_locked_branch_is_left_alone(session: Session) -> None:
    lock = session.repo / ".git" / f"{BRANCH.ref}.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    stays_incoming(session, "cannot be written")


@pytest.mark.parametrize("other", ["demo", "demo/work/deeper"])
def test_a_colliding_branch_is_left_alone(session: Session, other: str) -> None:
    sh(session.repo, "branch", other, env=session.env)
    stays_incoming(session, f"cannot exist beside the branch {other}")


def test_where_case_does_not_count_another_case_collides(session: Session) -> None:
    sh(session.repo, "config", "core.ignoreCase", "true", env=session.env)
    sh(session.repo, "branch", "Demo/Work", env=session.env)
    stays_incoming(session, "Demo/Work")


def test_a_packed_repository_and_hidden_base_objects(session: Session) -> None:
    sh(session.repo, "gc", "-q", env=session.env)
    assert session.integrate().where is Landing.BRANCH


def test_incomplete_work_is_an_error_and_moves_no_branch(session: Session) -> None:
    relay = session.relay.git_dir
    tree = sh(relay, "mktree", "--missing", env=session.env, stdin=f"100644 blob {'a' * 40}\tx\n")
    broken = Oid(sh(relay, "commit-tree", "-m", "x", tree, env=session.env))
    before = sh(session.repo, "for-each-ref", env=session.env)
    with pytest.raises(GitError):
        session.integrate(tip=broken)
    assert sh(session.repo, "for-each-ref", env=session.env) == before


def test_a_whole_history_is_brought_where_the_base_is_missing(session: Session) -> None:
    other = make_repo(session.tmp / "other", env=session.env, commits=1)
    facts = discover(other, env=session.env)
    result = integrate(facts, session.relay, session=SESSION, expected_old=None, env=session.env)
    assert result.where is Landing.BRANCH
    sh(other, "fsck", "--strict", env=session.env)


def test_what_was_kept_under_incoming_is_never_overwritten(session: Session) -> None:
    tip = session.relay.store.resolve(session.relay.branch.ref)
    assert tip is not None
    assert session.relay.base is not None
    kept = [
        keep_incoming(session.facts, session.relay, name="x", tip=oid, env=session.env)
        for oid in (session.relay.base, tip, tip)
    ]
    assert kept == [f"{INCOMING}/x", f"{INCOMING}/x-2", f"{INCOMING}/x-2"]
    assert sh(session.repo, "rev-parse", f"{INCOMING}/x", env=session.env) == session.relay.base


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("s-branches/feature/x", "s-branches/feature", "s-branches/feature-2"),
        ("s-branches/feature", "s-branches/feature/x", "s-branches-2/feature/x"),
        ("s-branches/Feature", "s-branches/feature", "s-branches/feature-2"),
    ],
)
def test_what_was_kept_under_incoming_is_in_nobodys_way(
    session: Session, first: str, second: str, expected: str
) -> None:
    """Two refs of which one is a directory of the other cannot both exist, on some disks nor can `a` and `A`."""
    base, work = session.relay.base, session.work
    assert base is not None
    kept = [
        keep_incoming(session.facts, session.relay, name=name, tip=oid, env=session.env)
        for name, oid in ((first, base), (second, work), (second, work), (first, base))
    ]
    assert kept == [f"{INCOMING}/{name}" for name in (first, expected, expected, first)]


def test_a_ref_name_may_hold_what_other_programs_take_for_a_line_end(session: Session) -> None:
    name = "refs/heads/a\u2028b"
    sh(session.repo, "update-ref", name, "HEAD", env=session.env)
    assert name in user_store(session.facts, session.env).refs("refs/heads/")


# --- branches -------------------------------------------------------------------------------------------


def test_branch_state(session: Session) -> None:
    base = session.facts.head
    state = branch_state(session.facts, BRANCH, base=base, env=session.env)
    assert (state.tip, state.checked_out, state.unmerged, state.collides_with) == (None, None, 0, "")
    session.integrate()
    state = branch_state(session.facts, BRANCH, base=base, env=session.env)
    assert (state.tip, state.unmerged) == (session.work, 1)
    assert branch_state(session.facts, BRANCH, base=None, env=session.env).unmerged == 3
    sh(session.repo, "checkout", "-q", BRANCH.short, env=session.env)
    assert branch_state(session.facts, BRANCH, base=base, env=session.env).checked_out == session.repo
    deeper = Branch.parse("work/deeper", agent="demo")
    assert branch_state(session.facts, deeper, base=base, env=session.env).collides_with == BRANCH.short


def test_archiving_keeps_the_commits_under_a_dated_name(session: Session) -> None:
    now_ms = 1_795_000_000_000
    session.integrate()
    name = archive_existing(session.facts, BRANCH, now_ms=now_ms, env=session.env)
    assert name == "demo/work-archived-20261118-110640"
    assert branch_names(session.facts, env=session.env) == (name, "main")
    assert head(session.repo, name, env=session.env) == session.work
    sh(session.repo, "branch", BRANCH.short, env=session.env)
    assert archive_existing(session.facts, BRANCH, now_ms=now_ms, env=session.env) == f"{name}-2"
    with pytest.raises(BranchError):
        archive_existing(session.facts, BRANCH, now_ms=now_ms, env=session.env)


def test_a_checked_out_branch_is_not_archived(session: Session) -> None:
    sh(session.repo, "checkout", "-qb", BRANCH.short, env=session.env)
    with pytest.raises(BranchError) as caught:
        archive_existing(session.facts, BRANCH, now_ms=0, env=session.env)
    assert "checked out" in caught.value.message


def test_merged_or_not(session: Session) -> None:
    assert is_merged(session.facts, BRANCH, env=session.env)
    session.integrate()
    assert not is_merged(session.facts, BRANCH, env=session.env)
    sh(session.repo, "merge", "-q", "--ff-only", BRANCH.short, env=session.env)
    assert is_merged(session.facts, BRANCH, env=session.env)


def test_deleting_a_branch_is_bound_to_what_was_seen(session: Session) -> None:
    session.integrate()
    assert session.facts.head is not None
    assert not delete_branch(session.facts, BRANCH, expected=session.facts.head, env=session.env)
    sh(session.repo, "checkout", "-q", BRANCH.short, env=session.env)
    assert not delete_branch(session.facts, BRANCH, expected=session.work, env=session.env)
    sh(session.repo, "checkout", "-q", "main", env=session.env)
    assert delete_branch(session.facts, BRANCH, expected=session.work, env=session.env)
    assert branch_names(session.facts, env=session.env) == ("main",)


# --- summary --------------------------------------------------------------------------------------------


def test_a_summary_counts(repo: Path, env: dict[str, str]) -> None:
    base = head(repo, env=env)
    commit(repo, "README", "only line\n", env=env)
    (repo / "odd\nname").write_text("x\n")
    (repo / "data.bin").write_bytes(bytes(11 << 20))
    sh(repo, "add", "-A", env=env)
    sh(repo, "commit", "-qm", "rest", env=env)
    summary = summarize(user_store(discover(repo, env=env), env), base=base, tip=head(repo, env=env))
    assert summary == Summary(commits=2, files=3, insertions=2, deletions=2)


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_a_summary_of_everything(tmp_path: Path, env: dict[str, str], object_format: str) -> None:
    repo = tmp_path / "r"
    repo.mkdir()
    sh(repo, "init", "-q", f"--object-format={object_format}", env=env)
    tip = commit(repo, "a", "1\n2\n", env=env)
    summary = summarize(user_store(discover(repo, env=env), env), base=None, tip=tip)
    assert (summary.commits, summary.files, summary.insertions, summary.deletions) == (1, 1, 2, 0)


def test_packs_move_between_stores(tmp_path: Path, repo: Path, env: dict[str, str]) -> None:
    target = make_repo(tmp_path / "target", env=env, commits=1)
    source_store = user_store(discover(repo, env=env), env)
    target_store = user_store(discover(target, env=env), env)
    copy_closure(source_store, target_store, tips=[head(repo, env=env)])
    assert target_store.present([head(repo, env=env), Oid("a" * 40)]) == [head(repo, env=env)]


def test_the_lines_of_a_large_file_are_not_counted(repo: Path, env: dict[str, str]) -> None:
    """Forty bytes of memory for each line that a kilobyte of a pack can hold a million of."""
    base = head(repo, env=env)
    commit(repo, "lines", "\n" * (9 << 20), env=env)
    summary = summarize(user_store(discover(repo, env=env), env), base=base, tip=head(repo, env=env))
    assert (summary.files, summary.insertions) == (1, 0)
