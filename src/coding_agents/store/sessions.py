"""The sessions of this user: one private directory each under the state directory."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from coding_agents.errors import SessionNotFoundError, StoreError
from coding_agents.model.session import SessionRecord, decode_session, encode_session, is_session_id
from coding_agents.model.suggest import close_to
from coding_agents.proc.tree import remove_tree
from coding_agents.store.files import (
    MAX_RECORD,
    is_locked,
    locked,
    private_dir,
    read_record,
    rename_durably,
    write_atomic,
)

RECORD = "session.json"
_AUDIT = "audit.jsonl"
_SOCKET = "control.sock"
DOOMED = ".removed-"
"""How the name of a session's directory begins while it is removed; then come its id and our process id."""
_NAME = re.compile(rb'"name"\s*:\s*"([a-z0-9][a-z0-9.-]{0,127})"')  # the session's comes first in a record
# sun_path has 104 bytes on macOS and 108 on Linux, with a NUL; some of it is left for suffixes.
_SOCKET_BYTES = 100


class BrokenSession(msgspec.Struct, frozen=True):
    """A session directory whose record cannot be read: shown as failed, never skipped in silence.

    `name` is what the record's bytes still tell of it, "" if nothing.
    """

    id: str
    directory: Path
    reason: str
    name: str = ""

    def to_public(self) -> dict[str, object]:
        """The session object with what is known: its id and that it failed."""
        unknown = ("container", "engine", "runtime", "agent", "repo", "branch", "network", "image")
        known = {"session": self.id, "name": self.id, "state": "failed", "enforced": {}}
        return {**dict.fromkeys(unknown, ""), **known}


