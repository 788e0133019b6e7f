"""Files that git does not know and that new ones of a commit would replace.

`git read-tree -u` refuses to replace those, but not when they are ignored: a `.env`, a build that took a night. So we
look ourselves.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from coding_agents.gitsync.findings.model import ABSENT, Change
from coding_agents.gitsync.findings.modes import GITLINK


def in_the_way(work_tree: Path, changes: Iterable[Change]) -> Iterator[str]:
    """Paths below `work_tree` that are in no commit and that `changes` would overwrite or remove, each once.

    What the changed commit has is taken for clean; nothing is opened, and no link is followed.
    """
    listed = list(changes)
    gone = {change.path for change in listed if change.new.mode == ABSENT.mode}
    seen: dict[str, int | None] = {}
    told: set[str] = set()
    for change in listed:
        if change.new.mode in (ABSENT.mode, GITLINK) or change.old.mode not in (ABSENT.mode, GITLINK):
            continue
        for path in _blocking(work_tree, change.path, gone, seen):
            if path not in told:
                told.add(path)
                yield path


def _blocking(work_tree: Path, path: str, gone: set[str], seen: dict[str, int | None]) -> Iterator[str]:
    parts = path.split("/")
    for end in range(1, len(parts)):
        above = "/".join(parts[:end])
        if above not in seen:
            seen[above] = _mode(work_tree / above)
        mode = seen[above]
        if mode is None:
            return
        if not stat.S_ISDIR(mode):
            if above not in gone:
                yield above
            return
    mode = _mode(work_tree / path)
    if mode is None:
        return
    if not stat.S_ISDIR(mode):
        yield path
        return
    for directory, _, names in os.walk(work_tree / path):
        inside = os.path.relpath(directory, work_tree)
        below = (f"{inside}/{name}" for name in names)
        if (first := next((one for one in below if one not in gone), None)) is not None:
            yield first
            return


def _mode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
