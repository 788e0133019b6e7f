"""All findings about a branch: reads objects of one store within a budget, asks the pure judgements.

Where a budget ends, a finding says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import msgspec

from coding_agents.errors import GitError
from coding_agents.gitsync.findings.authors import judge_people
from coding_agents.gitsync.findings.bare import judge_repositories
from coding_agents.gitsync.findings.content import judge_content
from coding_agents.gitsync.findings.manifests import is_manifest, judge_manifest
from coding_agents.gitsync.findings.model import ABSENT, YOURS, Change, Entry, Finding, Severity
from coding_agents.gitsync.findings.modes import EXECUTABLE, SYMLINK, judge_link, judge_mode
from coding_agents.gitsync.findings.names import judge_path, judge_rules
from coding_agents.gitsync.findings.objects import Blobs, blobs, changed_paths, people, sizes
from coding_agents.gitsync.findings.rules import load_rules
from coding_agents.gitsync.packs import Store
from coding_agents.model.refs import Oid

LARGE_BYTES = 10 << 20
_MAX_LINK = 4096


class Budget(msgspec.Struct, frozen=True):
    """What one look may cost. Beyond `blob_bytes` a file's content is not looked at, beyond the others nothing is."""

    blob_bytes: int = 4 << 20
    total_bytes: int = 512 << 20
    changes: int = 200_000
    commits: int = 20_000
    seconds: float = 120.0


class Subject(msgspec.Struct, frozen=True):
    """The branch to look at: commits of `tip` that `base` (None: nothing) has not.

    `launch` is the commit that holds the user's work tree at launch, None when it was that of `base`. `author` is
    the session's name and address.
    """

    base: Oid | None
    tip: Oid
    launch: Oid | None
    author: tuple[str, str]


def scan(
    store: Store,
    subject: Subject,
    *,
    budget: Budget,
    is_secret_name: Callable[[str], bool],
    clock: Callable[[], float] = time.monotonic,
) -> list[Finding]:
    """Every finding about `subject`, in no order. `is_secret_name` tells files that most likely hold a secret.

    Raises GitError when the store cannot be read at all.
    """
    findings: list[Finding] = []
    changes, more = changed_paths(store, subject.base, subject.tip, limit=budget.changes)
    if more:
        findings.append(_limit(f"only the first {budget.changes} changed files were looked at"))
    at_launch = _state_at_launch(store, subject, budget, findings)
    commits, more = people(store, subject.base, subject.tip, limit=budget.commits)
    if more:
        findings.append(_limit(f"only the authors of the latest {budget.commits} commits were looked at"))
    findings += judge_people(commits, *subject.author)
    agents: list[Change] = []
    for change in changes:
        before = at_launch.get(change.path)
        if before == change.new:
            findings.append(
                Finding(YOURS, Severity.NOTE, change.path, "as it stood in your work tree at launch")
            )
        elif change.new.mode != ABSENT.mode:  # what is gone runs nothing
            agents.append(Change(change.path, change.old if before is None else before, change.new))
    for change in agents:
        findings += _by_entry(change, is_secret_name)
    findings += judge_repositories(store, subject.tip, agents)
    findings += _by_content(store, agents, budget, clock)
    return findings


def _state_at_launch(
    store: Store, subject: Subject, budget: Budget, findings: list[Finding]
) -> Mapping[str, Entry]:
    """What stood at launch at the paths where the user's work tree was not that of the base."""
    if subject.launch is None:
        return {}
    own, more = changed_paths(store, subject.base, subject.launch, limit=budget.changes)
    if more:
        findings.append(
            _limit(f"only the first {budget.changes} of your own changes at launch were told apart")
        )
    return {change.path: change.new for change in own}


def _by_entry(change: Change, is_secret_name: Callable[[str], bool]) -> Iterator[Finding]:
    yield from judge_path(change.path)
    yield from judge_mode(change)
    if not change.new.is_file:
        return
    if not is_manifest(change.path) and (found := judge_rules(change.path, load_rules())):
        yield found
    if is_secret_name(change.path):
        yield Finding("secret.file", Severity.WARN, change.path, "by its name it most likely holds a secret")


def _by_content(
    store: Store, changes: list[Change], budget: Budget, clock: Callable[[], float]
) -> Iterator[Finding]:
    wanted = [change for change in changes if change.new.is_file or change.new.mode == SYMLINK]
    if not wanted:
        return
    known = sizes(store, (oid for change in wanted for oid in (change.new.oid, change.old.oid)))
    deadline = clock() + budget.seconds
    with blobs(store, timeout_s=budget.seconds) as reader:
        content = _Content(reader, known, budget)
        for number, change in enumerate(wanted):
            if clock() > deadline or content.spent > budget.total_bytes:
                left = len(wanted) - number
                yield _limit(f"the content of {left} file(s) was not looked at: there is too much of it")
                return
            yield from content.judge(change)


class _Content:
    """Looks into files, and knows what that has cost."""

    def __init__(self, reader: Blobs, known: Mapping[str, int], budget: Budget) -> None:
        self._reader = reader
        self._sizes = known
        self._budget = budget
        self.spent = 0

    def judge(self, change: Change) -> Iterator[Finding]:
        size = self._sizes.get(change.new.oid, -1)
        if size >= LARGE_BYTES:
            yield Finding("large", Severity.WARN, change.path, f"large file ({size >> 20} MiB)")
        limit = _MAX_LINK if change.new.mode == SYMLINK else self._budget.blob_bytes
        if not 0 <= size <= limit:
            why = "it is not here" if size < 0 else f"it has {size} bytes"
            yield Finding("limit.content", Severity.WARN, change.path, f"content not looked at: {why}")
            return
        try:
            data = self._read(change.new)
        except GitError as error:
            yield Finding(
                "limit.content", Severity.WARN, change.path, f"content not looked at: {error.message}"
            )
            return
        if change.new.mode == SYMLINK:
            yield judge_link(change.path, data)
            return
        became = change.new.mode == EXECUTABLE
        yield from judge_content(
            change.path, data, lambda: self._old(change), load_rules(), executable=became
        )
        if is_manifest(change.path):
            yield from judge_manifest(change.path, data, self._old(change))

    def _old(self, change: Change) -> bytes:
        """What stood there before; empty when that was no file, or one too large to compare with."""
        size = self._sizes.get(change.old.oid, -1)
        if not change.old.is_file or not 0 <= size <= self._budget.blob_bytes:
            return b""
        try:
            return self._read(change.old)
        except GitError:
            return b""

    def _read(self, entry: Entry) -> bytes:
        data = self._reader.read(entry.oid, self._budget.blob_bytes)
        self.spent += len(data)
        return data


def _limit(detail: str) -> Finding:
    """Beyond a budget anything may stand, so a person must know before a merge."""
    return Finding("limit", Severity.BLOCK, "", detail)
