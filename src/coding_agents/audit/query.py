"""Filters over audit records: pure, over the lines of the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

import msgspec

from coding_agents.model.audit import AuditRecord, RecordType, decode_record


class Query(msgspec.Struct, frozen=True):
    """What to show; an empty field does not filter. Times in milliseconds, `subject` is a glob."""

    types: frozenset[RecordType] = frozenset()
    sources: frozenset[str] = frozenset()
    outcomes: frozenset[str] = frozenset()
    rule: str = ""
    subject: str = ""
    since_ms: int = 0
    until_ms: int | None = None

    def matches(self, record: AuditRecord) -> bool:
        """Whether `record` is one of those asked for."""
        return (
            (not self.types or record.type in self.types)
            and (not self.sources or record.source in self.sources)
            and (not self.outcomes or record.outcome in self.outcomes)
            and (not self.rule or record.rule == self.rule)
            and (not self.subject or fnmatchcase(record.subject, self.subject))
            and record.time >= self.since_ms
            and (self.until_ms is None or record.time < self.until_ms)
        )


class Reading(msgspec.Struct):
    """Records read one by one; `damaged` counts the lines that were no record and were passed over."""

    lines: Iterable[bytes]
    damaged: int = 0

    def matching(self, query: Query) -> Iterator[AuditRecord]:
        """The records that `query` asks for, in the order of the file."""
        for line in self.lines:
            try:
                record = decode_record(line)
            except ValueError:
                self.damaged += 1
                continue
            if query.matches(record):
                yield record
