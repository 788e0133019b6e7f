"""What a session has done so far, as objects in its relay: a diff and a summary, without running anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import msgspec

from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.autosave import latest_save
from coding_agents.gitsync.findings.objects import reading
from coding_agents.gitsync.packs import Store, user_store
from coding_agents.gitsync.summary import Summary, summarize
from coding_agents.model.refs import Oid
from coding_agents.model.session import Saved
from coding_agents.proc.git import require_ok
from coding_agents.proc.runner import streaming
from coding_agents.supervisor.context import SessionContext, facts_of
from coding_agents.supervisor.protocol import Op

_SAVE_S = 150.0
_READ_S = 86400.0  # a pager holds git up for as long as somebody reads
_CHUNK = 64 * 1024
_LONGEST_LINE = 1 << 20


class Range(msgspec.Struct, frozen=True):
    """The commits of a session: from `base` (None: an unborn branch) to `tip` (None: no commit yet).

    `unsaved` says why the latest work of a running session is not among them, "" when it is.
    """

    base: Oid | None
    tip: Oid | None
    unsaved: str = ""


def current_range(session: SessionContext) -> Range:
    """The session's work: of a running one as it stands in its work tree now, which is saved for that."""
    tip, unsaved = autosave(session)
    relay = session.relay
    if tip is None:
        tip = relay.store.resolve(relay.branch.ref)
        # When it cannot be saved now, an earlier save may have more than the branch.
        earlier = latest_save(relay) if unsaved else None
        if earlier is not None and (tip is None or relay.store.is_ancestor(tip, earlier)):
            tip = earlier
    return Range(relay.base, None if tip == relay.base else tip, unsaved)


def autosave(session: SessionContext, *, branch: bool = False) -> tuple[Oid | None, str]:
    """Have a running session save its work tree, without the agent's noticing, with `branch` its commits, too.

    Returns the commit that the relay has of it (None when it does not run), and why it is not all, "" when it is.
    """
    if session.reload().phase != "running":
        return None, ""
    try:
        answer = session.supervisor().ask(Op.AUTOSAVE, timeout_s=_SAVE_S, branch=branch)
    except CodingAgentsError as error:
        # It may have ended meanwhile.
        return None, error.message if session.reload().phase == "running" else ""
    saved = latest_save(session.relay)
    if not answer["commit"] or answer["commit"] != saved:
        return None, str(answer["message"])
    return saved, "" if answer["pushed"] else str(answer["message"])


def diff(session: SessionContext, commits: Range, *, stat: bool, store: Store | None = None) -> Iterator[str]:
    """The unified diff (or diffstat) of the session's commits in pieces of whole lines. Raises GitError.

    They are in `store` (None: the relay). It may be far larger than our memory: pieces are small, and a line of more
    than 1 MiB is cut.
    """
    if commits.tip is None:
        return
    store = store or session.relay.store
    form = ("--stat=100",) if stat else ("--patch",)
    base = commits.base or store.git("hash-object", "-t", "tree", "--stdin", stdin=b"").text().strip()
    args = ("diff-tree", "-r", *form, "--no-ext-diff", "--no-textconv", "--no-color", base, commits.tip)
    command = reading(store, args, timeout_s=_READ_S)
    with streaming(command) as process:
        for piece in _whole_lines(process.stdout):
            yield piece.decode("utf-8", "surrogateescape")
        outcome = process.finish()
    require_ok(outcome, "git diff-tree")


def _whole_lines(source: IO[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    while chunk := source.read(_CHUNK):
        end = len(chunk) if len(held) * _CHUNK >= _LONGEST_LINE else chunk.rfind(b"\n") + 1
        if end:
            yield b"".join((*held, chunk[:end]))
            held.clear()
        held.append(chunk[end:])
    if rest := b"".join(held):
        yield rest


def summary_of(session: SessionContext, saved: Saved) -> Summary | None:
    """What came back, None when there are no commits. Raises GitError."""
    if not saved.relay_tip:
        return None
    base = Oid.parse(session.record.base) if session.record.base else None
    # With `--rm` the relay is gone by now; what arrived in the repository is there in any case.
    store = home_store(session) if saved.integrated else session.relay.store
    return summarize(store, base=base, tip=Oid.parse(saved.relay_tip))


def home_store(session: SessionContext) -> Store:
    """The user's repository, where the work arrives."""
    return user_store(facts_of(session.record), session.env.for_git())
