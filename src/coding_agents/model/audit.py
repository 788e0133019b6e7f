"""One record of the audit log: its fields, its canonical form and its hash.

A record is a line of JSON in canonical form: sorted keys, no spaces, UTF-8, integers only. `hash` is the
SHA-256 of the canonical form of the record without `hash`; `prev` is the hash of the record before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

import msgspec

VERSION = 1
GENESIS = "0" * 64

MAX_SUBJECT = 1024
MAX_DETAIL_KEYS = 32
MAX_DETAIL_TEXT = 2048
MAX_DETAIL_TOTAL = 8192
_CUT = "…"

Source = Literal["host", "guest", "proxy"]
Outcome = Literal["allowed", "denied", "failed"]
Detail = dict[str, str | int]


class RecordType(StrEnum):
    """The closed list of record types."""

    SESSION_CREATED = "session-created"
    LAUNCH_STEP = "launch-step"
    NETWORK_APPLIED = "network-applied"
    ENFORCEMENT_MEASURED = "enforcement-measured"
    SUPERVISOR_STARTED = "supervisor-started"
    CHANNEL_OPENED = "channel-opened"
    CHANNEL_CLOSED = "channel-closed"
    GATE_OPENED = "gate-opened"
    GATE_CLOSED = "gate-closed"
    GUEST_STEP = "guest-step"
    GUEST_EVENT = "guest-event"
    TOOL_CALL = "tool-call"
    ATTACHED = "attached"
    EXEC = "exec"
    COPIED = "copied"
    PUSH = "push"
    PUSH_REFUSED = "push-refused"
    FETCH = "fetch"
    FETCH_REFUSED = "fetch-refused"
    MODEL_REQUEST = "model-request"
    MODEL_REFUSED = "model-refused"
    MODEL_USED = "model-used"
    MCP_SERVER_STARTED = "mcp-server-started"
    MCP_SERVER_REFUSED = "mcp-server-refused"
    MCP_SERVER_ENDED = "mcp-server-ended"
    MCP_REQUEST = "mcp-request"
    REGISTRY_REQUEST = "registry-request"
    REGISTRY_REFUSED = "registry-refused"
    CREDENTIAL_RELEASED = "credential-released"
    CREDENTIAL_REFUSED = "credential-refused"
    SSH_AGENT_SIGNED = "ssh-agent-signed"
    SSH_AGENT_REFUSED = "ssh-agent-refused"
    AUTH_FILES_GIVEN = "auth-files-given"
    SIGNING_KEY = "signing-key"
    SIGNED = "signed"
    SIGNING_REFUSED = "signing-refused"
    ORIGIN_FETCH = "origin-fetch"
    ORIGIN_REFUSED = "origin-refused"
    ORIGIN_PUSH_ASKED = "origin-push-asked"
    ORIGIN_PUSH_DECIDED = "origin-push-decided"
    ORIGIN_PUSH = "origin-push"
    EGRESS = "egress"
    EGRESS_CHANGED = "egress-changed"
    BUDGET_USED = "budget-used"
    NOTIFIED = "notified"
    TOLD = "told"
    INTEGRATED = "integrated"
    SAVED = "saved"
    SALVAGED = "salvaged"
    FINDING_ACCEPTED = "finding-accepted"
    MERGED = "merged"
    AUTOSAVED = "autosaved"
    THINNED = "thinned"
    SESSION_ENDED = "session-ended"
    SESSION_REMOVED = "session-removed"
    GAP = "gap"


class AuditRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One audit record; `time` in milliseconds since the epoch, `tier` 0 when no policy was asked."""

    v: int
    seq: int
    time: int
    session: str
    type: RecordType
    source: Source
    outcome: Outcome
    tier: int
    rule: str
    subject: str
    detail: Detail
    prev: str
    hash: str


class AuditEvent(msgspec.Struct, frozen=True):
    """What is to be recorded, before it has its place in the chain."""

    type: RecordType
    source: Source = "host"
    outcome: Outcome = "allowed"
    tier: int = 0
    rule: str = ""
    subject: str = ""
    detail: Mapping[str, str | int] = msgspec.field(default_factory=dict)


def make_record(event: AuditEvent, *, seq: int, prev: str, time_ms: int, session: str) -> AuditRecord:
    """The record of an event, with its hash. Texts beyond the bounds are cut, with `…` at the cut."""
    fields: dict[str, Any] = {
        "v": VERSION,
        "seq": seq,
        "time": time_ms,
        "session": session,
        "type": event.type.value,
        "source": event.source,
        "outcome": event.outcome,
        "tier": event.tier,
        "rule": _bounded(event.rule, MAX_SUBJECT),
        "subject": _bounded(event.subject, MAX_SUBJECT),
        "detail": _bounded_detail(event.detail),
        "prev": prev,
    }
    digest = hashlib.sha256(canonical_json(fields)).hexdigest()
    return AuditRecord(**{**fields, "type": event.type, "hash": digest})


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """The canonical form: JSON with sorted keys, no spaces, UTF-8; only what JSON demands is escaped."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def encode_record(record: AuditRecord) -> bytes:
    """The line of a record in the log, with its newline."""
    return canonical_json(record_fields(record)) + b"\n"


def record_fields(record: AuditRecord) -> dict[str, Any]:
    """The public form of a record: a documented contract."""
    return {**msgspec.structs.asdict(record), "type": record.type.value}


def record_hash(record: AuditRecord) -> str:
    """The hash that a record with these fields must carry."""
    fields = record_fields(record)
    del fields["hash"]
    return hashlib.sha256(canonical_json(fields)).hexdigest()


def decode_record(line: bytes) -> AuditRecord:
    """The record on a line, in any JSON form. Raises ValueError with the reason."""
    return msgspec.json.decode(line, type=AuditRecord)


def _bounded(text: str, limit: int) -> str:
    # Undecodable bytes arrive as surrogates, which UTF-8 cannot hold: they become `\udcXX` in ASCII.
    clean = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return clean if len(clean) <= limit else clean[: limit - 1] + _CUT


def _bounded_detail(detail: Mapping[str, str | int]) -> Detail:
    kept: Detail = {}
    room = MAX_DETAIL_TOTAL
    for key, value in list(detail.items())[:MAX_DETAIL_KEYS]:
        name = _bounded(key, 64)
        # 64-bit integers only: beyond them readers in other languages lose digits.
        whole = int(value) if isinstance(value, int) and abs(value) < 1 << 63 else None
        kept[name] = whole if whole is not None else _bounded(str(value), max(1, min(MAX_DETAIL_TEXT, room)))
        room -= len(name) + len(str(kept[name]))
    return kept
