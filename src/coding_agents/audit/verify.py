"""Whether an audit log is the chain that was written: pure, over the lines of the file.

What it proves: no record was changed, reordered, added or taken out of the middle by anybody who does not
also rewrite everything after it. What it cannot prove: that nothing was cut off the end of an open log.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from coding_agents.model.audit import (
    GENESIS,
    VERSION,
    AuditRecord,
    RecordType,
    decode_record,
    encode_record,
    record_hash,
)

_CLOSING = (RecordType.SESSION_ENDED, RecordType.SESSION_REMOVED)


class Verdict(msgspec.Struct, frozen=True):
    """The result of a verification.

    `state`: empty, sealed (the last record ends the session), open (it does not), broken. `seq` is the
    first record since which the log is open, or at which it is broken. `gaps` counts gap records, `head`
    is the hash of the last good record.
    """

    state: Literal["empty", "sealed", "open", "broken"]
    records: int
    seq: int = 0
    why: str = ""
    gaps: int = 0
    head: str = GENESIS

    @property
    def ok(self) -> bool:
        return self.state in ("sealed", "open")

    def describe(self) -> str:
        """The verdict in one line."""
        counted = f"{self.records} records" + (f", {self.gaps} gaps" if self.gaps else "")
        match self.state:
            case "empty":
                return "empty: no record was ever written"
            case "sealed":
                return f"consistent and sealed: {counted}"
            case "open":
                return f"consistent: {counted}, open since seq {self.seq}"
            case "broken":
                return f"broken at seq {self.seq}: {self.why}"


def verify(lines: Iterable[bytes]) -> Verdict:
    """Check the chain over `lines` (with or without their newlines); stops at the first break."""
    previous: AuditRecord | None = None
    gaps = 0
    open_since = 1
    for count, line in enumerate(lines):
        head = previous.hash if previous else GENESIS
        try:
            record = decode_record(line)
            why = _problem(record, line, previous)
        except ValueError as error:
            record, why = None, f"not a record: {error}"
        if record is None or why:
            return Verdict("broken", count, seq=count + 1, why=why, gaps=gaps, head=head)
        gaps += record.type is RecordType.GAP
        if record.type in _CLOSING:
            open_since = record.seq + 1
        previous = record
    if previous is None:
        return Verdict("empty", 0)
    sealed = previous.type in _CLOSING
    seq = 0 if sealed else open_since
    return Verdict("sealed" if sealed else "open", previous.seq, seq=seq, gaps=gaps, head=previous.hash)


def _problem(record: AuditRecord, line: bytes, previous: AuditRecord | None) -> str:
    """Why `record` does not follow `previous`, or ""."""
    expected = previous.seq + 1 if previous else 1
    if record.v != VERSION:
        return f"format {record.v}, this version reads format {VERSION}"
    if record.seq != expected:
        return f"its seq is {record.seq}, not {expected}: records are missing, repeated or out of order"
    if record.prev != (previous.hash if previous else GENESIS):
        return "it does not follow the record before it"
    if previous and record.session != previous.session:
        return f"it is of session {record.session!r}"
    if record.hash != record_hash(record):
        return "its content was changed"
    # A second spelling of the same values would let bytes change without the hash noticing.
    if line.removesuffix(b"\n") != encode_record(record).removesuffix(b"\n"):
        return "it is not in canonical form"
    return ""
