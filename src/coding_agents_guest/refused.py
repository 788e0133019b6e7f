"""Work that the relay does not take must not keep the rest from coming home.

The relay refuses a push whole, for one object too large or one that its fsck rejects. Which one it is it says in words
for people; so the files that may be the reason are those that are large or that git reads a meaning from.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.gitwork import Git, GitFailedError
from coding_agents_guest.records import dataclass
from coding_agents_guest.snapshot import dated

_LARGE = 16 << 20  # bytes; relay.object is 100 MiB as it comes
_MEANT_FOR_GIT = frozenset({".gitattributes", ".gitmodules"})
_NAMED = 5


@dataclass(frozen=True)
class Taken:
    """What the relay took: `commit`. It lacks files, of which `lacks` is a digest and `why` tells a person."""

    commit: str = ""
    lacks: str = ""
    why: str = ""


_NOTHING = Taken()


@dataclass(frozen=True)
class _Suspect:
    """A file's blob, and what is in its place without it, as `update-index --index-info` reads it."""

    blob: str
    before: str


def push_taken(
    push: Callable[[str], object], git: Git, commit: str, parent: str, before: Taken = _NOTHING
) -> Taken:
    """Push `commit`, made upon `parent` ("" for none), or without those files that may be why it is refused.

    `before` is what was taken the last time: the files that it lacks are not sent again while they are the same.
    Returns the same commit each time. Raises GitFailedError.
    """
    found = _suspects(git, commit, parent) if before.lacks else {}
    why = before.why
    if not found or _digest(found) != before.lacks:
        try:
            push(commit)
            return Taken(commit)
        except GitFailedError as error:
            found = found or _suspects(git, commit, parent)
            if not found:
                raise
            why = _told(found, str(error))
    less = _without(git, commit, parent, found)
    push(less)
    return Taken(less, _digest(found), why)


def _digest(found: Mapping[str, _Suspect]) -> str:
    names = sorted(f"{one.blob} {path}" for path, one in found.items())
    return hashlib.sha256(os.fsencode("\0".join(names))).hexdigest()


def _told(paths: Collection[str], why: str) -> str:
    """How a person is told of them."""
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return (
        f"left in the volume, for one of them is not taken: {', '.join(sorted(paths)[:_NAMED])}{more} ({why})"
    )


def _suspects(git: Git, commit: str, parent: str) -> dict[str, _Suspect]:
    """The paths of `commit` that may be why it is refused upon `parent` ("" for none). Raises GitFailedError."""
    before = parent or git.text("mktree")
    # For gitlinks git would read .gitmodules, which may be anything.
    options = ("--raw", "--no-renames", "--no-abbrev", "--ignore-submodules=all")
    fields = git.paths("diff-tree", "-r", "-z", *options, before, commit)
    changes = [(info[1:].split(" "), path) for info, path in zip(fields[::2], fields[1::2])]
    blobs = [words[3] for words, _ in changes if words[1][:2] in ("10", "12")]
    asked = "".join(f"{oid}\n" for oid in blobs).encode()
    listed = git.run("cat-file", "--batch-check=%(objectsize)", stdin=asked).split() if blobs else []
    sizes = dict(zip(blobs, listed))
    found = {}
    for (old_mode, _, old, new, _), path in changes:
        large = sizes.get(new, b"0").isdigit() and int(sizes.get(new, b"0")) >= _LARGE
        if new in sizes and (large or path.rpartition("/")[2] in _MEANT_FOR_GIT):
            mode = "0" if old_mode == "000000" else old_mode
            found[path] = _Suspect(new, f"{mode} {old}")
    return found


def _without(git: Git, commit: str, parent: str, paths: Mapping[str, _Suspect]) -> str:
    """`commit` upon `parent` with `paths` as they are there; the same commit each time. Raises GitFailedError."""
    index = Path(f"{git.environment['GIT_INDEX_FILE']}.less")
    inner = git.within(GIT_INDEX_FILE=str(index))
    try:
        inner.run("read-tree", commit)
        records = (b"%b\t%b\0" % (one.before.encode(), os.fsencode(path)) for path, one in paths.items())
        inner.run("update-index", "-z", "--index-info", stdin=b"".join(records))
        tree = inner.text("write-tree")
    finally:
        for leftover in (index, index.with_name(index.name + ".lock")):
            with suppress(FileNotFoundError):
                leftover.unlink()
    date, _, message = git.text("log", "-1", "--format=%cI%n%B", commit).partition("\n")
    parents = ("-p", parent) if parent else ()
    made = dated(git, date or "@1 +0000").run("commit-tree", tree, *parents, stdin=os.fsencode(message))
    return made.decode().strip()
