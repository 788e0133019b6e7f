"""Large files (Git LFS): their content goes in and comes home, and nothing else comes with it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from coding_agents.errors import StoreError
from coding_agents.gitsync import lfs as gitsync_lfs
from coding_agents.gitsync.lfs import Brought
from coding_agents.gitsync.relay_limits import DEFAULT_LIMITS, RelayLimits
from coding_agents.gitsync.relay_repo import Identity
from coding_agents_guest import lfs as guest_lfs
from coding_agents_guest import lfspointer
from coding_agents_guest.autosave import Memory, autosave
from coding_agents_guest.events import Autosave, Autosaved, Salvaged, Saved
from coding_agents_guest.lfspointer import LFS, LFS_HOME, Pointer, parse_pointer, piece_name, render_pointer
from coding_agents_guest.place import Place
from coding_agents_guest.salvage import salvage
from coding_agents_guest.save import save
from support.kinds import LFS as LFS_SETTINGS
from support.kinds import add_submodule, lfs, lfs_changed, lfs_pointers, plain
from support.relay_server import serving
from support.repos import sh, sh_fails
from support.roundtrip import Session, begin, tree_of

NEW = b"\0new content\n" * 100


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return begin(lfs(tmp_path))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> int:
    """Pieces of one kilobyte, so that many make one file."""
    for module in (lfspointer, guest_lfs):
        monkeypatch.setattr(module, "PIECE", 1000)
    monkeypatch.setattr(guest_lfs, "_BATCH_BYTES", 4000)
    return 1000


def oid_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def place_of(lfs_dir: Path, oid: str) -> Path:
    return lfs_dir / "objects" / oid[:2] / oid[2:4] / oid


def at_home(session: Session, content: bytes) -> bool:
    place = place_of(session.host.work / ".git/lfs", oid_of(content))
    return place.is_file() and place.read_bytes() == content


def served(
    session: Session,
    what: Callable[[], object],
    *,
    identity: Identity = Identity.AGENT,
    limits: RelayLimits = DEFAULT_LIMITS,
) -> object:
    with serving(session.relay, session.home / "relay", identity=identity, limits=limits) as server:
        (session.home / ".gitconfig").write_text(f"[core]\n\tgitProxy = {server.proxy}\n")
        return what()


def inner_with_lfs(session: Session) -> Path:
    """A repository inside, with LFS."""
    inner = session.work / "inner"
    inner.mkdir()
    session.git("init", "--quiet", cwd=inner)
    for setting, value in (("clean", "git-lfs clean -- %f"), ("process", "git-lfs filter-process")):
        session.git("config", f"filter.lfs.{setting}", value, cwd=inner)
    (inner / ".gitattributes").write_text("*.bin filter=lfs -text\n")
    return inner


def saved(session: Session, **options: RelayLimits) -> Saved:
    deadline = time.monotonic() + 60
    report = served(session, lambda: save(session.config, session.place, deadline=deadline), **options)
    assert isinstance(report, Saved)
    return report


class _SalvagePlace(Place):
    """A salvage container has no configuration of the agent's: git's proxy stands in /etc/gitconfig there."""

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "GIT_PROXY_COMMAND": str(self.home / "relay/git-relay")}


def salvaged(session: Session, **options: RelayLimits) -> Salvaged:
    deadline, place = (
        time.monotonic() + 60,
        _SalvagePlace(session.work, session.home, path=session.place.path),
    )
    report = served(
        session, lambda: salvage(session.config, place, deadline), identity=Identity.SALVAGE, **options
    )
    assert isinstance(report, Salvaged), report
    return report


def offer(session: Session, pieces: dict[str, bytes], *, mode: str = "100644") -> None:
    """What a hostile guest can push."""
    entries = []
    for name, content in pieces.items():
        blob = subprocess.run(
            ["git", "hash-object", "-w", "--stdin"], cwd=session.relay.git_dir, env=session.host.env,
            input=content, capture_output=True, check=True,
        ).stdout.decode().strip()  # fmt: skip
        entries.append(f"{mode} blob {blob}\t{name}")
    tree = sh(session.relay.git_dir, "mktree", env=session.host.env, stdin="\n".join(entries) + "\n")
    sh(session.relay.git_dir, "update-ref", f"{LFS}{tree}", tree, env=session.host.env)


def name(session: Session, *contents: Pointer | bytes) -> None:
    """Let a commit of the session's branch name these large files."""
    for number, content in enumerate(contents):
        pointer = content if isinstance(content, Pointer) else Pointer(oid_of(content), len(content))
        (session.work / f"p{number}").write_bytes(render_pointer(pointer))
    session.git("add", ".")
    session.git("-c", "user.name=A", "-c", "user.email=a@example.test", "commit", "--quiet", "-m", "pointers")
    sh(session.relay.git_dir, "fetch", "--quiet", str(session.work), f"+HEAD:{session.relay.branch.ref}",
       env=session.host.env)  # fmt: skip


