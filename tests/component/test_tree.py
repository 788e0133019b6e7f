"""Trees of which somebody else has chosen the depth are walked and removed all the same, and through no link."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from coding_agents.proc.tree import entries_below, remove_tree

_DEPTH = 3000  # beyond what Python recurses into, and the path is longer than the kernel takes


def deep(top: Path, depth: int = _DEPTH) -> None:
    """`depth` directories, each in the one before, with a file in the last."""
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


def test_a_tree_deeper_than_any_recursion_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    deep(top)
    remove_tree(top)
    assert not os.path.lexists(top)


def test_a_tree_deeper_than_any_recursion_is_walked(tmp_path: Path) -> None:
    top = tmp_path / "top"
    deep(top, 1500)
    entries = [entry.name for entry in entries_below(top)]
    assert entries.count("d") == 1500
    assert entries[-1] == "file"
    remove_tree(top)  # which pytest cannot


def test_no_link_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("")
    top = tmp_path / "top"
    (top / "a").mkdir(parents=True)
    (top / "a" / "link").symlink_to(outside)
    (top / "link").symlink_to(outside)
    assert {entry.name for entry in entries_below(top)} == {"a", "link"}
    assert list(entries_below(top, but={str(top)})) == []
    remove_tree(top)
    assert (outside / "precious").exists()
    (tmp_path / "direct").symlink_to(outside)
    with pytest.raises(OSError):
        remove_tree(tmp_path / "direct")
    assert (outside / "precious").exists()


def test_two_that_remove_one_tree_leave_nothing_of_it(tmp_path: Path) -> None:
    from coding_agents.store.sessions import _clear

    for _ in range(5):
        top = tmp_path / "top"
        deep(top, 300)
        (top / "e" / "f").mkdir(parents=True)
        threads = [threading.Thread(target=_clear, args=(top,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not top.exists()
