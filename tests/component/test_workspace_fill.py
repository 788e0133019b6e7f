"""Clean means clean: inside, `git status` prints what it prints on the host. Real git on both sides."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coding_agents.errors import GitError, WorkspaceError
from coding_agents.model.refs import Oid
from coding_agents.workspace.fill import write_workspace_tar
from coding_agents.workspace.launch_state import INDEX_REF, WORKTREE_REF
from coding_agents_guest.restamp import restamp_index
from support.repos import sh
from support.workspaces import NOW_MS, Filled, Host, fill, guest_git, make_host, run_git, unpack

Change = Callable[[Host], None]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return make_host(tmp_path)


def files_of(root: Path) -> dict[str, bytes]:
    """Relative path to mode and content of everything that is not in .git."""
    return {
        str(path.relative_to(root)): oct(path.lstat().st_mode).encode()
        + (os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes())
        for path in root.rglob("*")
        if ".git" not in path.relative_to(root).parts and (path.is_symlink() or path.is_file())
    }


def nothing(host: Host) -> None:
    assert host.status() == ""


def modified(host: Host) -> None:
    host.write("changed", "after\n")


def staged(host: Host) -> None:
    host.write("changed", "after\n")
    host.git("add", "changed")


def staged_and_modified(host: Host) -> None:
    staged(host)
    host.write("changed", "even later\n")


def staged_new(host: Host) -> None:
    host.write("new/file", "new\n")
    host.git("add", "new")


def staged_then_gone(host: Host) -> None:
    staged_new(host)
    (host.work / "new/file").unlink()


def untracked(host: Host) -> None:
    host.write("new/deep/file", "new\n")
    host.write("other", "new\n")


def deleted(host: Host) -> None:
    (host.work / "changed").unlink()
    host.git("rm", "--quiet", "kept")


def renamed_over(host: Host) -> None:
    """Of the same size and second as what it replaces."""
    for name in ("changed", "kept"):
        os.utime(host.write(name, f"{name:>7}\n"), (1_700_000_000, 1_700_000_000))
    host.git("commit", "--quiet", "-a", "-m", "of one size and second")
    (host.work / "kept").rename(host.work / "changed")


def changed_at_once(host: Host) -> None:
    """In the second in which git wrote the index, which therefore does not trust it; the size is the same."""
    for content in ("staged\n", "edited\n"):
        os.utime(host.write("changed", content), (1_700_000_000, 1_700_000_000))
        if content == "staged\n":
            host.git("add", "changed")
    os.utime(host.work / ".git/index", (1_700_000_000, 1_700_000_000))
    restamp_index(
        host.work / ".git/index", host.work
    )  # as if it had been changed in place, within that second
    assert host.git("diff-files", "--name-only") == "changed"


def renamed(host: Host) -> None:
    host.git("mv", "changed", "moved")


def detached(host: Host) -> None:
    host.git("checkout", "--quiet", "--detach", "HEAD~1")
    untracked(host)


def intent_to_add(host: Host) -> None:
    host.write("later", "x\n")
    host.git("add", "--intent-to-add", "later")
    empty = host.git("hash-object", "-t", "blob", "/dev/null")
    (host.work / ".git/objects" / empty[:2] / empty[2:]).unlink()  # git need not have it


def conflict(host: Host) -> None:
    host.git("checkout", "--quiet", "-b", "side", "HEAD")
    host.commit(changed="side\n")
    host.git("checkout", "--quiet", "main")
    host.commit(changed="main\n")
    subprocess.run(
        ["git", "merge", "--quiet", "side"], cwd=host.work, env=host.env, capture_output=True, check=False
    )


def file_to_directory(host: Host) -> None:
    (host.work / "changed").unlink()
    host.write("changed/inner", "x\n")


def directory_to_link(host: Host) -> None:
    host.commit(**{"lib/a": "a\n", "lib/b": "b\n"})
    secret = host.root / "outside"
    secret.mkdir()
    (secret / "a").write_text("a\n")
    (host.work / "lib/a").unlink()
    (host.work / "lib/b").unlink()
    (host.work / "lib").rmdir()
    (host.work / "lib").symlink_to(secret)


def modes(host: Host) -> None:
    (host.work / "kept").chmod(0o755)
    host.write("script", "#!/bin/sh\n").chmod(0o700)


def links(host: Host) -> None:
    (host.work / "link").symlink_to("kept")
    host.git("add", "link")
    host.git("commit", "--quiet", "-m", "link")
    (host.work / "broken").symlink_to("nowhere")


def odd_names(host: Host) -> None:
    host.write("deep/" * 30 + "x" * 90, "long\n")
    host.write("-option", "x")
    host.write("new\nline", "x")
    host.write('tab\tquote"back\\', "x")
    (host.work / os.fsdecode(b"latin\xe9")).write_bytes(b"x")
    host.write("ünïcode", "x")
    host.git("add", "--all")
    host.git("commit", "--quiet", "-m", "odd")
    host.write("-option", "changed")
    (host.work / os.fsdecode(b"new\xe9")).write_bytes(b"x")


def crlf(host: Host) -> None:
    host.configure("[core]\n\tautocrlf = true\n\tsafecrlf = false\n")
    host.write("dos.txt", "one\r\ntwo\r\n")
    host.git("add", "dos.txt")
    host.git("commit", "--quiet", "-m", "dos")
    assert host.git("cat-file", "-p", "HEAD:dos.txt") == "one\ntwo"
    host.write("dos.txt", "one\r\ntwo\r\n")  # same content with a new time: the stat information is stale


def attributes(host: Host) -> None:
    host.commit(**{".gitattributes": "*.bat text eol=crlf\n"})
    host.write("run.bat", "a\r\nb\r\n")
    host.git("add", "run.bat")
    host.git("commit", "--quiet", "-m", "bat")
    host.write("run.bat", "a\r\nb\r\n")


def own_excludes(host: Host) -> None:
    ignore = host.root / "home" / "my ignore"
    ignore.write_bytes(b"\xef\xbb\xbf*.orig\n*.tmp")
    host.configure('[core]\n\texcludesFile = "~/my ignore"\n')
    (host.work / ".git/info/exclude").write_text("!keep.tmp\nprivate/\n")
    for name in ("a.orig", "b.tmp", "keep.tmp", "private/x", "shown"):
        host.write(name, "x")


def default_excludes(host: Host) -> None:
    ignore = host.root / "home/.config/git/ignore"
    ignore.parent.mkdir(parents=True)
    ignore.write_text(".DS_Store\n")
    host.write(".DS_Store", "x")
    host.write("shown", "x")


def ignored(host: Host) -> None:
    host.commit(**{".gitignore": "build/\n*.log\n"})
    host.write("build/out", "x")
    host.write("a.log", "x")
    host.write("sub/b.log", "x")
    host.write("sub/c", "x")


def status_settings(host: Host) -> None:
    host.git("config", "status.renames", "false")
    host.git("config", "core.quotePath", "false")
    renamed(host)
    host.write("ünïcode", "x")


def no_untracked(host: Host) -> None:
    host.configure("[status]\n\tshowUntrackedFiles = no\n")
    untracked(host)


def file_mode_off(host: Host) -> None:
    host.git("config", "core.fileMode", "false")
    (host.work / "kept").chmod(0o755)


def split_index(host: Host) -> None:
    host.git("config", "core.splitIndex", "true")
    host.git("update-index", "--split-index", "--untracked-cache")
    staged_and_modified(host)
    assert list((host.work / ".git").glob("sharedindex.*"))


def submodule_not_initialised(host: Host) -> None:
    other = make_host(host.root / "other")
    host.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other.work), "sub")
    host.git("commit", "--quiet", "-m", "sub")
    host.git("submodule", "--quiet", "deinit", "sub")
    assert (host.work / "sub").is_dir()


CHANGES: list[Change] = [
    nothing, modified, renamed_over, changed_at_once, staged, staged_and_modified, staged_new, staged_then_gone,
    untracked, deleted, renamed, detached, intent_to_add, conflict, file_to_directory, directory_to_link, modes,
    links, odd_names, crlf, attributes, own_excludes, default_excludes, ignored, status_settings, no_untracked,
    file_mode_off, split_index, submodule_not_initialised,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_status_inside_is_the_status_outside(host: Host, change: Change) -> None:
    change(host)
    index = (host.work / ".git/index").read_bytes()
    objects = sorted((host.work / ".git/objects").rglob("*"))
    filled = host.fill()
    assert (host.work / ".git/index").read_bytes() == index
    assert sorted((host.work / ".git/objects").rglob("*")) == objects
    assert host.inside(filled, "status", "--porcelain", "-z") == host.status()
    assert host.inside(filled, "rev-parse", "HEAD") == host.git("rev-parse", "HEAD")
    assert host.inside(filled, "diff", "--cached", "--raw", "--no-abbrev") == host.git(
        "diff", "--cached", "--raw", "--no-abbrev"
    )
    assert host.inside(filled, "fsck", "--full", "--strict", "--no-dangling") == ""
    expected = set(host.git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")) - {
        ""
    }
    inside, outside = files_of(filled.inside), files_of(host.work)
    assert inside == {path: outside[path] for path in inside}
    assert set(inside) == {path for path in expected if path in outside and not behind_link(host.work, path)}


def behind_link(root: Path, path: str) -> bool:
    return any((root / parent).is_symlink() for parent in Path(path).parents)


def test_the_first_status_reads_no_file(host: Host) -> None:
    """The user's index stays valid: diff-files, which compares stat information only, finds nothing."""
    filled = host.fill()
    assert host.inside(filled, "diff-files") == ""
    assert (filled.inside / "kept").stat().st_ino != (host.work / "kept").stat().st_ino


