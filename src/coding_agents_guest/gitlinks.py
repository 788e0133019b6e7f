"""Commits of other repositories that an index records (gitlinks): taken out of it for git, and put back by us.

For each of them git looks into the repository at its path, and starts another git there with that one's
configuration: in a salvage, programs of a hostile volume's choice. One that is odd ends the command for all. So
git meets none while it reads a work tree, and what each of them stands on is read here as bytes.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.gitwork import Git, GitFailedError
from coding_agents_guest.records import dataclass, replace
from coding_agents_guest.volume import read_volume
from coding_agents_guest.volume_refs import UnreadableVolumeError

# gitformat-index(5): mode 160000 as a 32-bit number, in every version of the format; where these bytes are missing
# no git has written such an entry, and 100,000 others need not be listed.
_GITLINK_MODE = b"\0\0\xe0\0"
# git looks at four bits of the mode alone. Of an index that is made to deceive, all may be set in the others.
_GITLINK = re.compile(rb"\0(\S) [0-7]*[1357]6[0-7]{4} ([0-9a-f]+) (\d)\t([^\0]+)")
_OURS = b"2"  # the stage of our side in a conflict


@dataclass(frozen=True)
class Gitlink:
    """A path at which an index records `commit`, "" where nothing is recorded yet.

    `skipped` when it is marked as no part of a sparse work tree.
    """

    path: str
    commit: str
    skipped: bool = False


@dataclass(frozen=True)
class Standing:
    """What stands at the paths of gitlinks: `commits` to record, files (`instead`), or none of both.

    `unread`: those that have a repository whose HEAD cannot be read, so that what was recorded stays.
    """

    commits: dict[str, str]
    instead: list[str]
    unread: list[str]


def listed(git: Git) -> bytes:
    """All entries of the index with their marks, each with a NUL before it."""
    return b"\0" + git.run("ls-files", "-z", "-v", "--stage")


def gitlinks_in(listing: bytes) -> list[Gitlink]:
    """The gitlinks in what `listed` gave; of a conflict our side."""
    found: dict[str, Gitlink] = {}
    for mark, commit, stage, name in _GITLINK.findall(listing):
        path = os.fsdecode(name)
        if path not in found or stage == _OURS:
            found[path] = Gitlink(path, commit.decode(), mark in b"Ss")
    return list(found.values())


def shielded(git: Git) -> Git:
    """The same git, that ends for no repository in its work tree: to see whether something is one, git reads its
    `commondir`, and gives up when that one is odd. With this variable it asks nobody."""
    git_dir = git.environment.get("GIT_DIR") or git.directory / ".git"
    if not Path(git_dir).is_dir() or os.path.lexists(Path(git_dir, "commondir")):
        git_dir = git.text("rev-parse", "--git-common-dir")  # of a linked work tree
    return git.within(GIT_COMMON_DIR=str(git.directory / git_dir))


def may_have_gitlinks(git: Git) -> bool:
    """Whether the index of `git`, one that we have written, needs to be listed."""
    index = Path(git.environment["GIT_INDEX_FILE"])
    return index.exists() and _GITLINK_MODE in index.read_bytes()


def take_out(git: Git, links: Sequence[Gitlink]) -> None:
    """Take `links`, which are all, out of the index. Raises GitFailedError when one cannot be."""
    if not links:
        return
    names = b"".join(os.fsencode(link.path) + b"\0" for link in links)
    git.run("update-index", "--force-remove", "-z", "--stdin", stdin=names)
    # git tidies up the names that it is given: of `./a` in an index it would have removed `a`.
    if gitlinks_in(listed(git)):
        raise GitFailedError("the index records repositories at paths that there cannot be")


def look_at(git: Git, top: Path, links: Sequence[Gitlink], *, around: Path, ask: bool) -> Standing:
    """See what stands in the work tree at `top` where `links` were. Raises GitFailedError when time is over.

    `around` is the work tree around that one, anywhere in which their git directories may be.
    `ask` git in those whose HEAD is of a kind that only git knows: nowhere but in the agent's own container.
    """
    standing = Standing({}, [], [])
    if not links:
        return standing
    digits = {"sha256": 64}.get(git.answer("rev-parse", "--show-object-format"), 40)
    known: dict[str, str] = {}
    for link in links:
        if time.monotonic() > git.deadline:
            raise GitFailedError("looking at the repositories inside ran out of time")
        kind = what_stands(top, link.path, known)
        commit = ""
        if kind == "directory" and _is_filled(top / link.path):
            if os.path.lexists(top / link.path / ".git"):  # or else of files alone, to be read as such
                found = _head_of(git, around, top / link.path, digits, ask=ask)
                commit = found or link.commit
                standing.unread.extend([link.path] if commit and not found else [])
        elif kind == "directory":
            commit = link.commit  # a submodule that was never filled
        elif kind == "":
            commit = link.commit if link.skipped else ""
        elif kind == "file":
            standing.instead.append(link.path)
        if commit:
            standing.commits[link.path] = commit
    return standing


def put_back(git: Git, links: Sequence[Gitlink], commits: dict[str, str]) -> None:
    """Record `commits` by their paths, in place of whatever the index has there."""
    if not commits:
        return
    entries = b"".join(
        b"160000 %s\t%s\0" % (oid.encode(), os.fsencode(path)) for path, oid in commits.items()
    )
    git.run("update-index", "-z", "--index-info", stdin=entries)
    skipped = [os.fsencode(link.path) + b"\0" for link in links if link.skipped and link.path in commits]
    if skipped:
        git.run("update-index", "-z", "--skip-worktree", "--stdin", stdin=b"".join(skipped))


def what_stands(top: Path, path: str, known: dict[str, str]) -> str:
    """`directory`, `file` (of any kind), "" for nothing, or `way` when something else than directories leads there.

    `known` remembers what the directories are on the way to many paths.
    """
    here = str(top)
    *parents, name = path.split("/")
    for parent in parents:
        here = f"{here}/{parent}"
        if here not in known:
            known[here] = _kind(here)
        if known[here] != "directory":
            return "way" if known[here] else ""
    return _kind(f"{here}/{name}")


def _kind(place: str) -> str:
    try:
        return "directory" if stat.S_ISDIR(os.lstat(place).st_mode) else "file"
    except OSError:
        return ""


def _is_filled(directory: Path) -> bool:
    """Whether `directory` holds anything; what cannot be read stays as it is recorded."""
    try:
        with os.scandir(directory) as entries:
            return any(entries)
    except OSError:
        return False


def _head_of(git: Git, around: Path, place: Path, digits: int, *, ask: bool) -> str:
    """The commit that the repository at `place` stands on, "" when it cannot be read or recorded."""
    commit = ""
    with suppress(UnreadableVolumeError, OSError, ValueError):
        commit = read_volume(around, inside=str(place.relative_to(around))).head
    if not commit and ask:
        variables = {name: value for name, value in git.environment.items() if name != "GIT_COMMON_DIR"}
        inner = replace(git, directory=place, environment=variables)
        inner = inner.within(GIT_CEILING_DIRECTORIES=str(place.parent))
        commit = inner.answer("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    # The relay takes no tree with an id of zeros.
    return commit if len(commit) == digits and set(commit) != {"0"} else ""
