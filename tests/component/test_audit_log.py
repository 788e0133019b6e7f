"""The audit log on real files: continued after crashes, alone, and honest when it cannot be written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from coding_agents.audit import log as log_module
from coding_agents.audit.budget import GuestBudget
from coding_agents.audit.log import open_log
from coding_agents.audit.verify import Verdict, verify
from coding_agents.errors import AuditError
from coding_agents.model.audit import AuditEvent, AuditRecord, RecordType, decode_record
from coding_agents.store.files import append_fd

_SESSION = "0123456789ab"
_PUSH = AuditEvent(RecordType.PUSH, tier=1, subject="refs/heads/demo/x")
_SAVED = AuditEvent(RecordType.SAVED)
_END = AuditEvent(RecordType.SESSION_ENDED)
_GUEST = AuditEvent(RecordType.GUEST_STEP, source="guest")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def _records(path: Path) -> list[AuditRecord]:
    return [decode_record(line) for line in path.read_bytes().splitlines(keepends=True)]


def _verdict(path: Path) -> Verdict:
    return verify(path.read_bytes().splitlines(keepends=True))


def _types(path: Path) -> list[str]:
    return [record.type.value for record in _records(path)]


class Disk:
    """A disk whose fullness the test decides; the reserve gives back `from_reserve` writes."""

    def __init__(self, *, from_reserve: int) -> None:
        self.full = False
        self.from_reserve = from_reserve

    def append(self, fd: int, data: bytes) -> None:
        if self.full:
            if self.reserve_exists(fd) or self.from_reserve == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.from_reserve -= 1
        append_fd(fd, data)

    def allocate(self, fd: int, size: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.posix_fallocate(fd, 0, size)

    @staticmethod
    def reserve_exists(fd: int) -> bool:
        return Path(f"/proc/self/fd/{fd}").readlink().with_suffix(".reserve").exists()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(from_reserve=2)
    monkeypatch.setattr(log_module, "append_fd", disk.append)
    monkeypatch.setattr(log_module, "_allocate", disk.allocate)
    return disk


def test_records_are_chained_and_sealed(path: Path) -> None:
    with open_log(path, session=_SESSION, time_ms=1) as log:
        first = log.record(_PUSH, time_ms=5)
        assert log.head == first.hash
        log.note(_END, time_ms=6)
    assert path.stat().st_mode & 0o777 == 0o600
    assert _verdict(path).state == "sealed"
    assert [(record.seq, record.time) for record in _records(path)] == [(1, 5), (2, 6)]


def test_a_log_is_continued(path: Path) -> None:
    for time_ms in (1, 2, 3):
        with open_log(path, session=_SESSION, time_ms=time_ms) as log:
            log.record(_PUSH, time_ms=time_ms)
    verdict = _verdict(path)
    assert (verdict.state, verdict.records) == ("open", 3)


def test_there_is_one_writer(path: Path) -> None:
    second = open_log(path, session=_SESSION, time_ms=1, timeout_s=0)
    with open_log(path, session=_SESSION, time_ms=1), pytest.raises(AuditError, match="locked by another"):
        second.__enter__()


def test_a_log_belongs_to_one_session(path: Path) -> None:
    with open_log(path, session=_SESSION, time_ms=1) as log:
        log.record(_PUSH, time_ms=1)
    with pytest.raises(AuditError, match=_SESSION), open_log(path, session="ffffffffffff", time_ms=1):
        pytest.fail("a foreign log was opened")


def test_a_torn_line_is_sealed_as_a_gap_and_its_content_kept(path: Path) -> None:
    with open_log(path, session=_SESSION, time_ms=1) as log:
        log.record(_PUSH, time_ms=1)
        log.record(_PUSH, time_ms=2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with open_log(path, session=_SESSION, time_ms=9) as log:
        log.record(_SAVED, time_ms=10)
    assert _types(path) == ["push", "gap", "saved"]
    gap = _records(path)[1]
    assert gap.detail["reason"] == "torn line"
    assert str(gap.detail["text"]).startswith('{"detail"')
    verdict = _verdict(path)
    assert (verdict.state, verdict.gaps) == ("open", 1)


def test_zeros_that_a_power_cut_left_are_a_gap(path: Path) -> None:
    with open_log(path, session=_SESSION, time_ms=1) as log:
        log.record(_PUSH, time_ms=1)
    with path.open("ab") as file:
        file.write(b"\0" * 4096)
    with open_log(path, session=_SESSION, time_ms=2):
        pass
    assert _records(path)[-1].detail["bytes"] == 4096
    assert _verdict(path).ok


def test_an_edited_log_is_continued_but_stays_broken(path: Path) -> None:
    with open_log(path, session=_SESSION, time_ms=1) as log:
        log.record(_PUSH, time_ms=1)
        log.record(_PUSH, time_ms=2)
    path.write_bytes(path.read_bytes().replace(b"demo/x", b"demo/y", 1))
    with open_log(path, session=_SESSION, time_ms=3) as log:
        assert log.note(_SAVED, time_ms=3) is not None
    verdict = _verdict(path)
    assert (verdict.state, verdict.seq) == ("broken", 1)


@pytest.mark.parametrize("run", range(3))
def test_a_writer_killed_at_any_moment_leaves_a_log_that_goes_on(path: Path, run: int) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from coding_agents.audit.log import open_log\n"
        "from coding_agents.model.audit import AuditEvent, RecordType\n"
        "with open_log(Path(sys.argv[1]), session=sys.argv[2], time_ms=1) as log:\n"
        "  while True:\n"
        "    print(log.record(AuditEvent(RecordType.PUSH, subject='x' * 900), time_ms=1).seq, flush=True)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", script, path, _SESSION], stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    with writer:
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline() for _ in range(5 + 7 * run)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.stdout.readlines()
    promised = max(int(line) for line in acknowledged if line.endswith(b"\n"))
    with open_log(path, session=_SESSION, time_ms=2) as log:
        log.note(_SAVED, time_ms=2)
    verdict = _verdict(path)
    assert verdict.ok
    assert verdict.records > promised, "a record was acknowledged and is not there"


def test_threads_do_not_break_the_chain(path: Path) -> None:
    with open_log(path, session=_SESSION, time_ms=1) as log:
        threads = [
            threading.Thread(target=lambda: [log.record(_PUSH, time_ms=1) for _ in range(20)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert _verdict(path).records == 80


def test_a_full_disk_refuses_releases_but_never_the_saving_of_work(path: Path, disk: Disk) -> None:
    with open_log(path, session=_SESSION, time_ms=1) as log:
        assert path.with_suffix(".reserve").stat().st_blocks * 512 >= 4 << 20
        disk.full = True
        with pytest.raises(AuditError, match="no space left") as caught:
            log.record(_PUSH, time_ms=2)
        assert caught.value.hint
        assert path.with_suffix(".reserve").exists(), "a refusal must not use up the reserve"
        assert log.note(_SAVED, time_ms=3) is not None
        with pytest.raises(AuditError):
            log.record(_PUSH, time_ms=4)
        assert log.guest(_GUEST, time_ms=4) is None
        assert log.note(_SAVED, time_ms=5) is not None
        assert log.note(_SAVED, time_ms=6) is None, "the reserve of this disk holds two records"
        assert log.note(_SAVED, time_ms=7) is None
        disk.full = False
        log.note(_END, time_ms=8)
    records = _records(path)
    assert [record.type.value for record in records] == ["saved", "saved", "gap", "session-ended"]
    assert records[2].detail == {"lost": 2, "guest_dropped": 1, "refused_dropped": 0, "tool_calls_dropped": 0}
    assert _verdict(path).state == "sealed"


def test_the_log_recovers_when_there_is_space_again(path: Path, disk: Disk) -> None:
    with open_log(path, session=_SESSION, time_ms=1) as log:
        disk.full = True
        log.note(_SAVED, time_ms=2)
        disk.full = False
        log.record(_PUSH, time_ms=3)
        assert path.with_suffix(".reserve").exists()
    assert not path.with_suffix(".reserve").exists()
    assert _types(path) == ["saved", "push"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_on_a_disk_that_is_really_full(small_disk: Path) -> None:
    path = small_disk / "audit.jsonl"
    filler = small_disk / "filler"
    with open_log(path, session=_SESSION, time_ms=1) as log:
        log.record(_PUSH, time_ms=1)
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        with suppress(AuditError):
            while True:  # the last page of the log may still have room
                log.record(AuditEvent(RecordType.PUSH, subject="x" * 1000), time_ms=2)
        refused = _records(path)[-1].seq
        for time_ms in range(3, 103):
            assert log.note(AuditEvent(RecordType.SAVED, subject="y" * 1000), time_ms=time_ms) is not None
    assert refused < 10
    assert _types(path).count("saved") == 100
    assert _verdict(path).ok


def test_a_flood_of_the_guest_is_counted_and_stops_nobody_else(path: Path) -> None:
    with open_log(path, session=_SESSION, time_ms=1) as log:
        written = [log.guest(_GUEST, time_ms=5000) for _ in range(1000)]
        assert sum(record is not None for record in written) == 100
        log.record(_PUSH, time_ms=5001)
    assert _types(path).count("guest-step") == 100
    gaps = [record.detail["guest_dropped"] for record in _records(path) if record.type is RecordType.GAP]
    assert sum(map(int, gaps)) == 900
    assert len(gaps) <= 2
    assert _types(path).count("push") == 1


def test_refusals_have_a_budget_of_their_own(path: Path) -> None:
    """The guest can cause them at will; neither can a flood of reports hide them, nor they the reports."""
    refused = AuditEvent(RecordType.PUSH_REFUSED, outcome="denied", tier=3, rule="git-push-other-ref")
    with open_log(path, session=_SESSION, time_ms=1) as log:
        for _ in range(200):
            log.guest(_GUEST, time_ms=5000)
        assert sum(log.refusal(refused, time_ms=5000) is not None for _ in range(300)) == 200
        assert sum(log.refusal(refused, time_ms=8000) is not None for _ in range(300)) == 3
        assert log.guest(_GUEST, time_ms=8000) is not None
    assert _types(path).count("push-refused") == 203
    assert _types(path).count("guest-step") == 101
    gaps = [record.detail for record in _records(path) if record.type is RecordType.GAP]
    assert sum(int(gap["refused_dropped"]) for gap in gaps) == 397
    assert sum(int(gap["guest_dropped"]) for gap in gaps) == 100


def test_a_flood_is_counted_in_the_log_while_it_lasts(path: Path) -> None:
    """Not only when somebody else has something to record: a killed supervisor loses ten seconds' count at most."""
    refused = AuditEvent(RecordType.PUSH, outcome="failed", rule="git")
    with open_log(path, session=_SESSION, time_ms=1) as log:
        for time_ms in range(100_000, 200_000, 5):
            log.refusal(refused, time_ms=time_ms)
        types = _types(path)
        gaps = [record.detail for record in _records(path) if record.type is RecordType.GAP]
        assert 8 <= len(gaps) <= 11
        assert types.count("push") + sum(int(gap["refused_dropped"]) for gap in gaps) >= 20_000 - 2_000
        assert types.count("push") <= 301


def test_the_guests_total_holds_over_restarts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "GuestBudget", partial(GuestBudget, total_bytes=900))
    written = 0
    for time_ms in (1000, 2000, 3000, 4000):
        with open_log(path, session=_SESSION, time_ms=time_ms) as log:
            written += log.guest(_GUEST, time_ms=time_ms) is not None
    guest_bytes = sum(len(line) for line in path.read_bytes().splitlines() if b'"source":"guest"' in line)
    assert written == 2
    assert guest_bytes <= 900 < guest_bytes * 2
    assert _types(path).count("gap") == 2, "each session of the log tells what it dropped"


def test_only_the_guests_records_are_charged_to_it(path: Path) -> None:
    with open_log(path, session=_SESSION, time_ms=1) as log, pytest.raises(ValueError, match="guest"):
        log.guest(_PUSH, time_ms=1)