def test_a_change_with_the_same_size_is_seen(host: Host) -> None:
    filled = host.fill()
    (filled.inside / "changed").write_text("BEFORE\n")
    assert host.inside(filled, "status", "--porcelain") == " M changed"


def test_global_attributes_come_below_those_of_the_tree(host: Host) -> None:
    host.configure("[core]\n\tattributesFile = ~/attributes\n")
    (host.root / "home/attributes").write_text("*.dat -text\n*.txt eol=crlf\n")
    host.commit(**{".gitattributes": "*.txt eol=lf\n"})
    filled = host.fill()
    assert host.inside(filled, "config", "core.attributesFile") == "/workspace/.git/info/global-attributes"
    here = f"core.attributesFile={filled.inside}/.git/info/global-attributes"
    checked = host.inside(filled, "-c", here, "check-attr", "text", "eol", "--", "a.dat", "a.txt")
    assert checked == host.git("check-attr", "text", "eol", "--", "a.dat", "a.txt")
    assert "a.txt: eol: lf" in checked


def test_nothing_else_of_the_users_git_goes_in(host: Host) -> None:
    host.write("stashed", "stash secret")
    host.git("stash", "--quiet", "--include-untracked")
    host.git("branch", "private")
    host.git("tag", "v1")
    host.git("remote", "add", "origin", "https://me:word@host.example/x.git")
    host.git("config", "http.https://host.example/.extraheader", "Authorization: secret")
    host.git("config", "core.sshCommand", "evil")
    host.git("config", "alias.x", "!evil")
    (host.work / ".git/hooks").mkdir(exist_ok=True)
    (host.work / ".git/hooks/post-checkout").write_text("#!/bin/sh\nexit 1\n")
    loose = host.git("hash-object", "-w", "--stdin")
    filled = host.fill()
    git_dir = filled.inside / ".git"
    names = {str(path.relative_to(git_dir)) for path in git_dir.rglob("*") if path.is_file()}
    packs = {name for name in names if name.startswith("objects/pack/pack-")}
    assert names - packs == {"HEAD", "config", "index", "info/exclude", "packed-refs"}
    assert {Path(pack).suffix for pack in packs} == {".pack", ".idx"}
    assert host.inside(filled, "for-each-ref", "--format=%(refname)") == "refs/heads/main"
    config = (git_dir / "config").read_text()
    assert not [word for word in ("host.example", "secret", "evil", "remote") if word in config]
    reachable = set(host.git("rev-list", "--objects", "--no-object-names", "HEAD").split())
    listed = host.inside(filled, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
    assert set(listed.split()) == reachable
    assert loose not in reachable


def test_owner_and_modes_in_the_stream(host: Host) -> None:
    host.write("script", "x").chmod(0o4755)
    filled = host.fill()
    listing = subprocess.run(
        ["tar", "--numeric-owner", "-tvf", "-"], input=filled.tar, capture_output=True, check=True
    ).stdout.decode()
    lines = listing.splitlines()
    assert all(" 1000/1000 " in line for line in lines)
    assert [line for line in lines if line.endswith(" ./") and line.startswith("drwxr-xr-x")]
    assert [line for line in lines if line.endswith(" script") and line.startswith("-rwxr-xr-x")]


def test_secrets_stay_out_and_are_named(host: Host) -> None:
    host.commit(**{"tracked.pem": "key"})
    host.write(".env", "TOKEN=1")
    host.write("web/.npmrc", "//r/:_authToken=x")
    host.write(".npmrc", "save-exact=true")
    filled = host.fill()
    assert filled.plan.left_out == (".env", "web/.npmrc")
    assert filled.plan.tracked_secrets == ("tracked.pem",)
    assert filled.plan.untracked == (".npmrc",)
    assert not (filled.inside / ".env").exists()
    assert (filled.inside / "tracked.pem").exists()
    assert host.inside(filled, "status", "--porcelain") == "?? .npmrc"
    assert b"TOKEN=1" not in filled.tar


def test_launch_state_is_recorded(host: Host) -> None:
    staged_and_modified(host)
    host.write("new", "new\n")
    host.write(".env", "TOKEN=1")
    (host.work / "kept").unlink()
    filled = host.fill()
    index, worktree = filled.launch.index_commit, filled.launch.worktree_commit
    assert relay(host, filled, "rev-parse", INDEX_REF, WORKTREE_REF).split() == [index, worktree]
    base = host.git("rev-parse", "HEAD")
    assert relay(host, filled, "diff", "--name-status", base, str(index)) == "M\tchanged"
    names = relay(host, filled, "diff", "--name-status", base, str(worktree)).splitlines()
    assert names == ["M\tchanged", "D\tkept", "A\tnew"]
    assert relay(host, filled, "cat-file", "-p", f"{worktree}:changed") == "even later"
    assert relay(host, filled, "log", "-1", "--format=%ct %P %an", str(worktree)) == (
        f"{NOW_MS // 1000} {base} coding-agents"
    )
    assert relay(host, filled, "fsck", "--full") == ""


def test_a_clean_tree_has_no_launch_state(host: Host) -> None:
    filled = host.fill()
    assert (filled.launch.index_commit, filled.launch.worktree_commit, filled.launch.staged) == (
        None,
        None,
        (),
    )
    assert relay(host, filled, "for-each-ref", "refs/coding-agents/launch*") == ""


def test_launch_state_of_conflicts_and_kinds(host: Host) -> None:
    conflict(host)
    filled = host.fill()
    assert filled.launch.index_commit is None
    assert "<<<<<<<" in relay(host, filled, "cat-file", "-p", f"{filled.launch.worktree_commit}:changed")
    assert host.inside(filled, "status", "--porcelain") == "UU changed"


def test_launch_state_when_a_file_became_a_directory(host: Host) -> None:
    file_to_directory(host)
    filled = host.fill()
    tree = relay(host, filled, "ls-tree", "-r", "--name-only", str(filled.launch.worktree_commit))
    assert tree.split() == ["README", "changed/inner", "kept"]


def relay(host: Host, filled: Filled, *args: str) -> str:
    return run_git(filled.relay, *args, env=host.env)


def test_unborn(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    host.git("checkout", "--quiet", "--orphan", "fresh")
    host.git("rm", "--quiet", "--cached", "kept")
    host.write("new", "new\n")
    filled = host.fill()
    assert host.inside(filled, "symbolic-ref", "HEAD") == "refs/heads/fresh"
    assert host.inside(filled, "status", "--porcelain") == host.git("status", "--porcelain")
    assert host.inside(filled, "fsck", "--full", "--no-dangling") == ""
    names = relay(host, filled, "ls-tree", "--name-only", str(filled.launch.worktree_commit)).split()
    assert names == ["README", "changed", "kept", "new"]


def test_a_repository_without_any_index(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    sh(fresh, "init", "--quiet", env=host.env)
    (fresh / "first").write_text("x")
    host = Host(host.root, fresh, host.env)
    filled = host.fill()
    assert host.inside(filled, "status", "--porcelain") == "?? first"
    assert filled.launch.index_commit is None
    assert filled.launch.worktree_commit is not None


def test_clean_starts_from_the_commit(host: Host) -> None:
    host.commit(**{".gitignore": "*.cache\n", ".gitattributes": "*.bat eol=crlf\n", "run.bat": "a\nb\n"})
    staged_and_modified(host)
    untracked(host)
    host.write("warm.cache", "x")
    (host.work / "kept").unlink()
    filled = host.fill("*.cache", clean=True)
    assert host.inside(filled, "status", "--porcelain", "--ignored") == "!! warm.cache"
    assert (filled.inside / "changed").read_text() == "before\n"
    assert (filled.inside / "kept").exists()
    assert not (filled.inside / "other").exists()
    assert (filled.inside / "run.bat").read_bytes() == b"a\r\nb\r\n"
    assert filled.plan.included == ("warm.cache",)
    assert filled.launch.worktree_commit is None


def test_a_bare_repository_of_ours_is_checked_out(host: Host, tmp_path: Path) -> None:
    from coding_agents.gitsync.discover import read_facts
    from coding_agents.model.repo import RepoKind

    links(host)
    bare = tmp_path / "bare.git"
    host.git("clone", "--quiet", "--bare", str(host.work), str(bare))
    facts = read_facts(
        RepoKind.URL,
        "bare",
        work_tree=None,
        git_dir=bare,
        common_dir=bare,
        object_format="sha1",
        env=host.env,
    )
    filled = fill(tmp_path, facts, env=host.env)
    assert guest_git(filled.inside, "status", "--porcelain") == ""
    assert sorted(filled.plan.paths) == ["README", "changed", "kept", "link"]
    assert (filled.inside / "link").readlink() == Path("kept")


def test_linked_work_tree(host: Host, tmp_path: Path) -> None:
    host.git("worktree", "add", "--quiet", "-b", "linked", str(tmp_path / "linked"))
    other = Host(host.root, tmp_path / "linked", host.env)
    other.write("changed", "linked\n")
    other.git("add", "changed")
    other.write("new", "x")
    filled = other.fill()
    assert guest_git(filled.inside, "status", "--porcelain") == other.git("status", "--porcelain")
    assert (filled.inside / ".git").is_dir()


def test_shallow_history_stays_shallow(host: Host, tmp_path: Path) -> None:
    sh(tmp_path, "clone", "--quiet", "--depth=1", f"file://{host.work}", "shallow", env=host.env)
    shallow = Host(host.root, tmp_path / "shallow", host.env)
    filled = shallow.fill()
    assert guest_git(filled.inside, "rev-list", "--count", "HEAD") == "1"
    assert guest_git(filled.inside, "status", "--porcelain") == ""


def test_sha256(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    work = tmp_path / "sha256"
    work.mkdir()
    sh(work, "init", "--quiet", "--object-format=sha256", env=host.env)
    host = Host(host.root, work, host.env)
    host.commit(a="a\n")
    staged_new(host)
    filled = host.fill()
    assert host.inside(filled, "status", "--porcelain") == "A  new/file"
    assert len(host.inside(filled, "rev-parse", "HEAD")) == 64


def test_lfs_files_stay_clean(host: Host) -> None:
    filters = "".join(
        f"\t{key} = {value}\n"
        for key, value in (("clean", "git-lfs clean -- %f"), ("smudge", "git-lfs smudge -- %f"),
                           ("process", "git-lfs filter-process"), ("required", "true"))
    )  # fmt: skip
    host.configure(f'[filter "lfs"]\n{filters}')
    host.commit(**{".gitattributes": "*.bin filter=lfs -text\n"})
    host.write("a.bin", "large\n")
    host.git("add", "a.bin")
    host.git("commit", "--quiet", "-m", "lfs")
    assert host.git("cat-file", "-p", "HEAD:a.bin").startswith("version https://git-lfs")
    before = sorted((host.work / ".git/lfs").rglob("*"))
    filled = host.fill()
    assert host.inside(filled, "status", "--porcelain") == ""
    assert (filled.inside / "a.bin").read_text() == "large\n"
    host.write("a.bin", "larger\n")
    filled = host.fill()
    assert relay(host, filled, "cat-file", "-p", f"{WORKTREE_REF}:a.bin").startswith(
        "version https://git-lfs"
    )
    assert sorted((host.work / ".git/lfs").rglob("*")) == before
    host.git("checkout", "--quiet", "a.bin")
    assert (host.fill(clean=True).inside / "a.bin").read_text() == "large\n"
    for stored in (host.work / ".git/lfs/objects").rglob("*/*/*"):
        stored.unlink()
    left = sorted((host.work / ".git/lfs").rglob("*"))
    assert (host.fill(clean=True).inside / "a.bin").read_text().startswith("version https://git-lfs")
    assert sorted((host.work / ".git/lfs").rglob("*")) == left


def test_a_base_branch_that_collides_with_the_sessions_branch_stays_out(host: Host) -> None:
    host.git("checkout", "--quiet", "-b", "demo")
    filled = host.fill()
    assert host.inside(filled, "for-each-ref") == ""
    guest_git(filled.inside, "update-ref", "refs/heads/demo/work", host.git("rev-parse", "HEAD"))


def test_a_file_that_vanished_after_the_plan_counts_as_deleted(host: Host) -> None:
    facts, plan = host.facts(), host.plan()
    filled = host.fill()
    (host.work / "kept").unlink()
    out = host.root / "out.tar"
    with out.open("wb") as stream:
        write_workspace_tar(
            stream,
            facts,
            plan,
            relay_git_dir=filled.relay,
            base=facts.head,
            launch=filled.launch,
            env=host.env,
        )
    target = host.root / "late"
    unpack(out.read_bytes(), target)
    assert guest_git(target, "status", "--porcelain") == " D kept"


def test_a_file_that_became_a_fifo_is_an_error_and_does_not_hang(host: Host) -> None:
    facts, plan, filled = host.facts(), host.plan(), host.fill()
    (host.work / "kept").unlink()
    os.mkfifo(host.work / "kept")
    with (host.root / "out.tar").open("wb") as stream, pytest.raises(WorkspaceError, match="'kept'"):
        write_workspace_tar(
            stream,
            facts,
            plan,
            relay_git_dir=filled.relay,
            base=facts.head,
            launch=filled.launch,
            env=host.env,
        )


def test_missing_objects_are_an_error_and_leave_nothing(host: Host) -> None:
    facts, plan, filled = host.facts(), host.plan(), host.fill()
    with (host.root / "out.tar").open("wb") as stream, pytest.raises(GitError, match="pack-objects"):
        write_workspace_tar(
            stream, facts, plan, relay_git_dir=filled.relay, base=Oid.parse("1" * 40),
            launch=filled.launch, env=host.env,
        )  # fmt: skip
    assert not list(filled.relay.glob("coding-agents-*"))


def test_no_filter_of_the_tree_runs_for_a_clean_copy_of_ours(host: Host, tmp_path: Path) -> None:
    """A filter needs configuration, and for our own bare repositories the user's does not count."""
    from coding_agents.gitsync.discover import read_facts
    from coding_agents.model.repo import RepoKind

    witness = tmp_path / "ran"
    host.configure(f'[filter "x"]\n\tsmudge = touch {witness}; cat\n\tclean = cat\n')
    host.commit(**{".gitattributes": "* filter=x\n"})
    bare = tmp_path / "bare.git"
    host.git("clone", "--quiet", "--bare", str(host.work), str(bare))
    facts = read_facts(
        RepoKind.EMPTY,
        "bare",
        work_tree=None,
        git_dir=bare,
        common_dir=bare,
        object_format="sha1",
        env=host.env,
    )
    fill(tmp_path, facts, env=host.env)
    assert not witness.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root launches on another user's repository")
def test_root_reads_another_users_repository_as_that_user() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own directory is closed to other users
        Path(name).chmod(0o755)
        host = make_host(Path(name))
        staged_and_modified(host)
        for path in [host.work, *host.work.rglob("*")]:
            os.lchown(path, 65534, 65534)
        filled = host.fill()
        assert host.inside(filled, "status", "--porcelain") == "MM changed"
        assert {path.lstat().st_uid for path in host.work.rglob("*")} == {65534}
        assert relay(host, filled, "cat-file", "-p", f"{WORKTREE_REF}:changed") == "even later"
        assert filled.plan == host.plan()


def test_ten_thousand_files_are_planned_and_streamed_in_seconds(host: Host) -> None:
    """A guard against quadratic work, not a benchmark."""
    for number in range(10_000):
        if number % 100 == 0:
            (host.work / f"d{number // 1000}/e{number // 100}").mkdir(parents=True)
        (host.work / f"d{number // 1000}/e{number // 100}/f{number}").write_bytes(b"x")
    began = time.process_time()
    plan = host.plan()
    assert len(plan.untracked) == 10_000
    assert time.process_time() - began < 5
