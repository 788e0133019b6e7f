"""What goes in and what does not, on real trees."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from coding_agents.errors import WorkspaceError
from support.repos import sh
from support.workspaces import Host, make_host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return make_host(tmp_path)


def test_ignored_files_only_when_asked_for(host: Host) -> None:
    host.commit(**{".gitignore": "build/\n.env\n*.log\n"})
    for name in ("build/a.o", "build/b.txt", ".env", "x.log", "sub/.env"):
        host.write(name, "x")
    assert host.plan().included == ()
    assert host.plan("build/*.o").included == ("build/a.o",)
    assert host.plan(".env").included == (".env", "sub/.env")
    assert host.plan("/.env", "*.log").included == (".env", "x.log")
    assert "build/a.o" in host.plan("build/").paths


def test_the_user_may_ask_for_an_untracked_secret(host: Host) -> None:
    host.write(".env", "x")
    assert host.plan().left_out == (".env",)
    plan = host.plan(".env")
    assert (plan.left_out, plan.included, plan.untracked) == ((), (".env",), ())


def test_worktreeinclude_brings_ignored_files_but_no_secret(host: Host) -> None:
    host.commit(**{".gitignore": "*.local\n.env\n", ".worktreeinclude": "# mine\n*.local\n.env\nshown\n"})
    for name in ("a.local", ".env", "shown", "deep/b.local"):
        host.write(name, "x")
    plan = host.plan()
    assert plan.included == ("a.local", "deep/b.local")
    assert plan.untracked == ("shown",)
    assert ".env" not in plan.paths


def test_a_worktreeinclude_that_is_a_link_is_not_followed(host: Host) -> None:
    host.commit(**{".gitignore": "*.local\n"})
    host.write("a.local", "x")
    (host.root / "patterns").write_text("*.local\n")
    (host.work / ".worktreeinclude").symlink_to(host.root / "patterns")
    assert host.plan().included == ()


def test_an_option_like_pattern_is_a_pattern(host: Host) -> None:
    host.commit(**{".gitignore": "--x\n"})
    host.write("--x", "x")
    assert host.plan("--x").included == ("--x",)


def test_links_out_of_the_tree_are_copied_as_they_are_and_flagged(host: Host) -> None:
    (host.work / "out").symlink_to("/etc/passwd")
    (host.work / "in").symlink_to("README")
    plan = host.plan()
    assert plan.flagged_symlinks == ("out",)
    assert {"in", "out"} <= set(plan.paths)


@pytest.mark.parametrize("tracked", [True, False])
def test_special_files_are_an_error_unless_ignored(host: Host, tracked: bool) -> None:
    name = "kept" if tracked else "pipe"
    (host.work / name).unlink(missing_ok=True)
    os.mkfifo(host.work / name)
    with pytest.raises(WorkspaceError, match=f"cannot copy '{name}' \\(socket, FIFO or device\\)"):
        host.plan()
    if not tracked:
        host.write(".gitignore", "pipe\n")
        assert "pipe" not in host.plan().paths


def test_a_socket_beside_tracked_files_is_an_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(host.work)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        with pytest.raises(WorkspaceError, match="cannot copy 's'"):
            host.plan()


def test_clean_does_not_look_at_the_work_tree(host: Host) -> None:
    os.mkfifo(host.work / "pipe")
    assert host.plan(clean=True).paths == ("README", "changed", "kept")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_unreadable_files_are_named(host: Host) -> None:
    (host.work / "kept").chmod(0)
    with pytest.raises(WorkspaceError, match="cannot copy 'kept' \\(not readable\\)"):
        host.plan()


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_unreadable_directories_are_named(host: Host) -> None:
    host.write("locked/file", "x")
    (host.work / "locked").chmod(0)
    try:
        with pytest.raises(WorkspaceError, match="cannot read the directory 'locked'"):
            host.plan()
    finally:
        (host.work / "locked").chmod(0o755)


def test_nested_repositories_are_named_and_stay_out(host: Host) -> None:
    nested = host.work / "vendor/lib"
    nested.mkdir(parents=True)
    sh(nested, "init", "--quiet", env=host.env)
    (nested / "file").write_text("x")
    sh(nested, "add", ".", env=host.env)
    sh(nested, "commit", "--quiet", "-m", "x", env=host.env)
    plan = host.plan()
    assert plan.nested == ("vendor/lib",)
    assert "vendor/lib/file" not in plan.paths


def test_files_behind_a_link_to_a_directory_stay_out(host: Host) -> None:
    host.commit(**{"lib/a": "a\n"})
    outside = host.root / "outside"
    outside.mkdir()
    (outside / "a").write_text("host secret")
    (host.work / "lib/a").unlink()
    (host.work / "lib").rmdir()
    (host.work / "lib").symlink_to(outside)
    plan = host.plan()
    assert "lib/a" not in plan.paths
    assert plan.flagged_symlinks == ("lib",)
    assert b"host secret" not in host.fill().tar
