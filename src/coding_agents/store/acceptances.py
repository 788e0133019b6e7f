"""What a person has accepted of the findings about a repository: one file of record for each repository.

It is written by verbs of the user's alone. An entry holds for what the finding spoke of, to the byte: its id changes
with that (`gitsync.findings.model`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from coding_agents.errors import StoreError
from coding_agents.store.files import MAX_RECORD, locked, private_dir, read_record, write_atomic

MAX_ENTRIES = 2000
_VERSION = 1
_REPO_ID = re.compile(r"[0-9a-f]{12}")


class Acceptance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One word of a person's: about the finding `id`, given in `session` at `time_ms` (epoch) by the user `uid`.

    `rule` and `path` (both fit to be shown) are for readers.
    """

    id: str
    rule: str
    path: str
    reason: str
    session: str
    time_ms: int
    uid: int


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int = _VERSION
    accepted: tuple[Acceptance, ...] = ()


class AcceptanceStore(msgspec.Struct, frozen=True):
    """The acceptances under `state_dir` ($XDG_STATE_HOME/coding-agents) for the repository `repo_id`."""

    state_dir: Path
    repo_id: str

    @property
    def path(self) -> Path:
        """The file. Raises StoreError for what is no id of a repository."""
        if _REPO_ID.fullmatch(self.repo_id) is None:
            raise StoreError(f"repository id {self.repo_id!r} is not 12 hex digits")
        return self.state_dir / "accepted" / f"{self.repo_id}.json"

    def load(self) -> dict[str, Acceptance]:
        """All that was accepted, by id. Raises StoreError: a file that cannot be read accepts nothing."""
        try:
            data = read_record(self.path)
        except FileNotFoundError:
            return {}
        try:
            file = msgspec.json.decode(data, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreError(
                f"{self.path} is corrupt: {error}",
                hint="Remove it; what was accepted is to be accepted again.",
            ) from error
        if file.v != _VERSION:
            raise StoreError(
                f"{self.path} has format {file.v}, not {_VERSION}",
                hint="Use the coding-agents that wrote it.",
            )
        return {one.id: one for one in file.accepted}

    def add(self, new: Iterable[Acceptance]) -> None:
        """Accept `new`; the oldest are forgotten beyond MAX_ENTRIES. Raises StoreError."""
        self._change({one.id: one for one in new}, ())

    def withdraw(self, ids: Iterable[str]) -> None:
        """Accept these no longer. Raises StoreError."""
        self._change({}, ids)

    def _change(self, new: dict[str, Acceptance], gone: Iterable[str]) -> None:
        private_dir(self.state_dir)
        private_dir(self.path.parent)
        with locked(self.path.with_suffix(".lock")):
            entries = {**self.load(), **new}
            for one in gone:
                entries.pop(one, None)
            kept = sorted(entries.values(), key=lambda one: one.time_ms)[-MAX_ENTRIES:]
            write_atomic(self.path, _encoded(kept))


def _encoded(entries: list[Acceptance]) -> bytes:
    """The file, readable by people; of what would not fit a record the oldest are left out."""
    while True:
        data = msgspec.json.format(msgspec.json.encode(_File(accepted=tuple(entries))), indent=1) + b"\n"
        if len(data) <= MAX_RECORD:
            return data
        entries = entries[len(entries) // 10 + 1 :]
