"""All findings about a branch: reads objects of one store within a budget, asks the pure judgements.

Where a budget ends, a finding says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from coding_agents.errors import GitError
from coding_agents.gitsync.findings.authors import judge_people
from coding_agents.gitsync.findings.bare import judge_repositories
from coding_agents.gitsync.findings.budget import Account, Budget
from coding_agents.gitsync.findings.content import judge_content
from coding_agents.gitsync.findings.earlier import judge_earlier
from coding_agents.gitsync.findings.manifests import is_manifest, judge_manifest
from coding_agents.gitsync.findings.model import (
    ABSENT,
    LARGE_BYTES,
    YOURS,
    Change,
    Entry,
    Finding,
    Severity,
    limit,
)
from coding_agents.gitsync.findings.modes import EXECUTABLE, SYMLINK, judge_link, judge_mode
from coding_agents.gitsync.findings.names import judge_path, judge_rules
from coding_agents.gitsync.findings.objects import Blobs, blobs, changed_paths, people, sizes
from coding_agents.gitsync.findings.rules import load_rules
from coding_agents.gitsync.packs import Store
from coding_agents.model.refs import Oid

_MAX_LINK = 4096
# What these say of a path depends on others: a repository is its whole directory.
_WHOLE_STATE = frozenset({"git.repository"})


class Subject(msgspec.Struct, frozen=True):
    """What to look at: the commits of `tip` that neither `base` (None: nothing) nor one of `known` has.

    `launch` is the commit that holds the user's work tree at launch, None when it was that of `base`. `author` is
    the session's name and address, and those of its committer, None where commits may be anybody's. `ref` is what the
    findings are to name, "" for the session's branch.
    """

    base: Oid | None
    tip: Oid
    launch: Oid | None
    author: tuple[str, ...] | None
    known: tuple[Oid, ...] = ()
    ref: str = ""

    @property
    def states(self) -> tuple[Oid, ...]:
        """The commits with whose files the agent's are compared, and the agent's last one."""
        return tuple(oid for oid in (self.base, self.launch, self.tip) if oid is not None)


def scan(
    store: Store, subject: Subject, *, account: Account, is_secret_name: Callable[[str], bool]
) -> list[Finding]:
    """Every finding about `subject`, in no order. `is_secret_name` tells files that most likely hold a secret.

    Raises GitError when the store cannot be read at all.
    """
    entries: dict[str, Entry] = {}
    found = _scan(store, subject, account, is_secret_name, entries)
    return [replace(one, ref=subject.ref, state=_state_of(one, subject, entries)) for one in found]


def _state_of(finding: Finding, subject: Subject, entries: Mapping[str, Entry]) -> str:
    """What the finding speaks of: what stands at its path, or, where more than that counts, all of the last state."""
    entry = entries.get(finding.path)
    if finding.commit:  # an object of that commit: it is there for good
        return ""
    if entry is None or not finding.path or finding.rule in _WHOLE_STATE:
        return f"commit {subject.tip}"
    return f"{entry.mode} {entry.oid}"


def _scan(
    store: Store,
    subject: Subject,
    account: Account,
    is_secret_name: Callable[[str], bool],
    entries: dict[str, Entry],
) -> Iterator[Finding]:
    """As `scan`; `entries` gets what stands at each changed path."""
    budget = account.budget
    changes, more = changed_paths(store, subject.base, subject.tip, limit=budget.changes)
    if more:
        yield limit(f"only the first {budget.changes} changed files were looked at")
    entries.update((change.path, change.new) for change in changes)
    own, more = _state_at_launch(store, subject, budget)
    if more:
        yield limit(f"only the first {budget.changes} of your own changes at launch were told apart")
    known = (*((subject.base,) if subject.base else ()), *subject.known)
    commits, more = people(store, subject.tip, known, limit=budget.commits)
    if more:
        yield limit(f"only the latest {budget.commits} commits were looked at")
    if subject.author is not None:
        yield from judge_people(commits, *subject.author)
    agents: list[Change] = []
    for change in changes:
        before = own.get(change.path)
        if before == change.new:
            yield Finding(YOURS, Severity.NOTE, change.path, "as it stood in your work tree at launch")
        elif change.new.mode != ABSENT.mode:  # what is gone runs nothing
            agents.append(Change(change.path, change.old if before is None else before, change.new))
    for change in agents:
        yield from _by_entry(change, is_secret_name)
    yield from judge_repositories(store, subject.tip, agents)
    yield from _by_content(store, agents, account)
    if len(commits) > 1:  # one commit has nothing but its last state
        seen = {change.new.oid for change in changes}
        yield from judge_earlier(store, subject.tip, known, subject.states, seen, account, is_secret_name)


def _state_at_launch(store: Store, subject: Subject, budget: Budget) -> tuple[Mapping[str, Entry], bool]:
    """What stood at launch at the paths where the user's work tree was not that of the base, and whether not all."""
    if subject.launch is None:
        return {}, False
    own, more = changed_paths(store, subject.base, subject.launch, limit=budget.changes)
    return {change.path: change.new for change in own}, more


def _by_entry(change: Change, is_secret_name: Callable[[str], bool]) -> Iterator[Finding]:
    yield from judge_path(change.path)
    yield from judge_mode(change)
    if not change.new.is_file:
        return
    if not is_manifest(change.path) and (found := judge_rules(change.path, load_rules())):
        yield found
    if is_secret_name(change.path):
        yield Finding("secret.file", Severity.WARN, change.path, "by its name it most likely holds a secret")


def _by_content(store: Store, changes: list[Change], account: Account) -> Iterator[Finding]:
    wanted = [change for change in changes if change.new.is_file or change.new.mode == SYMLINK]
    if not wanted:
        return
    known = sizes(store, (oid for change in wanted for oid in (change.new.oid, change.old.oid)))
    with blobs(store, timeout_s=account.seconds()) as reader:
        content = _Content(reader, known, account)
        for number, change in enumerate(wanted):
            if account.is_spent():
                left = len(wanted) - number
                yield limit(f"the content of {left} file(s) was not looked at: there is too much of it")
                return
            yield from content.judge(change)


class _Content:
    """Looks into files."""

    def __init__(self, reader: Blobs, known: Mapping[str, int], account: Account) -> None:
        self._reader = reader
        self._sizes = known
        self._account = account
        self._most = account.budget.blob_bytes

    def judge(self, change: Change) -> Iterator[Finding]:
        size = self._sizes.get(change.new.oid, -1)
        if size >= LARGE_BYTES:
            yield Finding("large", Severity.WARN, change.path, f"large file ({size >> 20} MiB)")
        most = _MAX_LINK if change.new.mode == SYMLINK else self._most
        if not 0 <= size <= most:
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
        if not change.old.is_file or not 0 <= size <= self._most:
            return b""
        try:
            return self._read(change.old)
        except GitError:
            return b""

    def _read(self, entry: Entry) -> bytes:
        data = self._reader.read(entry.oid, self._most)
        self._account.spend(len(data))
        return data