class SessionStore(msgspec.Struct, frozen=True):
    """Session records under `state_dir` ($XDG_STATE_HOME/coding-agents)."""

    state_dir: Path

    @property
    def root(self) -> Path:
        return self.state_dir / "sessions"

    def directory(self, session_id: str) -> Path:
        """The directory of a session, existing or not. Raises StoreError for what is not an id."""
        if not is_session_id(session_id):
            raise StoreError(f"session id {session_id!r} is not 12 hex digits")
        return self.root / session_id

    def create(self, session_id: str) -> Path:
        """Make the private directory of a new session. Raises StoreError when it is already there."""
        directory = self.directory(session_id)
        private_dir(self.state_dir)
        private_dir(self.root)
        if directory.exists():
            raise StoreError(f"session {session_id} already exists in {directory}")
        return private_dir(directory)

    def register(self, record: SessionRecord) -> bool:
        """Save the first record of a session, unless another one has its name or works on its branch.

        Tells whether it did. Of launches that run at once, one gets the name. Raises StoreError.
        """
        with locked(self.state_dir / "sessions.lock"):
            others = [entry for entry in self.list() if isinstance(entry, SessionRecord)]
            if any(_collide(record, other) for other in others):
                return False
            self.save(record)
        return True

    def save(self, record: SessionRecord) -> None:
        """Write the record durably. Raises StoreError, also when its session was removed meanwhile.

        What could not be read back is not written: the record stays as it was.
        """
        path = self.directory(record.id) / RECORD
        try:
            data = encode_session(record)
        except UnicodeEncodeError as error:
            raise StoreError(f"cannot write {path}: it would hold what is no text: {error}") from error
        if len(data) > MAX_RECORD:
            raise StoreError(f"cannot write {path}: it would be larger than {MAX_RECORD} bytes")
        write_atomic(path, data)

    def update(self, session_id: str, **changes: Any) -> SessionRecord:
        """Change fields of a record on disk, whatever other processes change in it meanwhile.

        Raises SessionNotFoundError when the session was removed, StoreError.
        """
        with locked(self.directory(session_id) / "record.lock"):
            record = self.load(session_id).evolve(**changes)
            self.save(record)
        return record

    def load(self, session_id: str) -> SessionRecord:
        """The record of a session. Raises SessionNotFoundError, or StoreError when it is corrupt."""
        path = self.directory(session_id) / RECORD
        try:
            data = read_record(path)
        except FileNotFoundError:
            hint = _corrupt_hint(session_id) if path.parent.exists() else _SEE_LIST
            raise SessionNotFoundError(f"no session {session_id}", hint=hint) from None
        try:
            record = decode_session(data)
        except ValueError as error:
            raise StoreError(f"{path} is corrupt: {error}", hint=_corrupt_hint(session_id)) from error
        if record.id != session_id:
            raise StoreError(f"{path} is the record of session {record.id}", hint=_corrupt_hint(session_id))
        return record

    def list(self) -> tuple[SessionRecord | BrokenSession, ...]:
        """All sessions, oldest first, unreadable ones last."""
        good: list[SessionRecord] = []
        broken: list[BrokenSession] = []
        for session_id in self._ids():
            try:
                good.append(self.load(session_id))
            except SessionNotFoundError:
                # A launch that was killed between `create` and its first `save`, or is right there.
                broken.append(BrokenSession(session_id, self.directory(session_id), "it has no record"))
            except StoreError as error:
                directory = self.directory(session_id)
                broken.append(
                    BrokenSession(session_id, directory, error.message, _guess_name(directory / RECORD))
                )
        good.sort(key=lambda record: (record.created_ms, record.id))
        return (*good, *broken)

    def find(self, text: str) -> SessionRecord:
        """The session of this exact name (which is its container's), or of this unambiguous id prefix.

        Raises SessionNotFoundError naming candidates, StoreError when what was meant is corrupt.
        """
        return self.load(self.find_id(text))

    def find_id(self, text: str) -> str:
        """The id that `text` means, even if its record is corrupt. Raises SessionNotFoundError."""
        entries = self.list()
        matches = [entry for entry in entries if text in _names(entry)]
        if not matches and text:
            matches = [entry for entry in entries if entry.id.startswith(text) or text == _guessed(entry)]
        if len(matches) == 1:
            return matches[0].id
        if matches:
            raise SessionNotFoundError(
                f"several sessions match {text!r}",
                details="\n".join(f"{entry.id}  {_label(entry)}" for entry in matches),
                hint="Give more digits of the id.",
            )
        raise SessionNotFoundError(f"no session {text!r}", hint=_suggest(text, entries))

    def find_broken(self, text: str) -> BrokenSession | None:
        """The session that `text` means if its record cannot be read. Raises SessionNotFoundError."""
        session_id = self.find_id(text)
        broken = (entry for entry in self.list() if isinstance(entry, BrokenSession))
        return next((entry for entry in broken if entry.id == session_id), None)

    def set_aside(self, session_id: str) -> Path:
        """Move a session's directory, whole, to where no verb looks for it; returns that place. Raises StoreError."""
        place = private_dir(self.set_aside_root)
        taken = sum(path.name.startswith(session_id) for path in place.iterdir())
        target = place / (f"{session_id}-{taken + 1}" if taken else session_id)
        directory = self.directory(session_id)
        try:
            rename_durably(directory, target)
        except OSError as error:
            raise StoreError(f"cannot move {directory} to {target}: {error.strerror}") from error
        return target

    def audit_log(self, session_id: str) -> Path:
        """The audit log of a session; that of a removed one is kept."""
        live = self.directory(session_id) / _AUDIT
        kept = self.kept_log(session_id)
        return kept if kept.exists() and not live.exists() else live

    def kept_log(self, session_id: str) -> Path:
        """Where the audit log of a session is once it is removed."""
        return self._kept_logs / f"{session_id}.jsonl"

    def find_log(self, text: str) -> Path:
        """The audit log of the session that `text` means; removed ones are known by their id alone."""
        try:
            return self.audit_log(self.find_id(text))
        except SessionNotFoundError:
            kept = sorted(self._kept_logs.glob("*.jsonl")) if text else []
            matches = [path for path in kept if path.stem.startswith(text)]
            # A removal that was killed before it had moved the log.
            matches += self.root.glob(f"{DOOMED}{text}*/{_AUDIT}") if text.isalnum() else []
            if len(matches) != 1:
                raise
            return matches[0]

    def remove(self, session_id: str, *, keep_log: bool = True) -> None:
        """Delete everything of a session on the host but, with `keep_log`, its audit log (`kept_log`).

        A missing session is fine. Raises StoreError.
        """
        directory = self.directory(session_id)
        try:
            # Renamed first: a removal that is cut short must not leave half a session with a valid name, nor a
            # session whose log is elsewhere, which would begin a second one. `finish_removals` does the rest.
            if not keep_log:
                (directory / _AUDIT).unlink(missing_ok=True)
            if directory.exists():
                rename_durably(directory, self.root / f"{DOOMED}{session_id}-{os.getpid()}")
            for leftover in self.root.glob(f"{DOOMED}{session_id}-*"):
                self._keep_log(leftover / _AUDIT, session_id)
                _clear(leftover)
            if (_short_root() / session_id).exists():
                _clear(private_dir(_short_root()) / session_id)
        except OSError as error:
            hint = "Check who owns the files in it."
            raise StoreError(f"cannot remove {directory}: {error}", hint=hint) from error

    def lock(self, session_id: str, *, timeout_s: float = 10.0) -> AbstractContextManager[int]:
        """Hold a session for one change at a time: start, stop, remove."""
        return locked(self.directory(session_id) / "lock", timeout_s=timeout_s)

    def is_busy(self, session_id: str) -> bool:
        """Whether a living process launches, starts or removes the session right now."""
        return is_locked(self.directory(session_id) / "lock")

    def control_socket(self, session_id: str) -> Path:
        """Where the supervisor of a session listens; its directory exists, is private and short enough."""
        directory = self.directory(session_id)
        path = directory / _SOCKET
        if len(os.fsencode(path)) <= _SOCKET_BYTES:
            return path
        return private_dir(private_dir(_short_root()) / session_id) / _SOCKET

    @property
    def set_aside_root(self) -> Path:
        """Where the directories of sessions are whose record could not be read."""
        return self.state_dir / "set-aside"

    @property
    def _kept_logs(self) -> Path:
        return self.state_dir / "audit"

    def _keep_log(self, log: Path, session_id: str) -> None:
        if not log.exists():
            return
        try:
            private_dir(self._kept_logs)
            rename_durably(log, self.kept_log(session_id))
        except FileNotFoundError:
            return  # another process finishes the same removal
        except OSError as error:
            raise StoreError(f"cannot keep {log}: {error}", hint="Free some space and try again.") from error

    def _ids(self) -> Iterator[str]:
        try:
            names = sorted(path.name for path in self.root.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(
                f"cannot read {self.root}: {(error.strerror or str(error)).lower()}",
                hint="Check the owner and the mode of that directory, or where XDG_STATE_HOME points.",
            ) from error
        yield from (name for name in names if is_session_id(name))


def _clear(directory: Path) -> None:
    """Remove a tree that another process may be removing, too. Raises OSError."""
    while directory.exists():
        try:
            remove_tree(directory)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise


def _short_root() -> Path:
    return Path(f"/tmp/coding-agents-{os.geteuid()}")  # noqa: S108 - private_dir checks owner, mode and kind


_SEE_LIST = "See `coding-agents list -a`."


def _collide(one: SessionRecord, other: SessionRecord) -> bool:
    return one.name == other.name or (one.repo.repo_id, one.branch) == (other.repo.repo_id, other.branch)


def _names(entry: SessionRecord | BrokenSession) -> tuple[str, ...]:
    return (entry.name, entry.container) if isinstance(entry, SessionRecord) else ()


def _guessed(entry: SessionRecord | BrokenSession) -> str:
    return entry.name if isinstance(entry, BrokenSession) else ""


def _guess_name(path: Path) -> str:
    """The session's name in the bytes of a record that is cut off or of another version; only to find it by."""
    try:
        found = _NAME.search(read_record(path))
    except (OSError, StoreError):
        return ""
    return found[1].decode("ascii") if found else ""


def _label(entry: SessionRecord | BrokenSession) -> str:
    return entry.name if isinstance(entry, SessionRecord) else f"unreadable, in {entry.directory}"


def _suggest(text: str, entries: tuple[SessionRecord | BrokenSession, ...]) -> str:
    names = [entry.name for entry in entries if isinstance(entry, SessionRecord)]

    close = close_to(text, names, limit=3)
    return f"Did you mean {' or '.join(close)}?" if close else _SEE_LIST


def _corrupt_hint(session_id: str) -> str:
    return f"`coding-agents remove --force {session_id}` moves it aside and says where its work is."
