"""Directories of a tree that git takes for a repository: in them it runs what their `config` names.

git looks for HEAD, `objects` and `refs` side by side (gitrepository-layout(5)) and asks nobody: `git status` in such
a directory obeys its `core.fsmonitor`, unless `safe.bareRepository=explicit` is set (git-config(1)).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from coding_agents.gitsync.findings.model import Change, Finding, Severity
from coding_agents.gitsync.packs import Store
from coding_agents.model.refs import Oid

_OBEYED = frozenset({"head", "config", "config.worktree", "commondir"})


def judge_repositories(store: Store, tip: Oid, changes: Iterable[Change]) -> Iterator[Finding]:
    """One finding for each directory of `tip` that passes for a repository and in which something was changed.

    HEAD beside the changed file is enough: the two directories can be made at any time. Raises GitError.
    """
    suspects = dict.fromkeys(
        directory for change in changes for directory in _directories(PurePosixPath(change.path))
    )
    # A line break in a path would be a question of its own; such a path is a finding anyway (names.py).
    asked = [str(one / "HEAD") for one in suspects if "\n" not in str(one)]
    if not asked:
        return
    questions = "".join(f"{tip}:{path}\n" for path in asked).encode("utf-8", "surrogateescape")
    answers = store.git("cat-file", "--batch-check=%(objecttype)", stdin=questions, timeout_s=600.0).stdout
    for path, answer in zip(asked, answers.split(b"\n"), strict=False):
        if answer == b"blob":
            detail = "git takes its directory for a repository and runs what its `config` names"
            yield Finding("git.repository", Severity.BLOCK, path, detail)


def _directories(path: PurePosixPath) -> Iterator[PurePosixPath]:
    if path.name.casefold() in _OBEYED:
        yield path.parent
    elif path.parent.name.casefold() == "hooks":
        yield path.parent.parent
