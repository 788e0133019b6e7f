"""How much a session changed, in numbers. Reads objects and runs nothing."""

from __future__ import annotations

import msgspec

from coding_agents.gitsync.findings.objects import EMPTY_TREE, reading
from coding_agents.gitsync.packs import Store
from coding_agents.model.refs import Oid
from coding_agents.proc.git import require_ok
from coding_agents.proc.runner import run


class Summary(msgspec.Struct, frozen=True):
    """Commits and changed lines between two commits; binary files count as files only."""

    commits: int
    files: int
    insertions: int
    deletions: int


def summarize(store: Store, *, base: Oid | None, tip: Oid) -> Summary:
    """What `tip` has that `base` (None: nothing) has not. Raises GitError."""
    unlike = ("--not", base) if base is not None else ()
    commits = int(_read(store, "rev-list", "--count", tip, *unlike))
    # Without rename detection every path that appears counts for itself.
    listing = _read(
        store, "diff-tree", "-r", "-z", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv",
        "--ignore-submodules=none", base or EMPTY_TREE[len(tip)], tip,
    )  # fmt: skip
    counts = [line.split("\t", 2)[:2] for line in listing.split("\0") if line]
    insertions = sum(int(added) for added, _ in counts if added != "-")
    return Summary(
        commits, len(counts), insertions, sum(int(removed) for _, removed in counts if removed != "-")
    )


def _read(store: Store, *args: str) -> str:
    return require_ok(run(reading(store, args)), f"git {args[0]}").text()
