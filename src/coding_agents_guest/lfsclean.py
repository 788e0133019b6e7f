"""What git-lfs would have stored of a work tree that was read without it: pointers in place of large files.

Salvage runs no filter, for a volume could name any program as one. The attributes are data: where they say that a file
belongs to LFS, its content is hashed here, and goes to the host beside the commit.
"""

from __future__ import annotations

import os
from pathlib import Path

from coding_agents_guest.gitwork import Git
from coding_agents_guest.lfs import digest
from coding_agents_guest.lfspointer import parse_pointer, render_pointer
from coding_agents_guest.records import replace
from coding_agents_guest.snapshot import Snapshot


def with_pointers(
    git: Git, snapshot: Snapshot, *, parent: str, top: Path, scratch: Path
) -> tuple[Snapshot, dict[str, Path]]:
    """`snapshot` of the work tree at `top` with pointers for the large files in which it differs from `parent`.

    Also tells by SHA-256 where their contents are. `git` has the snapshot's index. Raises GitFailedError, OSError.
    """
    before = parent or git.text("mktree")
    differing = ("diff-tree", "-r", "-z", "--no-renames", "--diff-filter=AMT", "--ignore-submodules=all")
    listed = git.paths(*differing, before, snapshot.tree)
    modes = {path: entry.split()[1] for entry, path in zip(listed[::2], listed[1::2])}
    large = _belong_to_lfs(git, [path for path, mode in modes.items() if mode in ("100644", "100755")])
    found: dict[str, Path] = {}
    paths, files = [], []
    for number, path in enumerate(large):
        source = top / path
        pointer = digest(source)
        if pointer is None or parse_pointer(_start(source)) is not None:
            continue
        found[pointer.oid] = source
        file = scratch / f"pointer-{number}"
        file.write_bytes(render_pointer(pointer))
        paths.append(path)
        files.append(file)
    if not paths:
        return snapshot, {}
    names = b"".join(os.fsencode(file) + b"\n" for file in files)
    oids = git.run("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=names).decode("ascii").split()
    entries = (f"{modes[path]} {oid}\t{path}\0" for path, oid in zip(paths, oids))
    git.run("update-index", "-z", "--index-info", stdin=os.fsencode("".join(entries)))
    return replace(snapshot, tree=git.text("write-tree")), found


def _belong_to_lfs(git: Git, paths: list[str]) -> list[str]:
    if not paths:
        return []
    names = b"".join(os.fsencode(path) + b"\0" for path in paths)
    answers = git.run("check-attr", "-z", "--stdin", "filter", stdin=names).split(b"\0")
    return [os.fsdecode(path) for path, value in zip(answers[::3], answers[2::3]) if value == b"lfs"]


def _start(path: Path) -> bytes:
    """Enough of a file to see whether it is a pointer."""
    with path.open("rb") as file:
        return file.read(1025)
