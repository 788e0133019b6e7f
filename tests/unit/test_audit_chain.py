"""Audit records and the chain: canonical form, bounds, and that no change goes unnoticed."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coding_agents.audit.budget import GuestBudget
from coding_agents.audit.query import Query, Reading
from coding_agents.audit.tail import find_tail
from coding_agents.audit.verify import verify
from coding_agents.model.audit import (
    GENESIS,
    MAX_DETAIL_TOTAL,
    MAX_SUBJECT,
    AuditEvent,
    AuditRecord,
    RecordType,
    decode_record,
    encode_record,
    make_record,
    record_fields,
)

_SESSION = "0123456789ab"
_TEXTS = st.text(alphabet=st.characters(codec=None), max_size=40)
_EVENTS = st.builds(
    AuditEvent,
    st.sampled_from(RecordType),
    source=st.sampled_from(["host", "guest", "proxy"]),
    outcome=st.sampled_from(["allowed", "denied", "failed"]),
    tier=st.integers(0, 3),
    rule=_TEXTS,
    subject=_TEXTS,
    detail=st.dictionaries(_TEXTS, st.one_of(_TEXTS, st.integers()), max_size=4),
)


def _chain(events: list[AuditEvent], *, session: str = _SESSION) -> list[bytes]:
    lines: list[bytes] = []
    prev = GENESIS
    for seq, event in enumerate(events, 1):
        record = make_record(event, seq=seq, prev=prev, time_ms=1000 + seq, session=session)
        lines.append(encode_record(record))
        prev = record.hash
    return lines


_CHAINS = st.lists(_EVENTS, min_size=3, max_size=6).map(_chain)
_PUSH = AuditEvent(RecordType.PUSH, tier=2, rule="relay.session-branch", subject="refs/heads/demo/x")
_END = AuditEvent(RecordType.SESSION_ENDED)


@given(_CHAINS)
def test_what_was_written_verifies(lines: list[bytes]) -> None:
    verdict = verify(lines)
    assert verdict.ok
    assert verdict.records == len(lines)
    assert verdict.head == decode_record(lines[-1]).hash


@given(_CHAINS, st.data())
def test_any_changed_byte_is_found(lines: list[bytes], draw: st.DataObject) -> None:
    index = draw.draw(st.integers(0, len(lines) - 1))
    line = bytearray(lines[index][:-1])
    at = draw.draw(st.integers(0, len(line) - 1))
    line[at] = draw.draw(st.integers(0, 255).filter(lambda byte: byte != line[at] and byte != 0x0A))
    lines[index] = bytes(line) + b"\n"
    verdict = verify(lines)
    assert verdict.state == "broken"
    assert verdict.seq == index + 1


@given(_CHAINS, st.data())
def test_a_record_taken_out_of_the_middle_is_found(lines: list[bytes], draw: st.DataObject) -> None:
    del lines[draw.draw(st.integers(0, len(lines) - 2))]
    assert verify(lines).state == "broken"


@given(_CHAINS, st.data())
def test_a_repeated_record_is_found(lines: list[bytes], draw: st.DataObject) -> None:
    index = draw.draw(st.integers(0, len(lines) - 1))
    lines.insert(index, lines[index])
    assert verify(lines).state == "broken"


@given(_CHAINS, st.randoms(use_true_random=False))
def test_reordering_is_found(lines: list[bytes], random: object) -> None:
    shuffled = list(lines)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assume(shuffled != lines)
    assert verify(shuffled).state == "broken"


@given(_CHAINS, st.data())
def test_new_values_with_a_new_hash_break_what_follows(lines: list[bytes], draw: st.DataObject) -> None:
    index = draw.draw(st.integers(0, len(lines) - 2))
    old = decode_record(lines[index])
    forged = make_record(
        AuditEvent(old.type, source=old.source, subject=old.subject + "!"),
        seq=old.seq,
        prev=old.prev,
        time_ms=old.time,
        session=old.session,
    )
    lines[index] = encode_record(forged)
    verdict = verify(lines)
    assert (verdict.state, verdict.seq) == ("broken", index + 2)


def test_records_of_another_session_cannot_be_spliced_in() -> None:
    first = decode_record(_chain([_PUSH])[0])
    foreign = make_record(_PUSH, seq=2, prev=first.hash, time_ms=1, session="ffffffffffff")
    verdict = verify([encode_record(first), encode_record(foreign)])
    assert (verdict.state, verdict.seq) == ("broken", 2)


@pytest.mark.parametrize(
    "spelling",
    [
        lambda fields: json.dumps(fields, sort_keys=True),
        lambda fields: json.dumps(dict(reversed(fields.items())), separators=(",", ":")),
        lambda fields: json.dumps({**fields, "seq": 1.0}, sort_keys=True, separators=(",", ":")),
    ],
)
def test_other_spellings_of_the_same_values_are_refused(spelling: object) -> None:
    record = decode_record(_chain([_PUSH])[0])
    line = spelling(record_fields(record)).encode()  # type: ignore[operator]
    assert verify([line + b"\n"]).state == "broken"


def test_sealed_open_and_empty() -> None:
    assert verify([]).state == "empty"
    assert not verify([]).ok
    assert verify(_chain([_PUSH, _END])).state == "sealed"
    restarted = verify(_chain([_PUSH, _END, _PUSH, _PUSH]))
    assert (restarted.state, restarted.seq) == ("open", 3)
    assert "open since seq 3" in restarted.describe()
    assert verify(_chain([_PUSH])).describe() == "consistent: 1 records, open since seq 1"


def test_gaps_are_counted() -> None:
    assert verify(_chain([_PUSH, AuditEvent(RecordType.GAP), _END])).gaps == 1


@given(_EVENTS)
def test_a_record_round_trips_and_anybody_can_compute_its_hash(event: AuditEvent) -> None:
    line = _chain([event])[0]
    assert encode_record(decode_record(line)) == line
    fields = json.loads(line)
    claimed = fields.pop("hash")
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert hashlib.sha256(canonical).hexdigest() == claimed


def test_a_record_has_exactly_the_documented_keys() -> None:
    keys = {"v", "seq", "time", "session", "type", "source", "outcome", "tier", "rule", "subject", "detail"}
    assert set(json.loads(_chain([_PUSH])[0])) == keys | {"prev", "hash"}


def test_hostile_sizes_are_cut_and_lines_cannot_be_forged() -> None:
    event = AuditEvent(
        RecordType.GUEST_EVENT,
        source="guest",
        subject="x" * 10_000 + '\n{"v":1}',
        detail={f"k{n}": "\n" * 5000 for n in range(100)},
    )
    line = _chain([event])[0]
    record = decode_record(line)
    assert line.count(b"\n") == 1
    assert len(record.subject) == MAX_SUBJECT
    assert record.subject.endswith("…")
    assert len(record.detail) <= 32
    assert sum(len(str(value)) for value in record.detail.values()) <= MAX_DETAIL_TOTAL + 32


def test_integers_that_others_would_round_become_text() -> None:
    record = decode_record(_chain([AuditEvent(RecordType.PUSH, detail={"n": 1 << 70, "ok": True})])[0])
    assert record.detail == {"n": str(1 << 70), "ok": 1}


@given(_CHAINS, st.binary(max_size=30).filter(lambda data: b"\n" not in data))
def test_the_tail_of_a_torn_log_is_found(lines: list[bytes], torn: bytes) -> None:
    tail = find_tail([*lines, torn] if torn else lines)
    last = decode_record(lines[-1])
    assert (tail.seq, tail.hash, tail.torn) == (last.seq, last.hash, torn)
    assert tail.good_bytes == sum(map(len, lines))


def test_damage_between_whole_records_is_left_as_evidence() -> None:
    lines = _chain([_PUSH, _PUSH, _PUSH])
    damaged = [lines[0], b"\0" * 40 + b"\n", lines[2]]
    tail = find_tail(damaged)
    assert (tail.seq, tail.torn, tail.good_bytes) == (3, b"", sum(map(len, damaged)))


def test_the_guests_bytes_are_counted_again_after_a_restart() -> None:
    guest = AuditEvent(RecordType.GUEST_STEP, source="guest", subject='"source":"host"')
    lines = _chain([_PUSH, guest])
    assert find_tail(lines).guest_bytes == len(lines[1])


def test_the_guests_rate() -> None:
    budget = GuestBudget(per_second=10, at_once=10)
    assert [budget.admits(1, now_ms=5000) for _ in range(12)].count(True) == 10
    assert budget.admits(1, now_ms=5100)
    assert not budget.admits(1, now_ms=5100)
    assert not budget.admits(1, now_ms=1000), "a clock set back earns nothing"
    assert budget.admits(1, now_ms=1100)


def test_the_guests_total() -> None:
    budget = GuestBudget(used_bytes=90, total_bytes=100)
    assert not budget.admits(11, now_ms=0)
    assert budget.admits(10, now_ms=0)
    assert not budget.admits(1, now_ms=0)


def _query(query: Query, lines: list[bytes]) -> list[AuditRecord]:
    return list(Reading(lines).matching(query))


@pytest.mark.parametrize(
    ("query", "seqs"),
    [
        (Query(), [1, 2, 3]),
        (Query(types=frozenset({RecordType.PUSH})), [1]),
        (Query(sources=frozenset({"guest"})), [2]),
        (Query(outcomes=frozenset({"denied"})), [3]),
        (Query(rule="relay.session-branch"), [1]),
        (Query(subject="refs/heads/*"), [1, 3]),
        (Query(since_ms=1002), [2, 3]),
        (Query(until_ms=1002), [1]),
        (Query(since_ms=1002, outcomes=frozenset({"denied"}), subject="nothing"), []),
    ],
)
def test_query_filters(query: Query, seqs: list[int]) -> None:
    denied = AuditEvent(RecordType.PUSH_REFUSED, outcome="denied", subject="refs/heads/main")
    lines = _chain([_PUSH, AuditEvent(RecordType.GUEST_STEP, source="guest"), denied])
    assert [record.seq for record in _query(query, lines)] == seqs


def test_query_passes_over_damage_and_counts_it() -> None:
    reading = Reading([*_chain([_PUSH]), b"{torn\n", b"\n"])
    assert [record.seq for record in reading.matching(Query())] == [1]
    assert reading.damaged == 2
