"""What to look at before using what came back of a session: findings, told apart from the user's own work."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from coding_agents.app.accepting import accepted_of
from coding_agents.app.returned import Other, others_of
from coding_agents.app.work import Range, current_range, home_store
from coding_agents.errors import CodingAgentsError, GitError
from coding_agents.gitsync.findings.budget import Budget
from coding_agents.gitsync.findings.model import Finding, Severity, limit
from coding_agents.gitsync.findings.scan import Subject
from coding_agents.gitsync.packs import Store
from coding_agents.gitsync.summary import Summary, summarize
from coding_agents.model.refs import Oid
from coding_agents.model.session import Saved
from coding_agents.store.acceptances import Acceptance
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.look_apart import Job, look_apart
from coding_agents.workspace.launch_state import WORKTREE_REF

# The end of a session must not wait for long: what is not reached is named there, and `review` reaches it.
_AT_THE_END = Budget(total_bytes=64 << 20, seconds=10.0)


class Looked(msgspec.Struct, frozen=True):
    """Something beside the session's branch that was looked at; see `Other`. `base` is None when all of it is new."""

    ref: str
    path: str
    base: Oid | None
    tip: Oid

    def to_public(self) -> dict[str, str]:
        """Its object in `review --json`."""
        return {"ref": self.ref, "path": self.path, "base": self.base or "", "tip": self.tip}


class Review(msgspec.Struct, frozen=True):
    """The findings about what came back of a session, gravest first.

    `base` (None when it was unborn), `tip` (None: no commit), `commits` and `files` are those of the session's branch;
    `others` were looked at beside it. `accepted` are a person's words, by the id of the finding.
    """

    branch: str
    base: Oid | None
    tip: Oid | None
    commits: int
    files: int
    findings: tuple[Finding, ...]
    others: tuple[Looked, ...] = ()
    accepted: Mapping[str, Acceptance] = {}

    @property
    def blockers(self) -> tuple[Finding, ...]:
        """What asks for a person's word before anything is merged, and has none yet."""
        return tuple(
            one for one in self.findings if one.severity is Severity.BLOCK and one.id not in self.accepted
        )

    @property
    def blocking(self) -> bool:
        """Whether there is one of these."""
        return bool(self.blockers)

    def to_public(self) -> dict[str, object]:
        """The object of `review --json`: a documented contract, exactly these keys."""
        return {
            "branch": self.branch,
            "base": self.base or "",
            "tip": self.tip or "",
            "commits": self.commits,
            "files": self.files,
            "findings": [public(one, self.accepted) for one in self.findings],
            "others": [one.to_public() for one in self.others],
            "blocking": self.blocking,
        }


def review(session: SessionContext) -> Review:
    """Look at all that came back of a session; a running one is asked to save its work first. Raises GitError."""
    store, commits = _where(session)
    return look(session, store, commits, Budget(), beside=True)


def look(session: SessionContext, store: Store, commits: Range, budget: Budget, *, beside: bool) -> Review:
    """Look at `commits` in `store`, and with `beside` at all else that came back. Raises GitError, StoreError."""
    counts = Summary(0, 0, 0, 0)
    if commits.tip is not None:
        counts = summarize(store, base=commits.base, tip=commits.tip)
    found, others = _look(session, store, commits, budget, beside=beside)
    return Review(
        branch=session.record.branch,
        base=commits.base,
        tip=commits.tip,
        commits=counts.commits,
        files=counts.files,
        findings=found,
        others=others,
        accepted=accepted_of(session),
    )


