"""What a session changed: counts, and the paths that deserve a look. Reads objects and runs nothing."""

from __future__ import annotations

import msgspec

from coding_agents.gitsync.attention import Attention, Change, attention
from coding_agents.gitsync.packs import Store
from coding_agents.model.refs import Oid

# The empty tree, by length of an object id (git knows both without storing them).
_EMPTY_TREE = {
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
_DIFF_S = 300.0


class Summary(msgspec.Struct, frozen=True):
    """Commits and changed lines between two commits; binary files count as files only."""

    commits: int
    files: int
    insertions: int
    deletions: int
    attention: tuple[Attention, ...]


def summarize(store: Store, *, base: Oid | None, tip: Oid) -> Summary:
    """What `tip` has that `base` (None: nothing) has not. Raises GitError."""
    unlike = ("--not", base) if base is not None else ()
    commits = int(store.git("rev-list", "--count", tip, *unlike, timeout_s=_DIFF_S).text())
    # Without rename detection every path that appears is listed as itself.
    listing = store.git(
        "diff-tree", "-r", "-z", "--raw", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv",
        "--ignore-submodules=none", base or _EMPTY_TREE[len(tip)], tip, timeout_s=_DIFF_S,
    ).text()  # fmt: skip
    raw, insertions, deletions = _parse(listing)
    sizes = _sizes(store, [oid for _, _, _, oid in raw])
    changes = [Change(path, old, new, sizes.get(oid, 0)) for path, old, new, oid in raw]
    found = tuple(note for change in changes if (note := attention(change)) is not None)
    return Summary(commits, len(changes), insertions, deletions, found)


def _parse(listing: str) -> tuple[list[tuple[str, str, str, str]], int, int]:
    """(path, old mode, new mode, new oid) of each change, and the lines added and deleted.

    Format: git-diff-tree(1) "RAW OUTPUT FORMAT" and --numstat, both with -z.
    """
    raw: list[tuple[str, str, str, str]] = []
    insertions = deletions = 0
    fields = iter(listing.split("\0"))
    for field in fields:
        if field.startswith(":"):
            old_mode, new_mode, _, oid, _ = field[1:].split(" ")
            raw.append((next(fields), old_mode, new_mode, oid))
        elif field:
            added, removed, _ = field.split("\t", 2)
            insertions += int(added) if added != "-" else 0
            deletions += int(removed) if removed != "-" else 0
    return raw, insertions, deletions


def _sizes(store: Store, oids: list[str]) -> dict[str, int]:
    wanted = "".join(f"{oid}\n" for oid in oids if oid.strip("0")).encode()
    if not wanted:
        return {}
    answer = store.git("cat-file", "--batch-check=%(objectname) %(objectsize)", stdin=wanted).text()
    pairs = (line.split() for line in answer.splitlines())
    return {oid: int(size) for oid, size in pairs if size.isdigit()}
