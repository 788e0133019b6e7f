"""What commits hold that the last state does not: a secret that was taken away again is in the history all the same.

Blobs are looked into for secrets by the rules for content, and their names for those of files that hold secrets. Each
value is one finding, with the first commit that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from coding_agents.errors import GitError
from coding_agents.gitsync.findings.budget import Account
from coding_agents.gitsync.findings.model import LARGE_BYTES, Finding, Severity, limit
from coding_agents.gitsync.findings.objects import Blobs, Held, blob_at, blobs, history, sizes
from coding_agents.gitsync.findings.rules import SecretRule, load_rules
from coding_agents.gitsync.packs import Store
from coding_agents.model.refs import Oid

# So many secrets are remembered, of one path or as told; what is found beyond them counts as new.
_MAX_MARKS = 100_000
_MAX_PATHS = 100


def judge_earlier(
    store: Store,
    tip: Oid,
    known: tuple[Oid, ...],
    states: tuple[Oid, ...],
    seen: Container[str],
    account: Account,
    is_secret_name: Callable[[str], bool],
) -> Iterator[Finding]:
    """Findings about blobs of the commits of `tip` that are not of `known`, but for those in `seen`.

    What stands at the same path in one of `states` is no finding here: it was there before, or is in the last state.
    """
    budget = account.budget
    if account.is_spent():
        yield limit("earlier commits were not looked at: there is too much of them")
        return
    try:
        found = history(
            store, tip, known, commits=budget.commits, limit=budget.objects, timeout_s=account.seconds()
        )
        known_sizes = sizes(store, (one.oid for one in found.held), timeout_s=account.seconds())
    except GitError as error:
        yield limit(f"earlier commits were not looked at: {error.message}")
        return
    if found.more:
        yield limit(f"only the first {budget.objects} objects of earlier commits were looked at")
    if found.missing:
        yield limit(f"{found.missing} object(s) of its commits are not here")
    wanted = [one for one in found.held if one.oid in known_sizes and one.oid not in seen]
    if not wanted:
        return
    with blobs(store, timeout_s=account.seconds()) as reader:
        earlier = _Earlier(store, reader, states, account, is_secret_name)
        for number, one in enumerate(wanted):
            if account.is_spent():
                left = len(wanted) - number
                yield limit(
                    f"{left} file(s) of earlier commits were not looked at: there is too much of them"
                )
                return
            yield from earlier.judge(one, known_sizes[one.oid])


class _Standing(NamedTuple):
    """What stands at a path in the states to compare with: whether anything does, and marks of its secrets."""

    there: bool
    marks: frozenset[int]


class _Earlier:
    """Looks into blobs of earlier commits, and remembers what it has told."""

    def __init__(
        self,
        store: Store,
        reader: Blobs,
        states: tuple[Oid, ...],
        account: Account,
        is_secret_name: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._reader = reader
        self._states = states
        self._account = account
        self._is_secret_name = is_secret_name
        self._told: set[int] = set()
        self._standing: dict[str, _Standing] = {}

    def judge(self, one: Held, size: int) -> Iterator[Finding]:
        """Findings about one blob."""
        for rule, severity, detail in self._judge(one, size):
            shown = f"{detail}, in commit {one.commit[:12]} and not in the last state"
            yield Finding(rule, severity, one.path, shown, commit=one.commit)

    def _judge(self, one: Held, size: int) -> Iterator[tuple[str, Severity, str]]:
        if self._is_secret_name(one.path) and not self._at(one.path).there and self._is_new(hash(one.path)):
            yield "secret.file", Severity.WARN, "by its name it most likely holds a secret"
        if size >= LARGE_BYTES:
            yield "large", Severity.WARN, f"large file ({size >> 20} MiB)"
        if size > self._account.budget.blob_bytes:
            yield "limit.content", Severity.WARN, f"content not looked at: it has {size} bytes"
            return
        try:
            data = self._read(one.oid)
        except GitError as error:
            yield "limit.content", Severity.WARN, f"content not looked at: {error.message}"
            return
        for rule in load_rules().secrets:
            if self._has_new(rule, one.path, data):
                yield rule.id, rule.severity, rule.detail

    def _has_new(self, rule: SecretRule, path: str, data: bytes) -> bool:
        """Whether `data` has a value that neither stands at `path` nor was told before."""
        found = False
        for mark in _marks(rule, data):
            if mark not in self._told and mark not in self._at(path).marks:
                found |= self._is_new(mark)
        return found

    def _is_new(self, mark: int) -> bool:
        """Whether this was not told yet; it is told from now on."""
        new = mark not in self._told
        if len(self._told) < _MAX_MARKS:
            self._told.add(mark)
        return new

    def _at(self, path: str) -> _Standing:
        """What stands at `path`; what cannot be read holds nothing."""
        if path not in self._standing:
            if len(self._standing) >= _MAX_PATHS:
                self._standing.clear()
            oids = [oid for state in self._states if (oid := blob_at(self._store, state, path))]
            marks: set[int] = set()
            for oid in oids:
                with suppress(GitError):
                    data = self._read(oid)
                    every = (mark for rule in load_rules().secrets for mark in _marks(rule, data))
                    marks.update(islice(every, _MAX_MARKS))
            self._standing[path] = _Standing(bool(oids), frozenset(marks))
        return self._standing[path]

    def _read(self, oid: str) -> bytes:
        data = self._reader.read(oid, self._account.budget.blob_bytes)
        self._account.spend(len(data))
        return data


def _marks(rule: SecretRule, data: bytes) -> Iterator[int]:
    """A number for each secret in `data`: we need no copy of it to know it again."""
    return (hash((rule.id, value)) for _, value in rule.values(data))