# --- in ---------------------------------------------------------------------------------------------------------


def test_git_lfs_checks_out_inside_without_a_server(session: Session) -> None:
    for command in (("checkout", "--", "large.bin"), ("reset", "--quiet", "--hard")):
        (session.work / "large.bin").unlink()
        session.git(*command)
        assert (session.work / "large.bin").read_bytes() == b"large\n"
    (session.work / "large.bin").write_bytes(NEW)
    session.git("stash", "--quiet")
    assert (session.work / "large.bin").read_bytes() == b"large\n"
    session.git("stash", "pop", "--quiet")
    assert (session.work / "large.bin").read_bytes() == NEW


def test_what_is_staged_can_be_restored_inside(tmp_path: Path) -> None:
    session = begin(lfs_changed(tmp_path))
    (session.work / "staged.bin").unlink()
    session.git("checkout", "--", "staged.bin")
    assert (session.work / "staged.bin").read_bytes() == b"staged by the user\n"
    session.git("checkout", "HEAD", "--", "large.bin")
    assert (session.work / "large.bin").read_bytes() == b"large\n"


@pytest.mark.parametrize("storage", ["elsewhere", "absolute"])
def test_the_users_own_storage_is_read_and_written(tmp_path: Path, storage: str) -> None:
    host = lfs(tmp_path)
    place = tmp_path / "storage" if storage == "absolute" else host.work / ".git" / storage
    (host.work / ".git/lfs").rename(place)
    host.git("config", "lfs.storage", str(place) if storage == "absolute" else storage)
    session = begin(host)
    assert place_of(session.work / ".git/lfs", oid_of(b"large\n")).read_bytes() == b"large\n"
    (session.work / "new.bin").write_bytes(NEW)
    assert saved(session).pushed
    session.bring()
    assert place_of(place, oid_of(NEW)).read_bytes() == NEW
    assert not (host.work / ".git/lfs/objects").exists()


def test_what_head_does_not_name_does_not_go_in(tmp_path: Path) -> None:
    host = lfs(tmp_path)
    host.git("checkout", "--quiet", "-b", "other")
    host.commit(**{"secret.bin": "of another branch\n"})
    host.git("checkout", "--quiet", "main")
    session = begin(host)
    inside = {path.name for path in (session.work / ".git/lfs/objects").rglob("*") if path.is_file()}
    assert inside == {oid_of(b"large\n"), oid_of(b"other\n")}


def test_no_link_is_followed_to_what_goes_in(tmp_path: Path) -> None:
    host = lfs(tmp_path)
    place = place_of(host.work / ".git/lfs", oid_of(b"large\n"))
    (tmp_path / "secret").write_bytes(b"secre\n")
    place.unlink()
    place.symlink_to(tmp_path / "secret")
    session = begin(host)
    assert not place_of(session.work / ".git/lfs", oid_of(b"large\n")).exists()


def test_a_repository_without_lfs_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coding_agents.workspace.lfs.git", _never)
    monkeypatch.setattr(guest_lfs, "named_pointers", _never)
    monkeypatch.setattr(gitsync_lfs, "find_lfs_store", _never)
    session = begin(plain(tmp_path))
    (session.work / "large.bin").write_bytes(NEW)
    assert saved(session).pushed
    session.bring()
    assert not (session.host.work / ".git/lfs").exists()


def _never(*_: object, **__: object) -> None:
    raise AssertionError("called for a repository without LFS")


# --- home -------------------------------------------------------------------------------------------------------


