"""Branches and tags of a bare repository of ours, all of them in one file: a hundred thousand cost no more than one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from coding_agents.model.refs import Oid
from coding_agents.proc.git import cannot_write
from coding_agents.store.files import write_atomic

LISTED = ("heads", "tags")
"""Below `refs/`: what origin shows a session."""


def settle_refs(git_dir: Path, refs: Mapping[str, Oid]) -> None:
    """Let it have exactly these branches and tags, and other refs of `refs` beside those that it has. Raises GitError.

    Nobody else may be moving refs there.
    """
    # git reads such a file in any order when it does not call itself sorted, and looks up what it peels to.
    lines = "".join(f"{oid} {ref}\n" for ref, oid in sorted(refs.items()))
    write_atomic(git_dir / "packed-refs", lines.encode("utf-8", "surrogateescape"))
    clear_loose(git_dir)


def clear_loose(git_dir: Path) -> None:
    """Take away branches and tags that have a file of their own. Raises GitError."""
    try:
        for name in LISTED:
            shutil.rmtree(git_dir / "refs" / name, ignore_errors=True)
            (git_dir / "refs" / name).mkdir(parents=True)
    except OSError as error:
        raise cannot_write(git_dir, error) from error
