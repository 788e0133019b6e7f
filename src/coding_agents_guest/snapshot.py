"""A work tree as a git tree: everything that git does not ignore, less what must not be committed.

Works on an index file of its own (GIT_INDEX_FILE), so that neither a lock nor a merge under way in the real
index matters. Shared by the save at the end of a session and by salvage.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from coding_agents_guest.deny import DenyList
from coding_agents_guest.events import GuestConfig
from coding_agents_guest.gitwork import Git
from coding_agents_guest.records import dataclass

# The only word of git on a directory that it cannot read (dir.c); in English, as LC_ALL makes it, and cut off
# where the path is longer than a path may be.
_SHUT_DIRECTORY = re.compile(r"^warning: could not open directory '(.*?)(?:': .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Snapshot:
    """`tree` holds the work; `left_out` are the paths that it lacks on purpose or that could not be read."""

    tree: str
    left_out: tuple[str, ...]


def take_snapshot(git: Git, *, head: str, deny: DenyList) -> Snapshot:
    """Add the whole work tree to the index of `git` and write it as a tree. Raises GitFailedError.

    `head` is the commit that says what git tracks, "" for none: a deny-listed file that is only staged counts
    as untracked. Conflicts under way are taken as they stand in the files. Nested repositories are left out:
    their commits are nowhere else. git itself never sees sockets, pipes and devices.
    """
    git.run("add", "--update", "--sparse", "--ignore-errors", expected=(0, 1))
    untracked, warnings = git.paths_and_warnings("ls-files", "-z", "--others", "--exclude-standard")
    wanted = [path for path in untracked if _is_wanted(git, path, deny)]
    git.run("update-index", "--add", "--remove", "-z", "--stdin", stdin=_records(wanted))
    staged = [path for path in _staged_new(git, head) if deny.denies(path)]
    git.run("update-index", "--force-remove", "-z", "--stdin", stdin=_records(staged))
    unreadable = git.paths("diff-files", "-z", "--name-only", "--ignore-submodules=all")
    left_out = (set(untracked) - set(wanted)).union(staged, unreadable, _SHUT_DIRECTORY.findall(warnings))
    return Snapshot(git.text("write-tree"), tuple(sorted(left_out)))


def commit_snapshot(git: Git, snapshot: Snapshot, config: GuestConfig, *, parent: str, message: str) -> str:
    """Commit `snapshot` on `parent` ("" for none), moving no ref. Returns the id, "" when nothing differs.

    Upon the base, what the user had not committed at launch is no work of the agent: alone it makes no commit.
    """
    before = git.text("rev-parse", f"{parent}^{{tree}}") if parent else git.text("mktree")
    if snapshot.tree == before or (parent == config.base and snapshot.tree == config.launch_tree):
        return ""
    parents = ("-p", parent) if parent else ()
    commit = git.run("commit-tree", snapshot.tree, *parents, stdin=(message.rstrip() + "\n").encode())
    return commit.decode().strip()


def _is_wanted(git: Git, path: str, deny: DenyList) -> bool:
    full = Path(git.environment.get("GIT_WORK_TREE", git.directory), path)
    is_nested_repository = path.endswith("/")
    return (
        not is_nested_repository and not deny.denies(path) and (full.is_symlink() or os.access(full, os.R_OK))
    )


def _staged_new(git: Git, head: str) -> list[str]:
    if not head:
        return git.paths("ls-files", "-z", "--cached")
    return git.paths("diff-index", "-z", "--cached", "--name-only", "--diff-filter=A", "--no-renames", head)


def _records(paths: list[str]) -> bytes:
    return b"".join(os.fsencode(path) + b"\0" for path in paths)
