"""Merge a session's branch into a branch of the user's: looked at first, made of objects alone, recorded before it is
done. Nothing that is merged runs.

What counts is ids: the commit that was looked at is the one that is merged, into the commit from which the target is
then moved, or it is not moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
from msgspec.structs import replace

from coding_agents.app.merge_commit import Style, commit_of, is_signed_at_merge, sign_for_user
from coding_agents.app.merge_refusals import require_mergeable, require_reviewed
from coding_agents.app.review import Review, look, store_of
from coding_agents.app.work import Range, home_store
from coding_agents.errors import BranchError, CodingAgentsError, MergeError
from coding_agents.gitsync.findings.budget import Budget
from coding_agents.gitsync.findings.model import Finding, in_order
from coding_agents.gitsync.findings.scan import Subject
from coding_agents.gitsync.forward import Place, Target, bring_forward, place_of, require_clean, require_room
from coding_agents.gitsync.merging import Conflict, Result, merge_trees, scratch
from coding_agents.gitsync.packs import Store, bring
from coding_agents.gitsync.summary import Summary, summarize
from coding_agents.model.audit import RecordType
from coding_agents.model.refs import Oid
from coding_agents.store.files import locked
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.look_apart import Job, look_apart
from coding_agents.supervisor.protocol import Op
from coding_agents.terminal.escape import escape


class Options(msgspec.Struct, frozen=True):
    """What a person asks for. `into` "" is the branch that the session started from."""

    into: str = ""
    style: Style = Style.AUTO
    message: str = ""
    dry_run: bool = False


class Merged(msgspec.Struct, frozen=True):
    """What was done, or with `dry_run` would be. `how`: "fast-forward", "merge", "squash", or "nothing" to do.

    `commit` is where `into` stands then (None while there are conflicts), `work_tree` the place of the files that were
    brought along, `unfiltered` those of them on which a filter of yours did not run, `signed` whether the commit that
    was made has a signature, `left_out` why the session's latest work is not among it.
    """

    branch: str
    into: str
    how: str
    old: Oid | None
    commit: Oid | None
    dry_run: bool = False
    commits: int = 0
    files: int = 0
    insertions: int = 0
    deletions: int = 0
    work_tree: str = ""
    unfiltered: tuple[str, ...] = ()
    signed: bool = False
    conflicts: tuple[Conflict, ...] = ()
    blockers: tuple[Finding, ...] = ()
    left_out: str = ""


class _Draft(msgspec.Struct, frozen=True):
    """A merge as objects of `store`: `commit` is the result, None when there are `conflicts`."""

    store: Store
    how: str
    commit: Oid | None
    review: Review
    conflicts: tuple[Conflict, ...] = ()

    @property
    def blockers(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.review.blockers if not one.ref)


def merge(session: SessionContext, options: Options) -> Merged:
    """Merge the session's commits as `options` say.

    Raises UnreviewedError, MergeConflictError, MergeError, BranchError, SigningError and GitError; then nothing was
    changed.
    """
    if options.style is Style.AUTO and is_signed_at_merge(session):
        options = replace(options, style=Style.NO_FF)
    target = _target(session, options.into)
    tip = _tip(session)
    place = place_of(target)
    with _drafted(session, target, tip, options) as draft:
        found = _outcome(session, options, target, draft)
        if options.dry_run:
            return replace(found, work_tree=str(place.work_tree) if place else "")
        require_reviewed(session, draft.blockers, target)
        require_mergeable(session, target, tip, draft.conflicts)
        if draft.commit is None or draft.how == "nothing":
            return found
        write_files = place is not None and _require_place(target, place, draft.store, draft.commit)
        if draft.how != "fast-forward":
            signed = sign_for_user(session, draft.store, draft.commit)
            found = replace(found, commit=signed or draft.commit, signed=signed is not None)
        return _carry_out(session, target, tip, place, draft, found, write_files=write_files)


def _require_place(target: Target, place: Place, store: Store, commit: Oid) -> bool:
    """Whether the files there have yet to be written; raises MergeError when something would be lost by that."""
    tree = Oid.parse(store.git("rev-parse", f"{commit}^{{tree}}").text().strip())
    write_files = require_clean(target, place, tree)
    if write_files:
        require_room(target, place, store, commit)
    return write_files


def review_into(session: SessionContext, into: str) -> Review:
    """The review of the session's commits with what merging them into `into` changes there beyond these."""
    target = _target(session, into)
    with _drafted(session, target, _tip(session), Options(into=into, dry_run=True)) as draft:
        return draft.review


def _target(session: SessionContext, into: str) -> Target:
    """The branch to merge into. Raises BranchError."""
    name = (into or session.record.base_branch).removeprefix("refs/heads/")
    if not name:
        raise BranchError(
            f"session {session.record.name} started from no branch", hint="Name the branch: --into BRANCH."
        )
    user, ref = home_store(session), f"refs/heads/{name}"
    if ref == f"refs/heads/{session.record.branch}":
        raise BranchError(f"{name} is the session's own branch", hint="Name another one: --into BRANCH.")
    old = user.refs(ref).get(ref)
    unborn = user.git("symbolic-ref", "--quiet", "HEAD", check=False).text().strip() == ref
    if old is None and not (unborn and not session.record.base):
        raise BranchError(
            f"there is no branch {name[:200]!r} in {session.record.repo.path}",
            hint="Name one that is there with --into, or make it with `git branch`.",
        )
    return Target(user, ref, old)


