"""Pushes to origin that wait for a person, or waited: one file each in their session's directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from coding_agents.errors import StoreError
from coding_agents.model.approval import Approval, decode_approval, encode_approval, is_approval_id
from coding_agents.store.files import private_dir, read_record, remove_durably, write_atomic

_DIRECTORY = "approvals"
_KEPT = 50  # of those that nobody waits for any more


class ApprovalStore:
    """Those of the session with this directory. Verbs read them; only the session's supervisor writes."""

    def __init__(self, session_directory: Path) -> None:
        self._directory = session_directory / _DIRECTORY

    def list(self) -> list[Approval]:
        """All that can be read, the oldest first."""
        return sorted(self._read(), key=lambda one: (one.created_ms, one.id))

    def find(self, text: str) -> Approval | None:
        """The one with this id, or None."""
        if not is_approval_id(text):
            return None
        with suppress(FileNotFoundError, ValueError, StoreError):
            found = decode_approval(read_record(self._path(text)))
            return found if found.id == text else None
        return None

    def save(self, approval: Approval) -> None:
        """Keep it, durably; the oldest that are decided go beyond fifty. Raises StoreError."""
        private_dir(self._directory)
        write_atomic(self._path(approval.id), encode_approval(approval))
        decided = [one for one in self.list() if one.state not in ("pending", "approved")]
        for old in decided[: max(0, len(decided) - _KEPT)]:
            remove_durably(self._path(old.id))

    def _read(self) -> Iterator[Approval]:
        for path in self._directory.glob("*.json"):
            if (found := self.find(path.stem)) is not None:
                yield found

    def _path(self, approval_id: str) -> Path:
        if not is_approval_id(approval_id):
            raise StoreError(
                f"{approval_id[:40]!r} is no approval's id", hint="See `coding-agents approvals`."
            )
        return self._directory / f"{approval_id}.json"
