"""What to look at before using a session's branch: findings about its commits, told apart from the user's own work."""

from __future__ import annotations

import msgspec

from coding_agents.app.work import Range, current_range, home_store
from coding_agents.gitsync.findings.model import Finding, Severity, ranked
from coding_agents.gitsync.findings.scan import Budget, Subject, scan
from coding_agents.gitsync.packs import Store
from coding_agents.gitsync.summary import summarize
from coding_agents.model.refs import Oid
from coding_agents.model.session import Saved
from coding_agents.supervisor.context import SessionContext
from coding_agents.workspace.deny import load_deny_list
from coding_agents.workspace.launch_state import WORKTREE_REF

# The end of a session must not wait for long: what is not reached is named there, and `review` reaches it.
_AT_THE_END = Budget(total_bytes=64 << 20, seconds=10.0)


class Review(msgspec.Struct, frozen=True):
    """The findings about a session's commits, gravest first. `base` is None when the branch was unborn."""

    branch: str
    base: Oid | None
    commits: int
    files: int
    findings: tuple[Finding, ...]

    @property
    def blocking(self) -> bool:
        """Whether a finding asks for a person's word before the branch is merged."""
        return any(one.severity is Severity.BLOCK for one in self.findings)

    def to_public(self) -> dict[str, object]:
        """The object of `review --json`: a documented contract, exactly these keys."""
        return {
            "branch": self.branch,
            "base": self.base or "",
            "commits": self.commits,
            "files": self.files,
            "findings": [_public(one) for one in self.findings],
            "blocking": self.blocking,
        }


def review(session: SessionContext) -> Review:
    """Look at all commits of a session; a running one is asked to save its work first. Raises GitError."""
    store, commits = _where(session)
    if commits.tip is None:
        return Review(session.record.branch, commits.base, 0, 0, _unsaved(commits))
    counts = summarize(store, base=commits.base, tip=commits.tip)
    found = _scan(session, store, commits.base, commits.tip, Budget())
    return Review(
        branch=session.record.branch,
        base=commits.base,
        commits=counts.commits,
        files=counts.files,
        findings=tuple(ranked([*_unsaved(commits), *found])),
    )


def to_look_at(session: SessionContext, saved: Saved) -> tuple[Finding, ...]:
    """The findings for the end of a session: without what is only good to know. Raises GitError."""
    if not saved.relay_tip:
        return ()
    base = Oid.parse(session.record.base) if session.record.base else None
    # With `--rm` the relay is gone by now; what arrived in the repository is there in any case.
    store = session.relay.store if session.relay.git_dir.is_dir() else home_store(session)
    found = _scan(session, store, base, Oid.parse(saved.relay_tip), _AT_THE_END)
    return tuple(one for one in ranked(found) if one.severity is not Severity.NOTE)


def _where(session: SessionContext) -> tuple[Store, Range]:
    """The store that has the session's commits, and which these are."""
    if session.relay.git_dir.is_dir():
        return session.relay.store, current_range(session)
    saved, base = session.record.saved, session.relay.base
    tip = Oid.parse(saved.relay_tip) if saved.integrated and saved.relay_tip else None
    return home_store(session), Range(base, None if tip == base else tip)


def _scan(session: SessionContext, store: Store, base: Oid | None, tip: Oid, budget: Budget) -> list[Finding]:
    record = session.record
    subject = Subject(base, tip, store.resolve(WORKTREE_REF), (record.author_name, record.author_email))
    return scan(store, subject, budget=budget, is_secret_name=load_deny_list().matches)


def _unsaved(commits: Range) -> tuple[Finding, ...]:
    if not commits.unsaved:
        return ()
    return (Finding("limit", Severity.BLOCK, "", f"the latest work is not among this: {commits.unsaved}"),)


def _public(finding: Finding) -> dict[str, str]:
    return {
        "rule": finding.rule,
        "severity": finding.severity.value,
        "path": finding.path,
        "detail": finding.detail,
    }
