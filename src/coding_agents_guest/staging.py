"""Bringing all that stands in a work tree into an index of our own, whatever hides or hampers it.

git leaves out what is marked in the index, what lies where a repository was, and everything as soon as one
file is not of the encoding that an attribute demands.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.gitwork import Git, GitFailedError

# git-ls-files(1), -v: in lower case what is assumed to be unchanged, S for skip-worktree.
_MARK = re.compile(rb"(?:\A|(?<=\0))([a-zS]) ([^\0]+)")
_ADD = ("--add", "--remove", "--replace", "-z", "--stdin")
# gitattributes(5): what an attribute is when nothing gives it a value.
_NO_VALUE = (b"unspecified", b"unset", b"set")


def show_hidden(git: Git) -> None:
    """Take the marks out of the index that hide changes: they are wishes of the agent.

    What is marked as no part of a sparse work tree (skip-worktree) stays so, unless it is there.
    """
    marks = _MARK.findall(git.run("ls-files", "-z", "-v"))  # of 100,000 files there may be none
    assumed = [os.fsdecode(path) for mark, path in marks if mark.islower()]
    skipped = [os.fsdecode(path) for mark, path in marks if mark in b"Ss"]
    present = [path for path in skipped if _may_stand(top(git), path)]
    if assumed:
        git.run("update-index", "-z", "--no-assume-unchanged", "--stdin", stdin=records(assumed))
    if present:
        git.run("update-index", "-z", "--no-skip-worktree", "--stdin", stdin=records(present))


def drop_hollow(git: Git, gitlinks: list[str]) -> None:
    """Forget those of `gitlinks` that are directories of files now: git looks into no repository that it records."""
    hollow = []
    for path in gitlinks:
        directory = top(git) / path
        if directory.is_dir() and not os.path.lexists(directory / ".git"):
            with os.scandir(directory) as entries:
                hollow += [path] if any(entries) else []
    if hollow:
        git.run("update-index", "--force-remove", "-z", "--stdin", stdin=records(hollow))


def stage_tracked(git: Git) -> list[str]:
    """Bring what changed of the tracked files into the index. Returns the paths that cannot be read."""
    try:
        incomplete = git.status("add", "--update", "--sparse", "--ignore-errors", expected=(0, 1))
    except GitFailedError:
        changed = git.paths("diff-files", "-z", "--name-only")
        return _stage_each(git, list(dict.fromkeys(changed)))
    return git.paths("diff-files", "-z", "--name-only", "--ignore-submodules=all") if incomplete else []


def stage_changed(git: Git, modified: list[str], deleted: list[str]) -> list[str]:
    """Bring what is known to have changed into the index. Returns the paths that cannot be read."""
    if deleted:
        git.run("update-index", "--force-remove", "-z", "--stdin", stdin=records(deleted))
    if not modified:
        return []
    try:
        git.run("update-index", *_ADD, stdin=records(modified))
    except GitFailedError:
        return _stage_each(git, modified)
    return []


def stage_untracked(git: Git, paths: list[str]) -> list[str]:
    """Bring the untracked `paths` into the index. Returns those that git takes under no circumstances."""
    if not paths:
        return []  # git would read the whole index to do nothing
    try:
        warned = git.warnings("update-index", "--add", "--remove", "-z", "--stdin", stdin=records(paths))
    except GitFailedError:
        return _stage_each(git, paths)
    if not warned:
        return []
    still = git.paths("ls-files", "-z", "--others", "--exclude-standard")
    return sorted(set(paths).intersection(still))  # such as a link that is named .gitmodules


def top(git: Git) -> Path:
    """Where the work tree of `git` is."""
    return Path(git.environment.get("GIT_WORK_TREE", git.directory))


def records(paths: list[str]) -> bytes:
    """`paths` as git reads them with -z."""
    return b"".join(os.fsencode(path) + b"\0" for path in paths)


def _stage_each(git: Git, paths: list[str]) -> list[str]:
    """Stage `paths` although one of them makes git give up. Returns those that cannot be read.

    A file that is not of the encoding that its attribute demands is taken as the bytes that it is.
    """
    answers = git.run("check-attr", "-z", "--stdin", "working-tree-encoding", stdin=records(paths)).split(
        b"\0"
    )
    encoded = {
        os.fsdecode(path) for path, value in zip(answers[::3], answers[2::3]) if value not in _NO_VALUE
    }
    readable = [path for path in paths if _is_readable(top(git) / path)]
    plain = [path for path in readable if path not in encoded]
    git.run("update-index", *_ADD, stdin=records(plain))
    for path in [path for path in readable if path in encoded]:
        try:
            git.run("update-index", *_ADD, stdin=records([path]))
        except GitFailedError:
            _stage_bytes(git, path)
    return [path for path in paths if path not in readable]


def _stage_bytes(git: Git, path: str) -> None:
    full = top(git) / path
    oid = git.text("hash-object", "-w", "--no-filters", "--", str(full))
    mode = "100755" if full.lstat().st_mode & stat.S_IXUSR else "100644"
    entry = b"%s %s\t%s\0" % (mode.encode(), oid.encode(), os.fsencode(path))
    git.run("update-index", "-z", "--index-info", stdin=entry)


def _is_readable(path: Path) -> bool:
    return path.is_symlink() or not path.exists() or os.access(path, os.R_OK)


def _may_stand(top: Path, path: str) -> bool:
    """Whether `path` is there, or cannot be for what is in its way."""
    with suppress(FileNotFoundError):
        try:
            (top / path).lstat()
        except NotADirectoryError:
            return True
        return True
    return any((top / parent).is_symlink() for parent in Path(path).parents[:-1])
