"""The audit log of one session: append-only, one writer, each record durable when the call returns.

Two promises pull apart when the disk is full: nothing is released without a record, and saving work is
never refused for lack of one. So `record` raises, while `note` (launch, save, stop, recover) uses up a
reserve that was allocated for it, and when even that is gone counts what is lost and writes one `gap`
record at the next chance. What the guest reports, and what it is refused or fails at, has budgets of its own and can
exhaust nothing else; beyond them it is counted, and the counts are told in `gap` records, too.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from coding_agents.audit.budget import (
    REFUSALS_AT_ONCE,
    REFUSALS_PER_S,
    TOOL_CALLS_AT_ONCE,
    TOOL_CALLS_PER_S,
    GuestBudget,
)
from coding_agents.audit.tail import Tail, find_tail
from coding_agents.errors import AuditError, StoreError
from coding_agents.model.audit import AuditEvent, AuditRecord, RecordType, encode_record, make_record
from coding_agents.proc.sync import sync_dir
from coding_agents.store.files import append_fd, locked

RESERVE_BYTES = 4 << 20
_GAP_EVERY_MS = 10_000  # so that even a flood that never ends adds 3 MB a day


@contextmanager
def open_log(path: Path, *, session: str, time_ms: int, timeout_s: float = 10.0) -> Iterator[AuditLog]:
    """The log of `session` at `path`, made or continued, for the block; nobody else writes meanwhile.

    A last line torn by a crash is taken out and its content kept in a `gap` record. Raises AuditError.
    """
    with _writing_alone(path, timeout_s=timeout_s) as fd:
        with path.open("rb") as file:
            tail = find_tail(file)
        if tail.session not in ("", session):
            raise AuditError(f"{path} is the log of session {tail.session}, not of {session}")
        if tail.seq == 0:  # the first record must not be lost because the file has no durable name
            _sync_name(path)
        log = AuditLog(path, fd, session=session, tail=tail)
        if tail.torn:
            log.seal_torn(tail.torn, good_bytes=tail.good_bytes, time_ms=time_ms)
        try:
            yield log
        finally:
            log.finish()


class AuditLog:
    """An open log; made by `open_log`. Safe to use from several threads. `time_ms`: ms since the epoch."""

    def __init__(self, path: Path, fd: int, *, session: str, tail: Tail) -> None:
        self._path = path
        self._fd = fd
        self._session = session
        self._seq = tail.seq
        self._head = tail.hash
        self._budget = GuestBudget(tail.guest_bytes)
        self._tool_calls = GuestBudget(
            tail.tool_bytes, per_second=TOOL_CALLS_PER_S, at_once=TOOL_CALLS_AT_ONCE
        )
        self._refusals = GuestBudget(per_second=REFUSALS_PER_S, at_once=REFUSALS_AT_ONCE)
        self._lost = 0
        self._dropped = {"guest": 0, "refused": 0, "tool_calls": 0}
        self._last_ms = 0
        self._last_gap_ms = 0
        self._mutex = threading.Lock()
        self._reserve = path.with_suffix(".reserve")
        self._has_reserve = self._take_reserve()

    @property
    def head(self) -> str:
        """The hash of the last record: whoever keeps a copy elsewhere can prove that nothing was cut off."""
        return self._head

    def record(self, event: AuditEvent, *, time_ms: int) -> AuditRecord:
        """Write the record that a release depends on. Raises AuditError: then nothing may be released."""
        with self._mutex:
            self._tell_gap(time_ms)
            try:
                self._require_reserve()
                return self._append(event, time_ms)
            except OSError as error:
                raise AuditError(
                    f"cannot record {event.type.value} in {self._path}: {_reason(error)}",
                    hint="Free some space on that disk: nothing is released without a record.",
                ) from error

    def note(self, event: AuditEvent, *, time_ms: int) -> AuditRecord | None:
        """Write a record of what happens in any case. None when it could only be counted; never raises."""
        with self._mutex:
            self._tell_gap(time_ms)
            while True:
                try:
                    return self._append(event, time_ms)
                except OSError:
                    if not self._free_reserve():
                        self._lost += 1
                        return None

    def guest(self, event: AuditEvent, *, time_ms: int) -> AuditRecord | None:
        """Write what the guest reports, if its budget allows; else count it. Never raises."""
        if event.source != "guest":
            raise ValueError("only records of the guest are charged to its budget")
        return self._within("guest", self._budget, event, time_ms)

    def tool_call(self, event: AuditEvent, *, time_ms: int) -> AuditRecord | None:
        """Write what the guest says of a tool that it calls: as `guest`, with a budget of its own."""
        if event.source != "guest":
            raise ValueError("only the guest tells of tool calls")
        return self._within("tool_calls", self._tool_calls, event, time_ms)

    def refusal(self, event: AuditEvent, *, time_ms: int) -> AuditRecord | None:
        """Write that the guest was refused something or failed at it, which it can cause at will: as `guest`,
        with a budget of its own, so that neither kind can hide the other."""
        return self._within("refused", self._refusals, event, time_ms)

    def _within(self, kind: str, budget: GuestBudget, event: AuditEvent, time_ms: int) -> AuditRecord | None:
        with self._mutex:
            size = len(encode_record(self._next(event, time_ms)))
            admitted = budget.admits(size, now_ms=time_ms)
            self._dropped[kind] += not admitted
            self._tell_gap(time_ms)
            if not admitted:
                return None
            try:
                self._require_reserve()
                return self._append(event, time_ms)
            except OSError:
                self._dropped[kind] += 1
                return None

    def seal_torn(self, torn: bytes, *, good_bytes: int, time_ms: int) -> None:
        """Take a torn last line out of the file and keep its content in a `gap` record. Raises AuditError."""
        try:
            os.ftruncate(self._fd, good_bytes)
        except OSError as error:
            raise AuditError(f"cannot repair {self._path}: {_reason(error)}") from error
        text = torn[:512].decode("utf-8", "backslashreplace")
        detail: dict[str, str | int] = {"reason": "torn line", "bytes": len(torn), "text": text}
        self.note(AuditEvent(RecordType.GAP, outcome="failed", detail=detail), time_ms=time_ms)

    def finish(self) -> None:
        """Write what is still to be told of gaps, and give the reserve back."""
        with self._mutex:
            self._free_reserve()
            self._tell_gap(self._last_ms, at_once=True)

    def _append(self, event: AuditEvent, time_ms: int) -> AuditRecord:
        record = self._next(event, time_ms)
        append_fd(self._fd, encode_record(record))
        self._seq, self._head, self._last_ms = record.seq, record.hash, time_ms
        return record

    def _next(self, event: AuditEvent, time_ms: int) -> AuditRecord:
        return make_record(event, seq=self._seq + 1, prev=self._head, time_ms=time_ms, session=self._session)

    def _tell_gap(self, time_ms: int, *, at_once: bool = False) -> None:
        """One record for all that was lost or dropped so far, of what was dropped at most one in ten seconds."""
        due = at_once or self._lost or time_ms - self._last_gap_ms >= _GAP_EVERY_MS
        if not due or not (self._lost or any(self._dropped.values())):
            return
        dropped = {f"{kind}_dropped": count for kind, count in self._dropped.items()}
        detail: dict[str, str | int] = {"lost": self._lost, **dropped}
        with suppress(OSError):
            self._append(AuditEvent(RecordType.GAP, outcome="failed", detail=detail), time_ms)
            self._lost, self._dropped = 0, dict.fromkeys(self._dropped, 0)
            self._last_gap_ms = time_ms

    def _require_reserve(self) -> None:
        """Without its reserve the log is kept for saving work: what can be refused is refused."""
        self._has_reserve = self._has_reserve or self._take_reserve()
        if not self._has_reserve:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _take_reserve(self) -> bool:
        try:
            fd = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            _allocate(fd, RESERVE_BYTES)
        except OSError:
            with suppress(OSError):
                self._reserve.unlink()
            return False
        finally:
            os.close(fd)
        return True

    def _free_reserve(self) -> bool:
        """Give the reserve back to the disk; whether there was one."""
        had, self._has_reserve = self._has_reserve, False
        with suppress(OSError):
            self._reserve.unlink()
        return had


@contextmanager
def _writing_alone(path: Path, *, timeout_s: float) -> Iterator[int]:
    with ExitStack() as stack:
        try:
            fd = stack.enter_context(locked(path, timeout_s=timeout_s))
        except StoreError as error:
            raise AuditError(error.message, hint=error.hint) from error
        yield fd


def _sync_name(path: Path) -> None:
    try:
        sync_dir(path.parent)
    except OSError as error:
        raise AuditError(f"cannot sync {path.parent}: {_reason(error)}") from error


def _allocate(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:  # macOS
        for _ in range(size >> 16):
            os.write(fd, b"\0" * (1 << 16))


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