def test_committed_and_uncommitted_large_files_come_home(session: Session) -> None:
    (session.work / "new.bin").write_bytes(NEW)
    session.git("add", ".")
    session.git("commit", "--quiet", "-m", "new")
    (session.work / "large.bin").write_bytes(b"changed\n")
    assert saved(session).pushed
    landed = session.bring()
    assert at_home(session, NEW)
    assert at_home(session, b"changed\n")
    files = tree_of(session.host, str(landed.tip))
    assert parse_pointer(files["new.bin"][1]) == Pointer(oid_of(NEW), len(NEW))
    # The user can check it out with nothing else at hand.
    session.host.git("checkout", "--quiet", str(landed.tip))
    assert (session.host.work / "new.bin").read_bytes() == NEW
    assert session.host.git("lfs", "fsck") == "Git LFS fsck OK"
    mode = place_of(session.host.work / ".git/lfs", oid_of(NEW)).stat().st_mode & 0o777
    assert mode == place_of(session.host.work / ".git/lfs", oid_of(b"large\n")).stat().st_mode & 0o777


def test_salvage_brings_pointers_and_contents_without_any_filter(session: Session) -> None:
    (session.work / "committed.bin").write_bytes(NEW)
    session.git("add", ".")
    session.git("commit", "--quiet", "-m", "new")
    (session.work / "odd\nname.bin").write_bytes(b"not added\n")
    (session.work / "run.bin").write_bytes(b"program\n")
    (session.work / "run.bin").chmod(0o755)
    (session.work / "plain").write_bytes(b"plain\n")
    report = salvaged(session)
    assert report.kept == ""
    session.bring_large()
    for content in (NEW, b"not added\n", b"program\n"):
        assert at_home(session, content)
    listed = sh(session.relay.git_dir, "ls-tree", "-r", "-z", report.worktree, env=session.host.env)
    assert "100755" in next(entry for entry in listed.split("\0") if entry.endswith("\trun.bin"))
    shown = sh(session.relay.git_dir, "show", f"{report.worktree}:odd\nname.bin", env=session.host.env)
    assert parse_pointer(shown.encode()) == Pointer(oid_of(b"not added\n"), 10)
    assert sh(session.relay.git_dir, "show", f"{report.worktree}:plain", env=session.host.env) == "plain"


def test_a_salvage_after_a_save_sends_nothing_again(session: Session) -> None:
    (session.work / "new.bin").write_bytes(NEW)
    assert saved(session).pushed
    session.bring()
    refs = session.relay.store.refs()
    report = salvaged(session)
    assert report.clean
    assert session.relay.store.refs(LFS) == {}
    assert session.relay.store.refs() == refs
    assert oid_of(NEW) in session.relay.store.git("cat-file", "blob", LFS_HOME).text()


def test_an_automatic_save_sends_them_ahead(session: Session) -> None:
    (session.work / "new.bin").write_bytes(NEW)
    deadline = time.monotonic() + 60
    answer = served(
        session, lambda: autosave(session.config, session.place, Autosave(False), Memory(), deadline)
    )
    assert answer[0].pushed, answer  # type: ignore[index]
    assert session.bring_large().added == (oid_of(NEW),)
    assert at_home(session, NEW)


@pytest.mark.parametrize("place", ["", "inner/"])
def test_an_automatic_save_goes_on_until_all_of_them_have_arrived(session: Session, place: str) -> None:
    memory = Memory()

    def save_now(**options: RelayLimits) -> Autosaved:
        nonlocal memory
        deadline = time.monotonic() + 60
        order = Autosave(False)
        act = partial(autosave, session.config, session.place, order, memory, deadline)
        report, memory = served(session, act, **options)  # type: ignore[misc]
        memory = Memory.decode(memory.encode())
        return report

    if place:
        inner_with_lfs(session)
    content = os.urandom(300_000)
    (session.work / place / "new.bin").write_bytes(content)
    little = RelayLimits(push_bytes=200_000)
    assert "large files" in save_now(limits=little).message
    (session.work / place / "other.txt").write_text("other\n")
    (session.work / "top.txt").write_text("top\n")
    assert "large files" in save_now(limits=little).message
    for _ in range(20):
        report = save_now()
        if report.pushed:
            break
    assert report.pushed
    session.bring_large()
    assert at_home(session, content)


