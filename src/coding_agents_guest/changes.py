"""What changed in a work tree since an index was brought up to date with it, in one pass of git over the files."""

from __future__ import annotations

from coding_agents_guest.gitwork import Git
from coding_agents_guest.records import dataclass, replace

# The untracked cache (git-update-index(1)) lives in the index: a directory whose own time is as it was is not read
# again. git uses it for single files from 2.37 on, where the setting says that it is for them.
# Threads would be faster, and take more of the agent's processors.
_SETTINGS = ("core.untrackedCache=true", "status.showUntrackedFiles=all")
# git-status(1), porcelain format version 2: how many fields stand before the path.
_FIELDS = {"1": 8, "u": 10}


@dataclass(frozen=True)
class Changes:
    """Paths by what happened to them.

    `modified` and `deleted` are of the files against the index; `added` and `gone` are of the index against HEAD;
    an `untracked` path that ends in "/" is a repository. `warnings` is what git said on the way.
    """

    modified: list[str]
    deleted: list[str]
    untracked: list[str]
    added: list[str]
    gone: list[str]
    warnings: str


def with_cache(git: Git) -> Git:
    """The same git, which keeps the untracked cache in its index; one without these settings throws it away."""
    return replace(git, settings=(*git.settings, *_SETTINGS))


def find_changes(git: Git) -> Changes:
    """Compare HEAD, the index of `git` and its work tree. Raises GitFailedError.

    The index must be our own: git writes what it learned into it.
    """
    changes = Changes([], [], [], [], [], "")
    options = ("--porcelain=v2", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=all")
    entries, warnings = git.within(GIT_OPTIONAL_LOCKS="1").paths_and_warnings("status", *options)
    for entry in entries:
        kind, _, rest = entry.partition(" ")
        if kind == "?":
            changes.untracked.append(rest)
        elif kind in _FIELDS:
            staged, unstaged, path = rest[0], rest[1], entry.split(" ", _FIELDS[kind])[-1]
            if staged in "AD":
                (changes.added if staged == "A" else changes.gone).append(path)
            if unstaged != ".":
                (changes.deleted if unstaged == "D" else changes.modified).append(path)
    return replace(changes, warnings=warnings)
