"""A work tree as a git tree: everything that git does not ignore, less what must not be committed.

Works on an index file of its own (GIT_INDEX_FILE), so that neither a lock nor a merge under way in the real
index matters. Shared by the save at the end of a session and by salvage.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.changes import Changes, find_changes
from coding_agents_guest.deny import DenyList
from coding_agents_guest.events import GuestConfig
from coding_agents_guest.gitwork import Git
from coding_agents_guest.records import dataclass
from coding_agents_guest.staging import (
    drop_hollow,
    records,
    show_hidden,
    stage_changed,
    stage_tracked,
    stage_untracked,
    top,
)

# The only word of git on a directory that it cannot read (dir.c); in English, as LC_ALL makes it, and cut off
# where the path is longer than a path may be.
_SHUT_DIRECTORY = re.compile(r"^warning: could not open directory '(.*?)(?:': .*)?$", re.MULTILINE)

# gitformat-index(5): mode 160000 as a 32-bit number, in every version of the format; where these bytes are missing
# there is no such entry, and 100,000 others need not be listed.
_GITLINK_MODE = b"\0\0\xe0\0"
_GITLINK = re.compile(rb"(?:\A|(?<=\0))160000 [0-9a-f]+ \d\t([^\0]+)")


@dataclass(frozen=True)
class Snapshot:
    """`tree` holds the work; `left_out` are the paths that it lacks on purpose or that could not be read.

    `nested` are the repositories in the work tree, whose content is not part of the tree. `changed` are the paths
    that differed from the snapshot before this one, where there was one to build on.
    """

    tree: str
    left_out: tuple[str, ...]
    nested: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    """What a work tree has beyond what is staged of it now."""

    untracked: list[str]
    added: list[str]  # in the index, but not in HEAD
    changed: list[str]
    unreadable: list[str]
    warnings: str


def take_snapshot(git: Git, *, head: str, deny: DenyList, again: Git | None = None) -> Snapshot:
    """Add the whole work tree to the index of `git` and write it as a tree. Raises GitFailedError.

    `head` is the commit that says what git tracks, "" for none: a deny-listed file that is only staged counts
    as untracked. Conflicts under way are taken as they stand in the files. Of a nested repository at most the
    id of its commit is in the tree. git itself never sees sockets, pipes and devices.

    `again` says that the index is as an earlier snapshot left it, so that only what changed since is read; it is
    git with the index that the first one began with.
    """
    if head and not Path(git.environment["GIT_INDEX_FILE"]).exists():
        git.run("read-tree", head)  # or else what git tracks although a rule ignores it would be left out
    drop_hollow(git, gitlinks(git))
    found = _stage_changes(git, again) if again else _stage_all(git, head)
    wanted = [path for path in found.untracked if _is_wanted(git, path, deny)]
    refused = stage_untracked(git, wanted)
    denied = [path for path in found.added if deny.denies(path)]
    if denied:
        git.run("update-index", "--force-remove", "-z", "--stdin", stdin=records(denied))
    new = {path for path in found.untracked if path.endswith("/")}
    left_out = (set(found.untracked) - set(wanted) - new).union(
        denied, found.unreadable, refused, _SHUT_DIRECTORY.findall(found.warnings)
    )
    nested = {path.rstrip("/") for path in new} | set(gitlinks(git))
    changed = (*found.changed, *wanted) if again else ()
    return Snapshot(git.text("write-tree"), tuple(sorted(left_out)), tuple(sorted(nested)), changed)


def _stage_all(git: Git, head: str) -> _Found:
    show_hidden(git)
    unreadable = stage_tracked(git)
    untracked, warnings = git.paths_and_warnings("ls-files", "-z", "--others", "--exclude-standard")
    return _Found(untracked, _staged_new(git, head), [], unreadable, warnings)


def _stage_changes(git: Git, original: Git) -> _Found:
    changes = find_changes(git)
    modified = changes.modified + _come_back(git, original, changes)
    unreadable = stage_changed(git, modified, changes.deleted)
    changed = modified + changes.deleted
    return _Found(changes.untracked, changes.added, changed, unreadable, changes.warnings)


def _come_back(git: Git, original: Git, changes: Changes) -> list[str]:
    """Files that are tracked, were missing at an earlier snapshot and are there again.

    A rule may ignore them: then they are not even untracked.
    """
    there = set(changes.gone).difference(changes.untracked)
    there = {path for path in there if os.path.lexists(top(git) / path)}
    return sorted(there.intersection(original.paths("ls-files", "-z", "--cached"))) if there else []


def gitlinks(git: Git) -> list[str]:
    """The paths in the index of `git` at which it records a commit of another repository."""
    index = Path(git.environment["GIT_INDEX_FILE"])
    if not index.exists() or _GITLINK_MODE not in index.read_bytes():
        return []
    return listed_gitlinks(git)


def listed_gitlinks(git: Git) -> list[str]:
    """The same, without a look at the index first."""
    return [os.fsdecode(path) for path in _GITLINK.findall(git.run("ls-files", "-z", "--stage"))]


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


def newest_change(git: Git, tree: str, parent: str, work: Path) -> str:
    """When the newest file below `work` was changed that `tree` has otherwise than `parent` ("" for none), for git.

    A commit with this date and not that of now is the same commit when it is made again.
    """
    before = parent or git.text("mktree")
    newest = int(git.text("log", "-1", "--format=%ct", parent)) if parent else 1
    for path in git.paths("diff-tree", "-r", "-z", "--name-only", "--no-renames", before, tree):
        with suppress(OSError):
            newest = max(newest, int((work / path).lstat().st_mtime))
    return f"@{min(newest, int(time.time()))} +0000"


def dated(git: Git, date: str) -> Git:
    """The same git, whose commits are of `date`."""
    return git.within(GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)


def _is_wanted(git: Git, path: str, deny: DenyList) -> bool:
    full = top(git) / path
    is_nested_repository = path.endswith("/")
    return (
        not is_nested_repository and not deny.denies(path) and (full.is_symlink() or os.access(full, os.R_OK))
    )


def _staged_new(git: Git, head: str) -> list[str]:
    if not head:
        return git.paths("ls-files", "-z", "--cached")
    return git.paths("diff-index", "-z", "--cached", "--name-only", "--diff-filter=A", "--no-renames", head)