def test_a_file_larger_than_a_piece_and_a_push_comes_home(session: Session, small_pieces: int) -> None:
    content = os.urandom(12 * small_pieces + 1)
    (session.work / "huge.bin").write_bytes(content)
    (session.work / "exact.bin").write_bytes(content[: 2 * small_pieces])
    assert saved(session).pushed
    assert len(session.relay.store.refs(LFS)) > 3
    session.bring()
    assert at_home(session, content)
    assert at_home(session, content[: 2 * small_pieces])
    assert session.relay.store.refs(LFS) == {}


def test_what_a_killed_save_left_is_removed(session: Session) -> None:
    leftover = session.work / ".git/coding-agents-lfs-killed"
    leftover.mkdir()
    (leftover / "half").write_bytes(NEW)
    (session.work / "new.bin").write_bytes(NEW)
    assert saved(session).pushed
    assert list((session.work / ".git").glob("coding-agents-*")) == []


def test_a_large_file_of_a_repository_inside_comes_home(session: Session) -> None:
    inner = inner_with_lfs(session)
    (inner / "in.bin").write_bytes(NEW)
    session.git("add", ".", cwd=inner)
    assert saved(session).pushed
    session.bring()
    assert at_home(session, NEW)


def test_large_files_of_a_submodule_go_in_and_come_home(tmp_path: Path) -> None:
    """Into its own git directory, and home into the storage of the repository around it."""
    host = plain(tmp_path)
    origin = lfs(tmp_path / "origin")
    inner = add_submodule(host, origin.work, "inner")
    host.configure(LFS_SETTINGS)
    inner.git("lfs", "pull")
    inner.write("large.bin", "large\n")
    inner.git("add", "large.bin")
    session = begin(host)
    there = session.work / ".git/modules/inner/lfs"
    assert place_of(there, oid_of(b"large\n")).read_bytes() == b"large\n"
    (session.work / "inner/large.bin").write_bytes(NEW)
    session.git("add", "large.bin", cwd=session.work / "inner")
    session.git("commit", "--quiet", "-m", "new", cwd=session.work / "inner")
    saved(session)
    session.bring()
    assert at_home(session, NEW)


@pytest.mark.parametrize("keep", [saved, salvaged])
def test_what_the_relay_does_not_take_is_named_and_nothing_else_is_lost(
    session: Session, keep: Callable[..., Saved | Salvaged]
) -> None:
    large = os.urandom(1 << 20)
    (session.work / "too.bin").write_bytes(large)
    (session.work / "small.bin").write_bytes(NEW)
    (session.work / "text").write_bytes(b"text\n")
    report = keep(session, limits=RelayLimits(push_bytes=200_000))
    if isinstance(report, Saved):
        assert not report.pushed
        told = report.message
    else:
        told = report.kept
    assert "too.bin" in told
    assert "relay.push" in told
    assert "small.bin" not in told
    session.bring_large()
    assert at_home(session, NEW)
    assert not at_home(session, large)


def test_pointers_without_content_cost_nothing(tmp_path: Path) -> None:
    session = begin(lfs_pointers(tmp_path))
    (session.work / "new").write_bytes(b"new\n")
    report = saved(session)
    assert (report.pushed, report.message) == (True, "")
    assert salvaged(session).kept == ""


def test_the_agent_cannot_say_what_is_home(session: Session) -> None:
    def push() -> str:
        (session.work / "list").write_text(f"{oid_of(NEW)}\n")
        blob = session.git("hash-object", "-w", "list")
        env = {**session.place.environment(), "GIT_CONFIG_NOSYSTEM": "1"}
        return sh_fails(session.work, "push", session.place.relay, f"{blob}:{LFS_HOME}", env=env)

    assert "only the session's branch" in str(served(session, push))
    assert session.relay.store.resolve(LFS_HOME) is None


def test_refs_of_large_files_are_held_to_the_budget_of_refs(session: Session, small_pieces: int) -> None:
    (session.work / "huge.bin").write_bytes(os.urandom(40 * small_pieces))
    report = saved(session, limits=RelayLimits(refs=3))
    assert not report.pushed
    assert "relay.refs" in report.message
    assert len(session.relay.store.refs(LFS)) <= 3


# --- attacks ----------------------------------------------------------------------------------------------------


