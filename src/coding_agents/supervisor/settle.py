"""What happens to a session's work: into the user's repository while it runs, and for good when it ended.

The decision whether work is saved is made here and nowhere else. The guest's own report is trusted for one
thing only: not to hurry a salvage, when what it says it pushed is what the relay has. Before anything is
removed, salvage compares the volume itself.
"""

from __future__ import annotations

import asyncio
import os
from itertools import accumulate
from pathlib import Path

import msgspec

from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.archive import bundle_archive
from coding_agents.gitsync.integrate import INCOMING, Integrated, Landing, integrate, keep_incoming
from coding_agents.gitsync.lfs import Brought, bring_large_files
from coding_agents.gitsync.nested import bring_nested
from coding_agents.gitsync.packs import user_store
from coding_agents.model.refs import Oid
from coding_agents.model.session import Saved, SessionRecord
from coding_agents.supervisor.adoption import other_branches
from coding_agents.supervisor.context import SessionContext, facts_of
from coding_agents.supervisor.relay_budgets import relay_limits
from coding_agents_guest import events

_NESTED_BYTES = (
    128 << 10
)  # so much a record names of repositories inside; `coding-agents nested` reads the refs


def salvage_is_due(report: events.Saved | None, relay_tip: Oid | None, base: str, *, push: bool) -> bool:
    """Whether the volume may hold work that the relay does not have.

    `report` is the guest's last word, None when it died without one. With `push` off the work stays in the
    volume by the user's own wish.
    """
    if not push:
        return False
    if report is None:
        return True
    return not report.pushed or report.head != (relay_tip or base)


def bring_home(session: SessionContext) -> Integrated:
    """Bring the relay's session branch into the user's repository and remember where it is.

    Raises GitError when objects cannot be moved, such as when the repository is gone.
    """
    known, relay = _where_we_left_it(session), session.relay
    tip = relay.store.resolve(relay.branch.ref)
    if tip is not None and tip != known:
        session.update(
            branch_next=str(tip)
        )  # before it is there: killed in between, we still know it for ours
    record, env = session.record, session.env.for_git()
    result = integrate(facts_of(record), relay, session=record.id, expected_old=known, env=env, tip=tip)
    if result.where is Landing.BRANCH:
        session.update(branch_tip=str(result.tip or ""), branch_next="")
    elif session.record.branch_next:
        session.update(branch_next="")
    return result


def _where_we_left_it(session: SessionContext) -> Oid | None:
    """Where the branch in the user's repository stands when nobody else has moved it; None when it is not there."""
    record = session.reload()
    known, intended = (Oid.parse(text) if text else None for text in (record.branch_tip, record.branch_next))
    if intended is None:
        return known
    branch = user_store(facts_of(record), session.env.for_git()).resolve(session.relay.branch.ref)
    return intended if branch == intended else known


def bring_home_beside(session: SessionContext, tip: Oid, origin: str = "salvage") -> Integrated:
    """Bring a commit that does not continue the branch under an incoming ref of its own, named after its `origin`."""
    record = session.record
    name = f"{record.id}-{origin}"
    ref = keep_incoming(facts_of(record), session.relay, name=name, tip=tip, env=session.env.for_git())
    return Integrated(Landing.INCOMING, ref, tip, "history was rewritten")


def keep_other_branches(session: SessionContext) -> tuple[str, ...]:
    """Bring home the branches that salvages found beside HEAD; returns the refs that hold them. Raises GitError."""
    relay, record = session.relay, session.record
    kept = []
    for name, oid in other_branches(session):
        name = f"{record.id}-branches/{name}"
        kept.append(keep_incoming(facts_of(record), relay, name=name, tip=oid, env=session.env.for_git()))
    return tuple(dict.fromkeys(kept))


