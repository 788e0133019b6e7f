"""What a page about a session's branch shows beside the findings: its commits and its changes, within bounds."""

from __future__ import annotations

import msgspec

from coding_agents.app.review import Review, store_of
from coding_agents.app.work import Range, diff
from coding_agents.gitsync.findings.objects import READ_S, reading
from coding_agents.proc.git import require_ok
from coding_agents.proc.runner import run
from coding_agents.supervisor.context import SessionContext

MAX_COMMITS = 500
MAX_BYTES = 2 << 20
"""So much of the changes is on a page: a browser is to open it."""


class Commit(msgspec.Struct, frozen=True):
    """A commit with its author and subject (hostile text)."""

    oid: str
    author: str
    subject: str


class Page(msgspec.Struct, frozen=True):
    """`stat` and `changes` are git's texts; `cut` says that there is more of the changes."""

    commits: tuple[Commit, ...] = ()
    stat: str = ""
    changes: str = ""
    cut: bool = False


def page_of(session: SessionContext, found: Review) -> Page:
    """Read it from the store that was looked at. Raises GitError."""
    if found.tip is None:
        return Page()
    commits = Range(found.base, found.tip)
    store = store_of(session)
    unlike = ("--not", found.base) if found.base is not None else ()
    form = "--format=%H%x00%an <%ae>%x00%s"
    args = ("rev-list", f"--max-count={MAX_COMMITS}", form, found.tip, *unlike)
    listing = require_ok(run(reading(store, args, timeout_s=READ_S)), "git rev-list").text()
    rows = [line.split("\0") for line in listing.split("\n") if line.count("\0") == 2]
    changes, size = [], 0
    for piece in diff(session, commits, stat=False, store=store):
        changes.append(piece[: MAX_BYTES - size])
        size += len(piece)
        if size >= MAX_BYTES:
            break
    return Page(
        commits=tuple(Commit(*row) for row in rows),
        stat="".join(diff(session, commits, stat=True, store=store))[:MAX_BYTES],
        changes="".join(changes),
        cut=size >= MAX_BYTES,
    )