def test_content_that_is_not_what_it_is_called_is_refused(session: Session) -> None:
    pointer = Pointer(oid_of(b"right\n"), 6)
    name(session, pointer, b"whole\n")
    offer(session, {piece_name(pointer.oid, 0): b"wrong\n", piece_name(oid_of(b"whole\n"), 0): b"whole\n"})
    assert session.bring_large() == Brought((oid_of(b"whole\n"),), (pointer.oid,))
    assert not place_of(session.host.work / ".git/lfs", pointer.oid).exists()
    assert list((session.host.work / ".git/lfs/tmp").iterdir()) == []


@pytest.mark.parametrize("size", [5, 7, 0, 10**17])
def test_a_pointer_with_another_size_gets_nothing(session: Session, size: int) -> None:
    name(session, Pointer(oid_of(b"right\n"), size))
    offer(session, {piece_name(oid_of(b"right\n"), 0): b"right\n"})
    assert session.bring_large().added == ()
    assert not at_home(session, b"right\n")


def test_what_no_commit_names_is_not_taken(session: Session) -> None:
    offer(session, {piece_name(oid_of(NEW), 0): NEW})
    assert session.bring_large() == Brought()
    assert not at_home(session, NEW)


def test_odd_names_links_and_other_types_are_passed_over(session: Session) -> None:
    name(session, NEW, b"linked\n")
    git_dir, env = session.relay.git_dir, session.host.env
    offer(session, {"x": b"x", f"{oid_of(NEW)}.1": NEW, f"{oid_of(NEW)[:-1]}\u0661.00000": NEW})
    offer(session, {piece_name(oid_of(b"linked\n"), 0): b"linked\n"}, mode="120000")
    commit = sh(git_dir, "rev-parse", session.relay.branch.ref, env=env)
    linked = sh(git_dir, "mktree", env=env, stdin=f"160000 commit {commit}\t{piece_name(oid_of(NEW), 0)}\n")
    blob = sh(git_dir, "hash-object", "-w", "--stdin", env=env, stdin="no tree")
    for number, oid in enumerate((linked, commit, blob)):
        sh(git_dir, "update-ref", f"{LFS}odd{number}", oid, env=env)
    assert session.bring_large() == Brought()
    offer(session, {piece_name(oid_of(NEW), 0): NEW})
    assert session.bring_large().added == (oid_of(NEW),)


def test_one_piece_named_again_and_again_fills_no_disk(session: Session, small_pieces: int) -> None:
    zeros = bytes(small_pieces)
    name(session, bytes(3000 * small_pieces), zeros)
    oid = oid_of(bytes(3000 * small_pieces))
    offer(
        session,
        {**{piece_name(oid, number): zeros for number in range(3000)}, piece_name(oid_of(zeros), 0): zeros},
    )
    brought = session.bring_large(most_bytes=2000 * small_pieces)
    assert brought == Brought((oid_of(zeros),), (), (oid,))


def fill(session: Session, number: int, *, most_bytes: int) -> Brought:
    """Name one more large file of 10,000 bytes where the last one was named, and offer it."""
    content = bytes([number]) * 10_000
    start = session.git("rev-parse", "HEAD")
    name(session, content)
    offer(session, {piece_name(oid_of(content), 0): content})
    brought = session.bring_large(most_bytes=most_bytes)
    session.git("reset", "--quiet", "--hard", start.strip())
    return brought


def test_what_is_no_longer_named_still_takes_its_place(session: Session) -> None:
    """Each rewritten ref let go of what it had named, so that each push brought as much again as a session may have."""
    brought = [fill(session, number, most_bytes=25_000) for number in range(5)]
    assert [(len(one.added), len(one.too_large)) for one in brought] == [(1, 0)] * 2 + [(0, 1)] * 3
    assert len(fill(session, 9, most_bytes=35_000).added) == 1  # a budget that was raised counts at once


