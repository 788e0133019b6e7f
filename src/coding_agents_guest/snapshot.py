"""A work tree as a git tree: everything that git does not ignore, less what must not be committed.

Works on an index file of its own (GIT_INDEX_FILE), so that neither a lock nor a merge under way in the real
index matters. Shared by the save at the end of a session and by salvage.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.changes import Changes, find_changes
from coding_agents_guest.deny import DenyList
from coding_agents_guest.events import GuestConfig
from coding_agents_guest.gitlinks import (
    Gitlink,
    Standing,
    gitlinks_in,
    listed,
    look_at,
    may_have_gitlinks,
    put_back,
    shielded,
    take_out,
)
from coding_agents_guest.gitwork import Git
from coding_agents_guest.records import dataclass
from coding_agents_guest.staging import (
    Staged,
    forget,
    is_readable,
    records,
    show_come_back,
    show_hidden,
    stage_changed,
    stage_tracked,
    stage_untracked,
    top,
)

# The only word of git on a directory that it cannot read (dir.c); in English, as LC_ALL makes it, and cut off
# where the path is longer than a path may be.
_SHUT_DIRECTORY = re.compile(r"^warning: could not open directory '(.*?)(?:': .*)?$", re.MULTILINE)
_COMMITTER_DATE = re.compile(rb"^committer .*> (\d{1,18}) [+-]\d+$", re.MULTILINE)
_NAMED = 10


@dataclass(frozen=True)
class Snapshot:
    """`tree` holds the work; `left_out` are the paths that it lacks on purpose or that could not be read.

    `nested` are the repositories in the work tree, whose content is not part of the tree. `changed` are the paths
    that differed from the snapshot before this one, where there was one to build on. `notes` are for a person, and
    so is `trouble`: what the host is to look at itself.
    """

    tree: str
    left_out: tuple[str, ...]
    nested: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    trouble: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    """What a work tree has beyond what is staged of it now.

    `repositories` stand where the index has files, and are out of it.
    """

    untracked: list[str]
    added: list[str]  # in the index, but not in HEAD
    changed: list[str]
    repositories: list[str]
    staged: Staged
    warnings: str


def take_snapshot(
    git: Git,
    *,
    head: str,
    deny: DenyList,
    again: Git | None = None,
    around: Path | None = None,
    ask: bool = False,
) -> Snapshot:
    """Add the whole work tree to the index of `git` and write it as a tree. Raises GitFailedError.

    `head` is the commit that says what git tracks, "" for none: a deny-listed file that is only staged counts
    as untracked. Conflicts under way are taken as they stand in the files. Of a nested repository at most the
    id of its commit is in the tree; no git looks into it, unless one may be asked there (`ask`). Its git directory
    may be anywhere in the work tree, or in that `around` it. git itself never sees sockets, pipes and devices.

    `again` says that the index is as an earlier snapshot left it, so that only what changed since is read; it is
    git with the index that the first one began with.
    """
    git = shielded(git)
    if head and not Path(git.environment["GIT_INDEX_FILE"]).exists():
        git.run("read-tree", head)  # or else what git tracks although a rule ignores it would be left out
    listing = b"" if again and not may_have_gitlinks(git) else listed(git)
    links = gitlinks_in(listing)
    take_out(git, links)
    found = _stage_changes(git, again) if again else _stage_all(git, head, listing, links)
    links += [Gitlink(path, "") for path in found.repositories]
    standing = look_at(git, top(git), links, around=around or top(git), ask=ask)
    untracked = _outside(found.untracked, standing) + standing.instead
    wanted = [path for path in dict.fromkeys(untracked) if _is_wanted(git, path, deny)]
    staged = found.staged + stage_untracked(git, wanted)
    denied = [path for path in found.added if deny.denies(path)]
    forget(git, denied)
    put_back(git, links, standing.commits)
    new = {path for path in untracked if path.endswith("/")}
    left_out = (set(untracked) - set(wanted) - new).union(
        denied, staged.left_out, _SHUT_DIRECTORY.findall(found.warnings)
    )
    nested = {path.rstrip("/") for path in new}.union(standing.commits)
    changed = (*found.changed, *wanted) if again else ()
    return Snapshot(
        git.text("write-tree"),
        tuple(sorted(left_out)),
        tuple(sorted(nested)),
        changed,
        _notes(staged),
        tuple(
            f"what {path} stands on cannot be read: it stays recorded as it was" for path in standing.unread
        ),
    )


def _stage_all(git: Git, head: str, listing: bytes, links: list[Gitlink]) -> _Found:
    show_hidden(git, listing)
    untracked, warnings = git.paths_and_warnings("ls-files", "-z", "--others", "--exclude-standard")
    # Where a file was, git would look what the repository stands on that is there now.
    inside = [path.rstrip("/") for path in untracked if path.endswith("/")]
    tracked = {path.partition(b"\t")[2] for path in listing.split(b"\0")} if inside else set()
    tracked.difference_update(os.fsencode(link.path) for link in links)
    repositories = [path for path in inside if os.fsencode(path) in tracked]
    forget(git, repositories)
    staged = stage_tracked(git)
    return _Found(untracked, _staged_new(git, head), [], repositories, staged, warnings)


def _stage_changes(git: Git, original: Git) -> _Found:
    show_come_back(git)
    changes = find_changes(git)
    modified = changes.modified + _come_back(git, original, changes)
    repositories = [path for path in modified if _is_directory(top(git) / path)]
    modified = sorted(set(modified).difference(repositories))
    deleted = changes.deleted + _ignored_by_now(original, changes) + repositories
    staged = stage_changed(git, modified, deleted)
    changed = modified + deleted
    return _Found(changes.untracked, changes.added, changed, repositories, staged, changes.warnings)


def _come_back(git: Git, original: Git, changes: Changes) -> list[str]:
    """Files that are tracked, were missing at an earlier snapshot and are there again.

    A rule may ignore them: then they are not even untracked.
    """
    there = set(changes.gone).difference(changes.untracked)
    there = {path for path in there if _is_there(top(git) / path)}
    return sorted(there.intersection(original.paths("ls-files", "-z", "--cached"))) if there else []


def _outside(untracked: list[str], standing: Standing) -> list[str]:
    """Those of `untracked` that are in none of the repositories that are recorded: not all of them are one to git."""
    if not standing.commits:
        return untracked
    return [path for path in untracked if not _is_below(path, standing.commits)]


def _ignored_by_now(original: Git, changes: Changes) -> list[str]:
    """Files of an earlier snapshot that are untracked and that a rule ignores now.

    The rule's own file may be among them: a `.gitignore` of `*` is no change that git tells of.
    """
    there = sorted(set(changes.added).difference(changes.deleted))
    if not there:
        return []
    # It takes no literal pathspecs; behind "./" nothing is magic, and without an index nothing is a pattern.
    answer = original.within(GIT_LITERAL_PATHSPECS="0").run(
        "check-ignore", "--no-index", "-z", "--stdin", stdin=records([f"./{path}" for path in there]), expected=(0, 1)
    )  # fmt: skip
    ignored = {os.fsdecode(path[2:]) for path in answer.split(b"\0") if path}
    return sorted(ignored.difference(original.paths("ls-files", "-z", "--cached"))) if ignored else []


def _is_below(path: str, directories: Container[str]) -> bool:
    """Whether `path`, with a "/" at its end if it is a directory, is in one of `directories`."""
    end = path.find("/")
    while 0 <= end < len(path) - 1:
        if path[:end] in directories:
            return True
        end = path.find("/", end + 1)
    return False


def _notes(staged: Staged) -> tuple[str, ...]:
    if not staged.as_it_is:
        return ()
    more = len(staged.as_it_is) - _NAMED
    paths = ", ".join(staged.as_it_is[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return (f"saved as they are, since git could not convert them: {paths}",)


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
    newest = _committed(git, parent) if parent else 1
    differing = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", "--ignore-submodules=all")
    for path in git.paths(*differing, before, tree):
        with suppress(OSError):
            newest = max(newest, int((work / path).lstat().st_mtime))
    return f"@{min(newest, int(time.time()))} +0000"


def _committed(git: Git, commit: str) -> int:
    """When `commit` was made; 1 for one that does not say so."""
    date = _COMMITTER_DATE.search(git.run("cat-file", "commit", commit).partition(b"\n\n")[0])
    return int(date[1]) if date else 1


def dated(git: Git, date: str) -> Git:
    """The same git, whose commits are of `date`."""
    return git.within(GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)


def _is_wanted(git: Git, path: str, deny: DenyList) -> bool:
    is_nested_repository = path.endswith("/")
    return not is_nested_repository and not deny.denies(path) and is_readable(top(git) / path, gone=False)


def _staged_new(git: Git, head: str) -> list[str]:
    if not head:
        return git.paths("ls-files", "-z", "--cached")
    # Without a look at gitlinks: for those git would read .gitmodules, which may be anything.
    new = ("--cached", "--name-only", "--diff-filter=A", "--no-renames", "--ignore-submodules=all")
    return git.paths("diff-index", "-z", *new, head)


def _is_there(path: Path) -> bool:
    """Whether something else than a directory is at `path`."""
    return os.path.lexists(path) and not _is_directory(path)


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