def to_look_at(session: SessionContext, saved: Saved) -> tuple[Finding, ...]:
    """The findings for the end of a session: without what is only good to know. Raises GitError."""
    relay, base = session.relay, session.relay.base
    # With `--rm` the relay is gone by now; what arrived in the repository is there in any case.
    if relay.git_dir.is_dir():
        store, tip = relay.store, relay.store.resolve(relay.branch.ref)
    else:
        store, tip = home_store(session), Oid.parse(saved.relay_tip) if saved.relay_tip else None
    commits = Range(base, None if tip == base else tip)
    found, _ = _look(session, store, commits, _AT_THE_END, beside=True)
    accepted = accepted_of(session)
    return tuple(one for one in found if one.severity is not Severity.NOTE and one.id not in accepted)


def store_of(session: SessionContext) -> Store:
    """The store that has the session's commits."""
    return session.relay.store if session.relay.git_dir.is_dir() else home_store(session)


def _where(session: SessionContext) -> tuple[Store, Range]:
    """The store that has the session's commits, and which these are."""
    if session.relay.git_dir.is_dir():
        return session.relay.store, current_range(session)
    saved, base = session.record.saved, session.relay.base
    tip = Oid.parse(saved.relay_tip) if saved.integrated and saved.relay_tip else None
    return home_store(session), Range(base, None if tip == base else tip)


def _look(
    session: SessionContext, store: Store, commits: Range, budget: Budget, *, beside: bool
) -> tuple[tuple[Finding, ...], tuple[Looked, ...]]:
    """The findings about the session's commits and all else that came back, and what that is."""
    more = list(_unsaved(commits))
    jobs: list[Job] = []
    if commits.tip is not None:
        launch = store.resolve(WORKTREE_REF)
        jobs.append(Job(store, Subject(commits.base, commits.tip, launch, session.record.people)))
    own = len(jobs)
    looked: list[Looked] = []
    try:
        others = others_of(session, base=commits.base, tip=commits.tip) if beside else []
    except CodingAgentsError as error:
        more.append(limit(f"other branches and repositories inside were not looked at: {error.message}"))
        others = []
    for number, other in enumerate(others):
        if len(looked) >= budget.others:
            more.append(_left(len(others) - number))
            break
        more += _prepare(other, session.record.people, jobs, looked)
    answer = look_apart(jobs, budget, more=more)
    state = _state_of_all(session, commits, others)
    found = (one if one.state or one.commit else replace(one, state=state) for one in answer.findings)
    return tuple(found), tuple(looked[: max(answer.done - own, 0)])


def _state_of_all(session: SessionContext, commits: Range, others: Sequence[Other]) -> str:
    """What a finding speaks of that is about all that came back: another state of that is another thing to accept."""
    parts = [session.record.id, str(commits.tip), *(f"{one.ref} {one.tip}" for one in others)]
    return f"all {hashlib.sha256(chr(0).join(parts).encode('utf-8', 'surrogateescape')).hexdigest()}"


def _prepare(
    other: Other, author: tuple[str, ...], jobs: list[Job], looked: list[Looked]
) -> tuple[Finding, ...]:
    """Add what came back beside the branch to what is to be looked at, or say why not."""
    try:
        subject = other.subject(author)
    except GitError as error:
        return (replace(limit(f"not looked at: {error.message}"), ref=other.ref),)
    if subject is not None:
        jobs.append(Job(other.store, subject))
        looked.append(Looked(other.ref, other.path, subject.base, other.tip))
    return ()


def _left(number: int) -> Finding:
    return limit(f"{number} other branch(es) and repositories inside were not looked at")


def _unsaved(commits: Range) -> tuple[Finding, ...]:
    if not commits.unsaved:
        return ()
    return (limit(f"the latest work is not among this: {commits.unsaved}"),)


def public(finding: Finding, accepted: Mapping[str, Acceptance]) -> dict[str, str]:
    """A finding's object in JSON."""
    word = accepted.get(finding.id)
    return {
        "id": finding.id,
        "rule": finding.rule,
        "severity": finding.severity.value,
        "path": finding.path,
        "detail": finding.detail,
        "commit": finding.commit,
        "ref": finding.ref,
        "accepted": word.reason if word else "",
    }