def test_a_crash_before_a_large_file_is_home_counts_it_once(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("coding_agents.store.lfs.LfsStore.add", die)
        with pytest.raises(KeyboardInterrupt):
            fill(session, 1, most_bytes=25_000)
    notes = session.relay.git_dir / "large-files"
    with notes.open("ab") as file:
        file.write(b"\n" + b"0" * 30)  # of a line that was cut off
    content = bytes([1]) * 10_000
    assert session.bring_large(most_bytes=25_000).added == (oid_of(content),)
    assert len(fill(session, 2, most_bytes=25_000).added) == 1
    assert len(fill(session, 3, most_bytes=25_000).too_large) == 1


def test_what_cannot_be_counted_is_not_brought(session: Session) -> None:
    (session.relay.git_dir / "large-files").symlink_to("elsewhere")
    with pytest.raises(StoreError, match="large-files"):
        fill(session, 1, most_bytes=25_000)
    assert not at_home(session, bytes([1]) * 10_000)


def test_the_size_that_a_pointer_claims_does_not_count_for_another(session: Session) -> None:
    content = bytes([1]) * 10_000
    name(session, Pointer(oid_of(content), 1))
    offer(session, {piece_name(oid_of(content), 0): b"x"})
    assert session.bring_large(most_bytes=10_000).refused == (oid_of(content),)
    name(session, content)
    offer(session, {piece_name(oid_of(content), 0): content})
    assert session.bring_large(most_bytes=10_000).added == ()


def test_a_tree_with_more_names_than_are_read_ends(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    name(session, NEW)
    offer(session, {**{f"!{number:08d}": b"x" for number in range(200)}, piece_name(oid_of(NEW), 0): NEW})
    monkeypatch.setattr(gitsync_lfs, "MAX_ENTRIES", 100)
    assert session.bring_large() == Brought()
    monkeypatch.setattr(gitsync_lfs, "MAX_ENTRIES", 1000)
    assert session.bring_large().added == (oid_of(NEW),)


def test_what_is_there_already_is_neither_replaced_nor_taken_for_the_work(session: Session) -> None:
    name(session, NEW)
    place = place_of(session.host.work / ".git/lfs", oid_of(NEW))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"the user's, half written\n")
    offer(session, {piece_name(oid_of(NEW), 0): NEW})
    with pytest.raises(StoreError, match=f"{oid_of(NEW)} is there and is not what it is called"):
        session.bring_large()
    assert place.read_bytes() == b"the user's, half written\n"
    place.unlink()
    assert session.bring_large() == Brought((oid_of(NEW),))
    assert place.read_bytes() == NEW


@pytest.mark.parametrize("below", ["", "objects", "tmp", "objects/aa", "objects/aa/bb"])
def test_nothing_is_written_through_a_link(session: Session, tmp_path: Path, below: str) -> None:
    name(session, NEW)
    offer(session, {piece_name(oid_of(NEW), 0): NEW})
    aa, bb = oid_of(NEW)[:2], oid_of(NEW)[2:4]
    link = session.host.work / ".git/lfs" / below.replace("aa", aa).replace("bb", bb)
    outside = tmp_path / "outside"
    outside.mkdir()
    if link.exists():
        link.rename(tmp_path / "aside")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(StoreError, match="symbolic link"):
        session.bring_large()
    assert list(outside.iterdir()) == []


def test_a_planted_lfsconfig_moves_nothing(session: Session, tmp_path: Path) -> None:
    (session.work / ".lfsconfig").write_text(
        f"[lfs]\n\tstorage = {tmp_path / 'planted'}\n\turl = file://{tmp_path}\n"
    )
    (session.work / "new.bin").write_bytes(NEW)
    saved(session)
    session.bring()
    session.host.git("checkout", "--quiet", session.relay.branch.short)
    name(session, b"later\n")
    offer(session, {piece_name(oid_of(b"later\n"), 0): b"later\n"})
    session.bring_large()
    assert at_home(session, b"later\n")
    assert not (tmp_path / "planted").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_writes_for_the_owner_and_not_where_the_owner_may_not(session: Session, tmp_path: Path) -> None:
    name(session, NEW)
    offer(session, {piece_name(oid_of(NEW), 0): NEW})
    host = session.host
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & 0o011 != 0o011 and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    subprocess.run(["chown", "-R", "12345:12345", str(host.work)], check=True)
    session.bring_large()
    place = place_of(host.work / ".git/lfs", oid_of(NEW))
    for path in (place, place.parent, place.parent.parent):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12345)
    name(session, b"next\n")
    offer(session, {piece_name(oid_of(b"next\n"), 0): b"next\n"})
    (tmp_path / "roots").mkdir()
    with (host.work / ".git/config").open("a") as config:
        config.write(f"[lfs]\n\tstorage = {tmp_path / 'roots'}\n")
    with pytest.raises(StoreError, match="does not belong to the owner"):
        session.bring_large()
    assert list((tmp_path / "roots").iterdir()) == []
