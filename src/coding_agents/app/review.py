"""What to look at before using what came back of a session: findings, told apart from the user's own work."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from coding_agents.app.returned import Other, others_of
from coding_agents.app.work import Range, current_range, home_store
from coding_agents.errors import CodingAgentsError, GitError
from coding_agents.gitsync.findings.budget import Account, Budget
from coding_agents.gitsync.findings.model import Finding, Severity, limit, ranked
from coding_agents.gitsync.findings.scan import Subject, scan
from coding_agents.gitsync.packs import Store
from coding_agents.gitsync.summary import Summary, summarize
from coding_agents.model.refs import Oid
from coding_agents.model.session import Saved
from coding_agents.supervisor.context import SessionContext
from coding_agents.workspace.deny import load_deny_list
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

    `base` (None when it was unborn), `commits` and `files` are those of the session's branch; `others` were looked at
    beside it.
    """

    branch: str
    base: Oid | None
    commits: int
    files: int
    findings: tuple[Finding, ...]
    others: tuple[Looked, ...] = ()

    @property
    def blocking(self) -> bool:
        """Whether a finding asks for a person's word before anything is merged."""
        return any(one.severity is Severity.BLOCK for one in self.findings)

    def to_public(self) -> dict[str, object]:
        """The object of `review --json`: a documented contract, exactly these keys."""
        return {
            "branch": self.branch,
            "base": self.base or "",
            "commits": self.commits,
            "files": self.files,
            "findings": [_public(one) for one in self.findings],
            "others": [one.to_public() for one in self.others],
            "blocking": self.blocking,
        }


def review(session: SessionContext) -> Review:
    """Look at all that came back of a session; a running one is asked to save its work first. Raises GitError."""
    store, commits = _where(session)
    counts = Summary(0, 0, 0, 0)
    if commits.tip is not None:
        counts = summarize(store, base=commits.base, tip=commits.tip)
    found, others = _look(session, store, commits, Account(Budget()))
    return Review(
        branch=session.record.branch,
        base=commits.base,
        commits=counts.commits,
        files=counts.files,
        findings=tuple(ranked([*_unsaved(commits), *found])),
        others=tuple(others),
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
    found, _ = _look(session, store, commits, Account(_AT_THE_END))
    return tuple(one for one in ranked(found) if one.severity is not Severity.NOTE)


def _where(session: SessionContext) -> tuple[Store, Range]:
    """The store that has the session's commits, and which these are."""
    if session.relay.git_dir.is_dir():
        return session.relay.store, current_range(session)
    saved, base = session.record.saved, session.relay.base
    tip = Oid.parse(saved.relay_tip) if saved.integrated and saved.relay_tip else None
    return home_store(session), Range(base, None if tip == base else tip)


def _look(
    session: SessionContext, store: Store, commits: Range, account: Account
) -> tuple[list[Finding], list[Looked]]:
    """The findings about the session's commits, then about all else that came back, and what that is."""
    found: list[Finding] = []
    if commits.tip is not None:
        launch = store.resolve(WORKTREE_REF)
        found += _scan(store, Subject(commits.base, commits.tip, launch, _author(session)), account)
    try:
        others = others_of(session, base=commits.base, tip=commits.tip)
    except CodingAgentsError as error:
        return [
            *found,
            limit(f"other branches and repositories inside were not looked at: {error.message}"),
        ], []
    looked: list[Looked] = []
    for number, other in enumerate(others):
        if account.is_spent() or len(looked) >= account.budget.others:
            left = len(others) - number
            found.append(limit(f"{left} other branch(es) and repositories inside were not looked at"))
            break
        found += _look_beside(session, other, account, looked)
    return found, looked


def _look_beside(
    session: SessionContext, other: Other, account: Account, looked: list[Looked]
) -> list[Finding]:
    try:
        subject = other.subject(_author(session))
        if subject is None:
            return []
        looked.append(Looked(other.ref, other.path, subject.base, other.tip))
        return _scan(other.store, subject, account)
    except GitError as error:
        return [replace(limit(f"not looked at: {error.message}"), ref=other.ref)]


def _scan(store: Store, subject: Subject, account: Account) -> list[Finding]:
    return scan(store, subject, account=account, is_secret_name=load_deny_list().matches)


def _author(session: SessionContext) -> tuple[str, ...]:
    record = session.record
    return record.author_name, record.author_email, record.committer_name, record.committer_email


def _unsaved(commits: Range) -> tuple[Finding, ...]:
    if not commits.unsaved:
        return ()
    return (limit(f"the latest work is not among this: {commits.unsaved}"),)


def _public(finding: Finding) -> dict[str, str]:
    return {
        "rule": finding.rule,
        "severity": finding.severity.value,
        "path": finding.path,
        "detail": finding.detail,
        "commit": finding.commit,
        "ref": finding.ref,
    }
