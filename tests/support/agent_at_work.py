"""What a test's agent does in a repository, and what stands there afterwards: read from disk, not from git.

Of the standard library alone: an end-to-end test runs this very file inside the container.
"""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Entry = tuple[str, bytes]
"""Mode as git has it, and content as git stores it (of a link its target)."""

GitCall = Callable[..., str]
"""Runs git with the arguments, at the repository or at `cwd`; its output without the last line break."""


def work(root: Path, git: GitCall) -> None:
    """Some of it committed, some staged, some neither."""
    unmerged = bool(git("ls-files", "--unmerged"))
    _write(root / "committed", b"committed\n")
    if not unmerged:
        git("add", "committed")
        git("commit", "--quiet", "-m", "an agent's commit")
    _write(root / "sub/new.py", b"new\n")
    _write(root / "sub/large.bin", b"\0binary\n\xff" * 1000)
    _write(root / "-x\n y", b"odd\n")
    _write(root / "kept", b"changed inside\n")
    (root / "run").unlink(missing_ok=True)
    _write(root / "run", b"#!/bin/sh\n")
    (root / "run").chmod(0o755)
    (root / "link").symlink_to("../elsewhere")
    if (root / "gone").exists():
        (root / "gone").unlink()
        (root / "old").rename(root / "moved")
    else:
        _write(root / "moved", b"moved\n")
    _write(root / "staged", b"staged\n")
    git("add", "staged")
    _write(root / "staged", b"staged, then changed\n")


def files(root: Path, git: GitCall) -> dict[str, Entry]:
    """Every file and link that the repository's ignore rules do not name; of a submodule the commit it stands on."""
    found: dict[str, Entry] = {}
    for directory, directories, names in os.walk(root):
        if Path(directory) == root:
            directories.remove(".git")
        elif {".git"}.intersection((*names, *directories)):
            oid = git("rev-parse", "HEAD", cwd=Path(directory))
            found[str(Path(directory).relative_to(root))] = ("160000", oid.encode())
            directories.clear()
            continue
        linked = [name for name in directories if (Path(directory) / name).is_symlink()]
        for name in [*names, *linked]:
            path = Path(directory, name)
            info = path.lstat()
            if stat.S_ISLNK(info.st_mode):
                entry = ("120000", os.fsencode(path.readlink()))
            else:
                entry = ("100755" if info.st_mode & 0o100 else "100644", path.read_bytes())
            found[str(path.relative_to(root))] = entry
    ignored = git("ls-files", "-z", "--others", "--ignored", "--exclude-standard").split("\0")
    return {path: entry for path, entry in found.items() if path not in ignored}


def not_checked_out(git: GitCall) -> list[str]:
    """Tracked paths that a sparse checkout keeps out of the work tree: they come back as they were."""
    listed = git("ls-files", "-z", "-t").split("\0")
    return [record[2:] for record in listed if record.startswith("S ")]


def report(root: Path, git: GitCall) -> str:
    """Work; in JSON what git status said before, and what stands there then. `read_report` reads it."""
    status = git("status", "--porcelain=v1", "-z")
    work(root, git)
    entries = [
        (path, mode, base64.b64encode(content).decode()) for path, (mode, content) in files(root, git).items()
    ]
    return json.dumps({"status": status, "unseen": not_checked_out(git), "files": entries})


def read_report(text: str) -> tuple[str, list[str], dict[str, Entry]]:
    """What `report` said: status before, paths that are not checked out, files."""
    said = json.loads(text)
    entries = {path: (mode, base64.b64decode(content)) for path, mode, content in said["files"]}
    return said["status"], said["unseen"], entries


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _git_here(*args: str, cwd: Path | None = None) -> str:
    done = subprocess.run(("git", *args), cwd=cwd, stdout=subprocess.PIPE, check=True)
    return os.fsdecode(done.stdout).removesuffix("\n")


if __name__ == "__main__":
    sys.stdout.write(report(Path.cwd(), _git_here))
