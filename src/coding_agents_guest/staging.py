"""Bringing all that stands in a work tree into an index of our own, whatever hides or hampers it.

git leaves out what is marked in the index, what lies where a repository was, and everything as soon as it cannot
convert one file: of another encoding than an attribute demands, or of a filter that fails.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from coding_agents_guest.gitlinks import listed, what_stands
from coding_agents_guest.gitwork import Git, GitFailedError
from coding_agents_guest.records import dataclass

# git-ls-files(1), -v: in lower case what is assumed to be unchanged, S for skip-worktree. Both at stage 0 alone, and
# not of gitlinks, which are out of the index.
_MARK = re.compile(rb"\0([a-zS]) (?![0-7]*[1357]6[0-7]{4} )[0-7]+ [0-9a-f]+ 0\t([^\0]+)")
_ADD = ("--add", "--remove", "--replace", "-z", "--stdin")
# gitattributes(5): the conversions that can fail, and what an attribute is when nothing gives it a value.
_CONVERSIONS = ("filter", "working-tree-encoding")
_NO_VALUE = (b"unspecified", b"unset", b"set")
# Each costs a git that reads the index, and two of a hundred files may already fail.
_MAX_TRIES = 60


@dataclass(frozen=True)
class Staged:
    """What could not be staged: `left_out` not at all, `as_it_is` without the conversion that git should make."""

    left_out: tuple[str, ...] = ()
    as_it_is: tuple[str, ...] = ()

    def __add__(self, other: Staged) -> Staged:
        return Staged(self.left_out + other.left_out, self.as_it_is + other.as_it_is)


def show_hidden(git: Git, listing: bytes) -> None:
    """Take the marks out of the index that hide changes: they are wishes of the agent. `listing`: its entries.

    What is marked as no part of a sparse work tree (skip-worktree) stays so, unless it is there.
    """
    marks = [(mark, os.fsdecode(path)) for mark, path in _MARK.findall(listing)]
    assumed = [path for mark, path in marks if mark.islower()]
    known: dict[str, str] = {}
    present = [path for mark, path in marks if mark in b"Ss" and what_stands(top(git), path, known)]
    if assumed:
        git.run("update-index", "-z", "--no-assume-unchanged", "--stdin", stdin=records(assumed))
    if present:
        git.run("update-index", "-z", "--no-skip-worktree", "--stdin", stdin=records(present))


def show_come_back(git: Git) -> None:
    """The same for an index of ours that earlier had no mark but of what was not there."""
    with Path(git.environment["GIT_INDEX_FILE"]).open("rb") as index:
        version = index.read(8)[-1:]
    # gitformat-index(5): entries of version 2 have no room for skip-worktree, and git writes 3 only where one needs it.
    if version != b"\2":
        show_hidden(git, listed(git))


def stage_tracked(git: Git) -> Staged:
    """Bring what changed of the tracked files into the index."""
    changed = ("diff-files", "-z", "--name-only", "--ignore-submodules=all")
    try:
        incomplete = git.status("add", "--update", "--sparse", "--ignore-errors", expected=(0, 1))
    except GitFailedError:
        try:
            paths = git.paths(*changed)
        except (
            GitFailedError
        ):  # of a file as young as the index, git needs the content to see whether it changed
            paths = _converted(git, git.paths("ls-files", "-z", "--cached"))
        return _stage_each(git, list(dict.fromkeys(paths)))
    return Staged(tuple(git.paths(*changed))) if incomplete else Staged()


def stage_changed(git: Git, modified: list[str], deleted: list[str]) -> Staged:
    """Bring what is known to have changed into the index."""
    forget(git, deleted)
    if not modified:
        return Staged()
    try:
        git.run("update-index", *_ADD, stdin=records(modified))
    except GitFailedError:
        return _stage_each(git, modified)
    return Staged()


def stage_untracked(git: Git, paths: list[str]) -> Staged:
    """Bring the untracked `paths` into the index."""
    if not paths:
        return Staged()  # git would read the whole index to do nothing
    try:
        warned = git.warnings("update-index", "--add", "--remove", "-z", "--stdin", stdin=records(paths))
        staged = Staged()
    except GitFailedError as error:
        warned = str(error)
        staged = _stage_each(git, paths)
    if not warned:
        return staged
    still = git.paths("ls-files", "-z", "--others", "--exclude-standard")
    refused = set(paths).intersection(still).difference(staged.left_out)
    return staged + Staged(tuple(sorted(refused)))  # such as a link that is named .gitmodules


def forget(git: Git, paths: list[str]) -> None:
    """Take `paths` out of the index."""
    if paths:
        git.run("update-index", "--force-remove", "-z", "--stdin", stdin=records(paths))


def top(git: Git) -> Path:
    """Where the work tree of `git` is."""
    return Path(git.environment.get("GIT_WORK_TREE", git.directory))


def records(paths: list[str]) -> bytes:
    """`paths` as git reads them with -z."""
    return b"".join(os.fsencode(path) + b"\0" for path in paths)


def _stage_each(git: Git, paths: list[str]) -> Staged:
    """Stage `paths` although one of them makes git give up.

    A file that git cannot convert is taken as the bytes that it is.
    """
    readable = {path for path in paths if is_readable(top(git) / path)}
    converted = _converted(git, [path for path in paths if path in readable and _is_file(top(git) / path)])
    forget(git, converted)  # or else git may have to convert them to write the index
    git.run("update-index", *_ADD, stdin=records(sorted(readable.difference(converted))))
    as_it_is = _stage_halves(git, converted, [_MAX_TRIES])
    return Staged(tuple(path for path in paths if path not in readable), tuple(as_it_is))


def _converted(git: Git, files: list[str]) -> list[str]:
    """Those of `files` for which an attribute names a program or an encoding."""
    answers = git.run("check-attr", "-z", "--stdin", *_CONVERSIONS, stdin=records(files)).split(b"\0")
    named = {path for path, value in zip(answers[::3], answers[2::3]) if value not in _NO_VALUE}
    return [path for path in files if os.fsencode(path) in named]


def _stage_halves(git: Git, files: list[str], tries: list[int]) -> list[str]:
    """Stage `files`, half by half down to the ones that git cannot convert; returns those, staged as they are."""
    if tries[0] and files:
        tries[0] -= 1
        try:
            git.run("update-index", *_ADD, stdin=records(files))
        except GitFailedError:
            if len(files) > 1:
                half = len(files) // 2
                return _stage_halves(git, files[:half], tries) + _stage_halves(git, files[half:], tries)
        else:
            return []
    _stage_bytes(git, files)
    return files


def _stage_bytes(git: Git, files: list[str]) -> None:
    entries = []
    oids = _hashed(git, [str(top(git) / path) for path in files])
    for path, oid in zip(files, oids):
        mode = b"100755" if (top(git) / path).lstat().st_mode & stat.S_IXUSR else b"100644"
        entries.append(b"%s %s\t%s\0" % (mode, oid.encode(), os.fsencode(path)))
    if entries:
        git.run("update-index", "-z", "--index-info", stdin=b"".join(entries))


def _hashed(git: Git, files: list[str]) -> list[str]:
    """The ids of `files`, whose bytes are objects then."""
    if any("\n" in file for file in files):
        return [git.text("hash-object", "-w", "--no-filters", "--", file) for file in files]
    names = b"".join(os.fsencode(file) + b"\n" for file in files)
    return git.run("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=names).decode("ascii").split()


def is_readable(path: Path, *, gone: bool = True) -> bool:
    """Whether git can stage what is at `path`; `gone` says so of nothing."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return gone
    return stat.S_ISLNK(mode) or stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and os.access(path, os.R_OK))


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