def keep_archived(session: SessionContext) -> str:
    """Bring home what the relay's archive holds and nothing else of the session's does there.

    Returns the ref of it, "" when there is nothing. Raises GitError.
    """
    relay, record, env = session.relay, session.record, session.env.for_git()
    name = f"{record.id}-earlier"
    refs = user_store(facts_of(record), env).refs(INCOMING)
    mine = (oid for ref, oid in refs.items() if ref.startswith(f"{INCOMING}/{record.id}"))
    home = [*mine, relay.store.resolve(relay.branch.ref)]
    earlier = {
        oid for ref, oid in refs.items() if ref.startswith(f"{INCOMING}/{name}")
    }  # is to be the same again
    known = relay.store.present([oid for oid in home if oid is not None and oid not in earlier])
    tip = bundle_archive(relay, without=known)
    return keep_incoming(facts_of(record), relay, name=name, tip=tip, env=env) if tip is not None else ""


def bring_nested_home(session: SessionContext) -> tuple[str, ...]:
    """Bring home the repositories inside the work tree; returns the refs that hold them. Raises GitError."""
    record = session.record
    return bring_nested(facts_of(record), session.relay, session=record.id, env=session.env.for_git())


def saved_of(
    result: Integrated,
    *,
    nested: tuple[str, ...] = (),
    left_out: tuple[str, ...] = (),
    verified: bool = False,
    trouble: str = "",
    note: str = "",
) -> Saved:
    """The record's account of where the work is; `trouble` says why it could not be brought home."""
    named = _first(nested, _NESTED_BYTES)
    more = len(nested) - len(named)
    note = "; ".join(filter(None, (note, f"{more} more repositories inside are home" if more else "")))
    return Saved(
        relay_tip=str(result.tip or ""),
        integrated=result.ref,
        where="volume" if trouble else result.where.value,
        verified=verified,
        left_out=left_out,
        nested=named,
        note="; ".join(filter(None, (trouble, note))) or result.reason,
    )


def _first(refs: tuple[str, ...], room: int) -> tuple[str, ...]:
    """As many of `refs` as fit `room` bytes."""
    ends = accumulate(len(os.fsencode(ref)) for ref in refs)
    return refs[: sum(end <= room for end in ends)]


class Homecoming(msgspec.Struct, frozen=True):
    """What came of bringing work home: `result` of the branch.

    `trouble` says why the branch is not home, `lacking` why large files are not (all else may be), and `refused` which
    of them never will be.
    """

    result: Integrated
    trouble: str = ""
    lacking: str = ""
    refused: str = ""

    @property
    def failure(self) -> str:
        """Why not all is home, "" when it is."""
        return self.trouble or self.lacking


async def bring_home_or_say_why(session: SessionContext) -> Homecoming:
    """`bring_home` in a thread, after the large files; a failure is told, not raised: the work is in the relay."""
    lacking = refused = ""
    try:
        brought = await asyncio.to_thread(bring_large_files_home, session)
        if brought.too_large:
            lacking = _not_brought(session.record, f"{name_oids(brought.too_large)} exceed relay.unpacked")
        if brought.refused:
            names = name_oids(brought.refused)
            refused = f"large files (Git LFS) refused, as they are not what they are called: {names}"
    except CodingAgentsError as error:
        lacking = _not_brought(session.record, error.message)
    try:
        result, trouble = await asyncio.to_thread(bring_home, session), ""
    except CodingAgentsError as error:
        result = Integrated(Landing.NOTHING, reason=error.message)
        trouble = f"not brought into the repository: {error.message}; {_what_then(session.record)}"
    return Homecoming(result, trouble, lacking, refused)


def bring_large_files_home(session: SessionContext) -> Brought:
    """Bring home the content of large files. Raises GitError, StoreError."""
    most = relay_limits(session).unpacked_bytes
    return bring_large_files(
        facts_of(session.record), session.relay, env=session.env.for_git(), most_bytes=most
    )


def name_oids(oids: tuple[str, ...]) -> str:
    """The first of `oids`, and how many more there are."""
    more = f" and {len(oids) - 3} more" if len(oids) > 3 else ""
    return ", ".join(oids[:3]) + more


def _not_brought(record: SessionRecord, reason: str) -> str:
    return f"large files (Git LFS) were not brought home: {reason}; {_what_then(record)}"


def _what_then(record: SessionRecord) -> str:
    if Path(record.repo.common_dir).exists():
        return f"`coding-agents recover {record.name}` tries again"
    return f"`coding-agents recover {record.name} --repo PATH` brings it to where the repository is now"
