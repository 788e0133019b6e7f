"""A push to origin that waits for a person's word: what exactly it is for, what they are shown, and what became of it.

No IO. All text but addresses, ids and numbers is hostile, and is escaped by whoever shows it.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Literal

import msgspec

VERSION = 1
MOST_PENDING = 5
VALID_MS = 24 * 3600 * 1000
"""So long a person may take."""

State = Literal["pending", "approved", "pushed", "denied", "failed", "expired", "superseded"]

_ID = re.compile(r"[0-9a-f]{10}")


class Shown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person is shown of a push. The lists are cut; the numbers are not.

    `commits` are (id, author, subject), newest first; `paths` changed ones; `findings` are (severity, rule, path,
    detail), gravest first. `base` is what they are compared with, "" for nothing.
    """

    base: str
    commit_count: int
    file_count: int
    insertions: int
    deletions: int
    commits: tuple[tuple[str, str, str], ...]
    paths: tuple[str, ...]
    finding_count: int
    blocking: int
    findings: tuple[tuple[str, str, str, str], ...]


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an approval binds, beside its expiry: exactly this is pushed, or nothing is.

    `old` is what `ref` must name at origin, "" when it must not be there; `force` says that `new` does not contain it.
    `findings` is a hash of all that was found. `merge_request` asks for one into `target` ("": the default branch).
    """

    session: str
    url: str
    ref: str
    old: str
    new: str
    force: bool
    findings: str
    merge_request: bool = False
    target: str = ""

    @property
    def id(self) -> str:
        """The same for the same, so that asking twice is asking once."""
        return self.digest(0)[:10]

    def digest(self, expires_ms: int) -> str:
        """A hash of everything that an approval binds."""
        bound = {**msgspec.to_builtins(self), "expires": expires_ms}
        return hashlib.sha256(json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A push that was asked for. Times are milliseconds since the epoch.

    `binding` is the digest of what was shown, `reason` why it is not pushed, `said` what origin answered.
    """

    v: int = VERSION
    wanted: Wanted
    shown: Shown
    created_ms: int
    expires_ms: int
    binding: str
    state: State = "pending"
    decided_ms: int = 0
    decided_by: str = ""
    reason: str = ""
    said: str = ""

    @property
    def id(self) -> str:
        return self.wanted.id

    @property
    def branch(self) -> str:
        """The branch's short name."""
        return self.wanted.ref.removeprefix("refs/heads/")

    def at(self, now_ms: int) -> Approval:
        """As it is at this time: what nobody decided has expired, also when the clock went back behind its creation."""
        if self.state == "pending" and not self.created_ms - 60_000 <= now_ms < self.expires_ms:
            return self.evolve(state="expired", reason="nobody decided in time; push again to ask again")
        return self

    def evolve(self, **changes: Any) -> Approval:
        """A copy with `changes`. Raises TypeError for a field that does not exist."""
        return msgspec.structs.replace(self, **changes)

    def to_public(self, session: str) -> dict[str, object]:
        """The object of `approvals --json`: a documented contract, exactly these keys. `session` is its name."""
        wanted, shown = self.wanted, self.shown
        return {
            "id": self.id,
            "session": session,
            "state": self.state,
            "url": wanted.url,
            "ref": wanted.ref,
            "old": wanted.old,
            "new": wanted.new,
            "force": wanted.force,
            "merge_request": wanted.merge_request,
            "target": wanted.target,
            "commits": shown.commit_count,
            "files": shown.file_count,
            "insertions": shown.insertions,
            "deletions": shown.deletions,
            "findings": shown.finding_count,
            "blocking": shown.blocking,
            "created": self.created_ms,
            "expires": self.expires_ms,
            "reason": self.reason,
            "said": self.said,
        }


def ask(wanted: Wanted, shown: Shown, *, now_ms: int) -> Approval:
    """The approval that asks for `wanted`."""
    expires_ms = now_ms + VALID_MS
    return Approval(
        wanted=wanted,
        shown=shown,
        created_ms=now_ms,
        expires_ms=expires_ms,
        binding=wanted.digest(expires_ms),
    )


def why_void(approval: Approval, *, now_ms: int, binding: str) -> str:
    """Why `approval` cannot be granted to somebody who was shown what `binding` is the digest of; "" when it can."""
    now = approval.at(now_ms)
    if now.state != "pending":
        return f"it is {now.state}{f': {now.reason}' if now.reason else ' already'}"
    if approval.binding != approval.wanted.digest(approval.expires_ms):
        return "what it binds is not what was shown: it was changed on the disk"
    if binding != approval.binding:
        return "it is not what you were shown"
    return ""


def is_approval_id(text: str) -> bool:
    """Whether `text` has the form of an id; only such a text is ever joined to a path."""
    return _ID.fullmatch(text) is not None


def encode_approval(approval: Approval) -> bytes:
    """The content of its file."""
    return msgspec.json.format(msgspec.json.encode(approval), indent=2) + b"\n"


def decode_approval(data: bytes) -> Approval:
    """The approval in a file. Raises ValueError with the reason."""
    return msgspec.json.decode(data, type=Approval)
