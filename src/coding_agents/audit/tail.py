"""Where a log that may have been cut off by a crash goes on."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from coding_agents.model.audit import GENESIS, decode_record


class Tail(msgspec.Struct, frozen=True):
    """The end of a log: the last whole record, its session ("" when there is none), the bytes up to it,
    what stands behind it (a torn line), and what the guest's records took."""

    seq: int = 0
    hash: str = GENESIS
    session: str = ""
    good_bytes: int = 0
    torn: bytes = b""
    guest_bytes: int = 0


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
            guest = tail.guest_bytes + (len(line) if record.source == "guest" else 0)
            tail = Tail(record.seq, record.hash, record.session, tail.good_bytes + size, guest_bytes=guest)
            behind.clear()
    if not behind:
        return tail
    return Tail(tail.seq, tail.hash, tail.session, tail.good_bytes, b"".join(behind), tail.guest_bytes)
