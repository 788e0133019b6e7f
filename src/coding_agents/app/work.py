"""What a session has done so far, as objects in its relay: a diff and a summary, without running anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import msgspec

from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.packs import Store, user_store
from coding_agents.gitsync.summary import Summary, summarize
from coding_agents.model.refs import Oid
from coding_agents.model.session import Saved
from coding_agents.proc.git import git_command, require_ok
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
    """The session's commits, after the running guest was asked to commit and push what it has."""
    unsaved = _save(session)
    relay = session.relay
    tip = relay.store.resolve(relay.branch.ref)
    return Range(relay.base, None if tip == relay.base else tip, unsaved)


def _save(session: SessionContext) -> str:
    """Have a running session save its work. Returns why it did not, "" when it did or does not run."""
    if session.reload().phase != "running":
        return ""
    try:
        answer = session.supervisor().ask(Op.SAVE, timeout_s=_SAVE_S)
    except CodingAgentsError as error:
        return error.message if session.reload().phase == "running" else ""  # it may have ended meanwhile
    return "" if answer["pushed"] else str(answer["message"])


def diff(session: SessionContext, commits: Range, *, stat: bool) -> Iterator[str]:
    """The unified diff (or diffstat) of the session's commits in pieces of whole lines. Raises GitError.

    It may be far larger than our memory: pieces are small, and a line of more than 1 MiB is cut.
    """
    if commits.tip is None:
        return
    store = session.relay.store
    form = ("--stat=100",) if stat else ("--patch",)
    base = commits.base or store.git("hash-object", "-t", "tree", "--stdin", stdin=b"").text().strip()
    command = git_command(
        ("diff-tree", "-r", *form, "--no-ext-diff", "--no-textconv", "--no-color", base, commits.tip),
        profile=store.profile, env=store.env, git_dir=store.git_dir, owner=store.owner, timeout_s=_READ_S,
    )  # fmt: skip
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
