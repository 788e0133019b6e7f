"""Where a log that may have been cut off by a crash goes on."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from coding_agents.model.audit import GENESIS, RecordType, decode_record


class Tail(msgspec.Struct, frozen=True):
    """The end of a log: the last whole record, its session ("" when there is none), the bytes up to it,
    what stands behind it (a torn line), and what the guest's records took, tool calls apart."""

    seq: int = 0
    hash: str = GENESIS
    session: str = ""
    good_bytes: int = 0
    torn: bytes = b""
    guest_bytes: int = 0
    tool_bytes: int = 0


def find_tail(lines: Iterable[bytes]) -> Tail:
    """Find the end of the log in its lines (with their newlines).

    A damaged line between whole ones stays where it is, as evidence that `verify` shows; only what
    stands behind the last whole record counts as torn.
    """
    tail = Tail()
    behind: list[bytes] = []
    for line in lines:
        try:
            record = decode_record(line) if line.endswith(b"\n") else None
        except ValueError:
            record = None
        behind.append(line)
        if record is not None:
            size = sum(map(len, behind))
            guest, tools = tail.guest_bytes, tail.tool_bytes
            if record.type is RecordType.TOOL_CALL:
                tools += len(line)
            elif record.source == "guest":
                guest += len(line)
            good = tail.good_bytes + size
            tail = Tail(record.seq, record.hash, record.session, good, guest_bytes=guest, tool_bytes=tools)
            behind.clear()
    if not behind:
        return tail
    return msgspec.structs.replace(tail, torn=b"".join(behind))
