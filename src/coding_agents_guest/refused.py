"""Work that the relay does not take must not keep the rest from coming home.

The relay refuses a push whole, for one object too large or one that its fsck rejects. Which one it is it says in words
for people; so the files that may be the reason are those that are large or that git reads a meaning from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from coding_agents_guest.gitwork import Git
from coding_agents_guest.snapshot import dated

_LARGE = 16 << 20  # bytes; relay.object is 100 MiB as it comes
_MEANT_FOR_GIT = frozenset({".gitattributes", ".gitmodules"})
_NAMED = 5


def lessened(git: Git, commit: str, parent: str) -> tuple[str, list[str]]:
    """`commit` with those files as they are in `parent` ("" for none) that may be why it is refused.

    Returns the same commit each time, and the paths; ("", []) when there are none. Raises GitFailedError.
    """
    suspects = dict(_suspects(git, commit, parent))
    if not suspects:
        return "", []
    index = Path(f"{git.environment['GIT_INDEX_FILE']}.less")
    inner = git.within(GIT_INDEX_FILE=str(index))
    inner.run("read-tree", commit)
    records = b"".join(b"%b\t%b\0" % (before, os.fsencode(path)) for path, before in suspects.items())
    inner.run("update-index", "-z", "--index-info", stdin=records)
    tree = inner.text("write-tree")
    index.unlink()
    date, _, message = git.text("log", "-1", "--format=%cI%n%B", commit).partition("\n")
    parents = ("-p", parent) if parent else ()
    made = dated(git, date or "@1 +0000").run("commit-tree", tree, *parents, stdin=os.fsencode(message))
    return made.decode().strip(), sorted(suspects)


def told(paths: list[str], why: str) -> str:
    """How a person is told of them."""
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return f"left in the volume, for one of them is not taken: {', '.join(paths[:_NAMED])}{more} ({why})"


def _suspects(git: Git, commit: str, parent: str) -> Iterator[tuple[str, bytes]]:
    """The paths, each with what takes its place as `update-index --index-info` reads it."""
    before = parent or git.text("mktree")
    fields = git.paths("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", before, commit)
    changes = [(info[1:].split(" "), path) for info, path in zip(fields[::2], fields[1::2])]
    blobs = [words[3] for words, _ in changes if words[1][:2] in ("10", "12")]
    asked = "".join(f"{oid}\n" for oid in blobs).encode()
    listed = git.run("cat-file", "--batch-check=%(objectsize)", stdin=asked).split() if blobs else []
    sizes = dict(zip(blobs, listed))
    for (old_mode, _, old, new, _), path in changes:
        large = sizes.get(new, b"0").isdigit() and int(sizes.get(new, b"0")) >= _LARGE
        if new in sizes and (large or path.rpartition("/")[2] in _MEANT_FOR_GIT):
            mode = "0" if old_mode == "000000" else old_mode
            yield path, f"{mode} {old}".encode()
