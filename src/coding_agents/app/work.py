"""What a session has done so far, as objects in its relay: a diff and a summary, without running anything."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.packs import user_store
from coding_agents.gitsync.summary import Summary, summarize
from coding_agents.model.refs import Oid
from coding_agents.model.session import Saved
from coding_agents.supervisor.context import SessionContext, facts_of
from coding_agents.supervisor.protocol import Op

_DIFF_S = 300.0


class Range(msgspec.Struct, frozen=True):
    """The commits of a session: from `base` (None: an unborn branch) to `tip` (None: no commit yet)."""

    base: Oid | None
    tip: Oid | None


def current_range(session: SessionContext) -> Range:
    """The session's commits, after the running guest was asked to commit and push what it has."""
    if session.supervisor().running():
        # It may have ended meanwhile, or not answer: then what is in the relay is shown.
        with suppress(CodingAgentsError):
            session.supervisor().call(Op.SAVE, timeout_s=150.0)
    relay = session.relay
    tip = relay.store.resolve(relay.branch.ref)
    return Range(relay.base, None if tip == relay.base else tip)


def diff(session: SessionContext, commits: Range, *, stat: bool) -> bytes:
    """The unified diff (or diffstat) of the session's commits. Raises GitError."""
    if commits.tip is None:
        return b""
    store = session.relay.store
    form = ("--stat=100",) if stat else ("--patch",)
    base = commits.base or store.git("hash-object", "-t", "tree", "--stdin", stdin=b"").text().strip()
    return store.git(
        "diff-tree", "-r", *form, "--no-ext-diff", "--no-textconv", "--no-color", base, commits.tip,
        timeout_s=_DIFF_S,
    ).stdout  # fmt: skip


def summary_of(session: SessionContext, saved: Saved) -> Summary | None:
    """What came back, None when there are no commits. Raises GitError."""
    if not saved.relay_tip:
        return None
    base = Oid.parse(session.record.base) if session.record.base else None
    # With `--rm` the relay is gone by now; what arrived in the repository is there in any case.
    home = user_store(facts_of(session.record), session.env.for_git())
    return summarize(
        home if saved.integrated else session.relay.store, base=base, tip=Oid.parse(saved.relay_tip)
    )
