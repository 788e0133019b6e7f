"""Files of record on a real file system: atomic, private, locked, and honest when the disk is full."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_agents.errors import StoreError
from coding_agents.store.files import append_fd, is_locked, locked, private_dir, read_record, write_atomic

_ROOT = os.geteuid() == 0
_SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB of its own, so that full is really full."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def test_write_atomic_replaces_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "record"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    write_atomic(path, b"three", mode=0o644)
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["record"]


def test_write_atomic_replaces_a_symlink_and_not_its_target(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    path = tmp_path / "record"
    path.symlink_to(target)
    write_atomic(path, b"ours")
    assert target.read_bytes() == b"precious"
    assert not path.is_symlink()


def test_a_reader_never_sees_half_a_record(tmp_path: Path) -> None:
    path = tmp_path / "record"
    versions = [bytes([48 + n]) * 50_000 for n in range(10)]
    write_atomic(path, versions[0])
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for version in versions * 3:
        write_atomic(path, version)
    done.set()
    reader.join()
    assert seen <= set(versions)
    assert seen


def test_write_atomic_names_what_failed(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot write .*missing/record: no such file"):
        write_atomic(tmp_path / "missing" / "record", b"")


@pytest.mark.skipif(not _ROOT, reason="mounting a small file system needs root")
def test_a_full_disk_keeps_the_old_record(small_disk: Path) -> None:
    path = small_disk / "record"
    write_atomic(path, b"old")
    with pytest.raises(StoreError, match="the disk is full") as caught:
        write_atomic(path, b"x" * (1 << 20))
    assert "Free some space" in caught.value.hint
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in small_disk.iterdir()] == ["record"]


@pytest.mark.skipif(not _ROOT, reason="mounting a small file system needs root")
def test_an_append_to_a_full_disk_leaves_no_half_line(small_disk: Path) -> None:
    path = small_disk / "log"
    with path.open("ab", buffering=0) as file:
        append_fd(file.fileno(), b"line\n")
        with pytest.raises(OSError, match="No space left"):
            append_fd(file.fileno(), b"x" * (1 << 20))
    assert path.read_bytes() == b"line\n"


def test_read_record_refuses_what_is_not_a_plain_bounded_file(tmp_path: Path) -> None:
    fifo, link, big, small = (tmp_path / name for name in ("fifo", "link", "big", "small"))
    os.mkfifo(fifo)
    big.write_bytes(b"x" * 101)
    small.write_bytes(b"x")
    link.symlink_to(small)
    for path in (fifo, link, big, tmp_path):
        with pytest.raises(StoreError):
            read_record(path, limit=100)
    assert read_record(big, limit=101) == b"x" * 101
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "none")


def test_private_dir_makes_and_tightens(tmp_path: Path) -> None:
    path = private_dir(tmp_path / "a" / "b")
    assert path.stat().st_mode & 0o777 == 0o700
    path.chmod(0o777)
    assert private_dir(path).stat().st_mode & 0o777 == 0o700


def test_private_dir_refuses_links_and_files(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(StoreError):
            private_dir(tmp_path / name)


@pytest.mark.skipif(not _ROOT, reason="giving a directory away needs root")
def test_private_dir_refuses_a_squatters_directory(tmp_path: Path) -> None:
    path = tmp_path / "squat"
    path.mkdir(0o700)
    os.chown(path, 65534, 65534)
    with pytest.raises(StoreError, match="belongs to uid 65534"):
        private_dir(path)


def test_a_lock_excludes_another_process_and_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    script = (
        "import sys; from pathlib import Path; from coding_agents.store.files import locked\n"
        "with locked(Path(sys.argv[1])):\n print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, path], env={"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_locked(path)
        began = time.monotonic()
        with pytest.raises(StoreError, match="locked by another"), locked(path, timeout_s=0.1):
            pytest.fail("two processes hold one lock")
        assert 0.1 <= time.monotonic() - began < 5
        holder.kill()
        with locked(path, timeout_s=5):
            assert is_locked(path)
    assert not is_locked(path)


def test_a_lock_on_a_file_that_was_removed_is_not_taken_for_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path):
        path.unlink()
        # The holder's inode is gone, so a second holder of the *name* must get a file of its own.
        with locked(path, timeout_s=0):
            assert is_locked(path)


def test_shared_locks_agree_with_each_other_only(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    exclusive = locked(path, timeout_s=0)
    with locked(path, shared=True), locked(path, shared=True, timeout_s=0), pytest.raises(StoreError):
        exclusive.__enter__()


def _count(path: Path, times: int) -> None:
    for _ in range(times):
        with locked(path.with_suffix(".lock")):
            number = int(path.read_bytes())
            write_atomic(path, str(number + 1).encode())


def test_locked_counting_loses_no_step(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_bytes(b"0")
    workers = [_SPAWN.Process(target=_count, args=(path, 20)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert path.read_bytes() == b"60"