def _tip(session: SessionContext) -> Oid:
    """The last commit of the session's branch. Raises MergeError when it has none of its own."""
    relay = session.relay
    tip = None
    if relay.git_dir.is_dir():
        tip = relay.store.resolve(relay.branch.ref)
    elif session.record.saved.relay_tip:
        tip = Oid.parse(session.record.saved.relay_tip)
    if tip is None or tip == relay.base:
        raise MergeError(
            f"session {session.record.name} has no commit yet",
            hint="Let the agent commit; of an ended session `coding-agents recover` brings home what it left.",
        )
    return tip


@contextmanager
def _drafted(session: SessionContext, target: Target, tip: Oid, options: Options) -> Iterator[_Draft]:
    """The merge, and what a look at it found, in a repository that is gone after the block."""
    relay = session.relay.store if session.relay.git_dir.is_dir() else None
    with (
        locked(session.directory / "merge.lock", timeout_s=0),
        scratch(
            session.directory / "merging.git",
            relay=relay, user=target.user, tip=tip, target=target.old, base=session.relay.base,
        ) as store,
    ):  # fmt: skip
        branch = Range(session.relay.base, tip)
        review = look(session, store_of(session), branch, Budget(), beside=False)
        draft = _draft(session, target, tip, options, store, review)
        if draft.commit is not None and draft.how != "nothing":
            more = _beyond(session, target, tip, draft, review)
            findings = tuple(in_order([*review.findings, *more]))
            draft = replace(draft, review=replace(review, findings=findings))
        yield draft


def _draft(
    session: SessionContext, target: Target, tip: Oid, options: Options, store: Store, review: Review
) -> _Draft:
    old = target.old
    if old is not None and store.is_ancestor(tip, old):
        return _Draft(store, "nothing", old, review)
    straight = old is None or store.is_ancestor(old, tip)
    if options.style is Style.FF_ONLY and not straight:
        raise MergeError(
            f"{target.short} has commits that {session.record.branch} has not: no fast-forward",
            hint="Merge without --ff-only.",
        )
    if straight and options.style in (Style.AUTO, Style.FF_ONLY):
        return _Draft(store, "fast-forward", tip, review)
    tree = str(store.resolve(f"{tip}^{{tree}}"))
    result = Result(tree) if old is None or straight else merge_trees(store, old, tip)
    how = "squash" if options.style is Style.SQUASH else "merge"
    if result.conflicts:
        return _Draft(store, how, None, review, conflicts=result.conflicts)
    made = commit_of(
        session, store, result.tree,
        style=options.style, old=old, tip=tip, into=target.short, message=options.message,
    )  # fmt: skip
    return _Draft(store, how, made, review)


def _beyond(
    session: SessionContext, target: Target, tip: Oid, draft: _Draft, review: Review
) -> tuple[Finding, ...]:
    """Findings about what changes in the target and is none of the branch's: a merge can bring back what you took away.

    What the look at the branch has said of the same path and rule is not said again.
    """
    if draft.commit is None or (target.old == session.relay.base and draft.how == "fast-forward"):
        return ()
    subject = Subject(target.old, draft.commit, None, None, known=(tip,))
    looked = look_apart([Job(draft.store, subject)], Budget())
    said = {(one.rule, one.path) for one in review.findings}
    more = [one for one in looked.findings if (one.rule, one.path) not in said or one.rule == "limit"]
    # A merge commit is another one each time; what it is made of is what a person accepts.
    made, of = f"commit {draft.commit}", f"commit {tip} into {target.old}"
    return tuple(replace(one, state=of) if one.state == made else one for one in more)


def _outcome(session: SessionContext, options: Options, target: Target, draft: _Draft) -> Merged:
    counts = Summary(0, 0, 0, 0)
    if draft.commit is not None and draft.how != "nothing":
        counts = summarize(draft.store, base=target.old, tip=draft.commit)
    running = session.record.phase == "running"
    return Merged(
        branch=session.record.branch,
        into=target.short,
        how=draft.how,
        old=target.old,
        commit=None if options.dry_run and draft.how in ("merge", "squash") else draft.commit,
        dry_run=options.dry_run,
        commits=counts.commits,
        files=counts.files,
        insertions=counts.insertions,
        deletions=counts.deletions,
        conflicts=draft.conflicts,
        blockers=draft.blockers,
        left_out="the session runs: what it has not committed and pushed is not among it" if running else "",
    )


def _carry_out(
    session: SessionContext,
    target: Target,
    tip: Oid,
    place: Place | None,
    draft: _Draft,
    found: Merged,
    *,
    write_files: bool,
) -> Merged:
    commit = found.commit
    if commit is None:
        raise AssertionError("conflicts were refused")
    detail = {
        "from": target.old or "", "to": commit, "branch": session.record.branch, "tip": tip, "how": draft.how,
        "accepted": ",".join(one.id for one in draft.review.findings if one.id in draft.review.accepted)[:1500],
    }  # fmt: skip
    _record(session, target, detail, required=True)
    try:
        known = [oid for oid in (session.relay.base, target.old) if oid is not None]
        bring(draft.store, target.user, tips=[commit], known=known, apart=[session.relay.branch.ref])
        message = f"coding-agents merge {session.record.branch}: {draft.how}"
        moved = bring_forward(target, commit, place, message=message, write_files=write_files)
    except CodingAgentsError as error:
        with suppress(CodingAgentsError):
            _record(session, target, {**detail, "reason": escape(error.message)}, required=False)
        raise
    return replace(found, work_tree=str(place.work_tree) if place else "", unfiltered=moved.unfiltered)


def _record(session: SessionContext, target: Target, detail: dict[str, str], *, required: bool) -> None:
    outcome = "allowed" if required else "failed"
    session.supervisor().ask(
        Op.RECORD,
        type=RecordType.MERGED.value,
        subject=target.ref,
        outcome=outcome,
        detail=detail,
        required=required,
    )
