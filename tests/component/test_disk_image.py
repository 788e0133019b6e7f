"""A session's own file system on this machine's kernel: its bounds, when it is mounted, and what is left.

Mounting takes root; what is decided without it is tested for everybody.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coding_agents.errors import DiskImageError
from coding_agents.model.limits import GIB, MAX_DISK, MIB, MIN_DISK
from coding_agents.proc.runner import Outcome
from coding_agents.quota import window
from coding_agents.quota.image import Image, make_image, run, usable_bytes, usable_inodes
from coding_agents.quota.probe import why_unmountable
from coding_agents.quota.window import loops_of, opened, release
from support.disks import await_let_go

SIZE = MIN_DISK


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    if problem := why_unmountable(tmp_path / "state"):
        pytest.skip(problem)
    made = Image(tmp_path)
    make_image(made, SIZE)
    yield made
    release(made)


@contextmanager
def taken(image: Image, part: str = "workspace") -> Iterator[Path]:
    """What an engine does with one directory of the image: a bind mount that outlives the moment."""
    place = image.directory / f"taken-{part}"
    place.mkdir()
    with opened(image):
        subprocess.run(("mount", "--bind", image.place(part), str(place)), check=True)
    try:
        yield place
    finally:
        subprocess.run(("umount", str(place)), check=True)


def _fill(directory: Path) -> int:
    """Write until the kernel refuses; how many bytes it took."""
    written = 0
    with (directory / "hog").open("wb", buffering=0) as file:
        while written < 2 * SIZE:
            try:
                written += file.write(os.urandom(MIB))
            except OSError as error:
                return written if error.errno == errno.ENOSPC else -1
    return written


def test_both_volumes_together_take_no_more_than_the_size(image: Image) -> None:
    with taken(image) as workspace, taken(image, "home") as home:
        half = usable_bytes(SIZE) // 2
        (workspace / "first").write_bytes(os.urandom(half))
        written = _fill(home)
        assert half * 0.9 < written < SIZE - half
        assert usable_bytes(SIZE) <= half + written + MIB
        with pytest.raises(OSError, match="No space left"):
            (workspace / "more").write_bytes(os.urandom(MIB))
        assert image.path.stat().st_blocks * 512 <= SIZE
        (home / "hog").unlink()
        (workspace / "more").write_bytes(os.urandom(MIB))


def test_inodes_are_bounded_and_the_figures_are_no_promises_too_high(image: Image) -> None:
    with taken(image) as workspace:
        found = os.statvfs(workspace)
        assert usable_bytes(SIZE) <= found.f_bavail * found.f_frsize <= SIZE
        assert usable_inodes(SIZE) - 10 <= found.f_favail <= usable_inodes(SIZE)
    for size in (MIN_DISK, GIB, 20 * GIB, MAX_DISK):
        assert size * 0.9 < usable_bytes(size) + 6 * MIB < size + 6 * MIB


def test_the_agent_owns_its_directories_and_nothing_beside_them(image: Image) -> None:
    with opened(image):
        owners = {path.name: path.stat().st_uid for path in image.mount_point.iterdir()}
        assert owners == {"workspace": 1000, "home": 1000, "lost+found": 0}
        assert image.mount_point.stat().st_uid == 0
    assert list(image.mount_point.iterdir()) == []  # so nobody takes a directory of the host's for it


def test_there_is_one_loop_device_however_often_it_is_mounted_and_none_at_the_end(image: Image) -> None:
    with taken(image) as workspace:
        (first,) = loops_of(image)
        with opened(image):
            assert loops_of(image) == (first,)
            (Path(image.place("workspace")) / "seen").touch()
        assert (workspace / "seen").exists()
        device = workspace.stat().st_dev
        assert first == f"{os.major(device)}:{os.minor(device)}"
        assert not os.path.ismount(image.mount_point)
    await_let_go(image)


def test_a_mount_that_is_being_let_go_is_no_reason_to_fail(image: Image) -> None:
    for turn in range(5):
        place = image.directory / f"place-{turn}"
        place.mkdir()
        with opened(image):
            subprocess.run(("mount", "--bind", image.place("home"), str(place)), check=True)
        (place / str(turn)).touch()
        with subprocess.Popen(("umount", str(place))), opened(image):
            assert {one.name for one in Path(image.place("home")).iterdir()} == set(map(str, range(turn + 1)))


@contextmanager
def attached(image: Image, *options: str) -> Iterator[None]:
    words = ("losetup", "--find", "--show", *options, str(image.path))
    device = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield
    finally:
        subprocess.run(("losetup", "--detach", device), check=True)


def test_two_devices_over_one_image_are_refused(image: Image) -> None:
    with (
        attached(image),
        attached(image),
        pytest.raises(DiskImageError, match="not mounted as it must be"),
        opened(image),
    ):
        raise AssertionError("it was opened")
    assert not os.path.ismount(image.mount_point)
    await_let_go(image)


def test_an_image_that_somebody_looks_into_is_not_given_to_a_session_read_only(image: Image) -> None:
    with (
        attached(image, "--read-only"),
        pytest.raises(DiskImageError, match="can only be read") as failed,
        opened(image),
    ):
        raise AssertionError("it was opened")
    assert "losetup" in failed.value.hint
    assert not os.path.ismount(image.mount_point)


_KILLED = """
import sys, time
from pathlib import Path
from coding_agents.quota.image import Image
from coding_agents.quota.window import opened
with opened(Image(Path(sys.argv[1]))):
    print("mounted", flush=True)
    time.sleep(600)
"""


def test_who_is_killed_while_it_is_mounted_leaves_nothing_that_the_next_does_not_take_away(
    image: Image,
) -> None:
    def killed() -> None:
        process = subprocess.Popen(
            (sys.executable, "-c", _KILLED, str(image.directory)), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"mounted\n"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert os.path.ismount(image.mount_point)

    killed()
    with opened(image):
        assert len(loops_of(image)) == 1
    assert not os.path.ismount(image.mount_point)
    killed()
    release(image)
    assert not os.path.ismount(image.mount_point)
    await_let_go(image)


def test_what_cannot_be_mounted_says_what_to_do(image: Image) -> None:
    with image.path.open("r+b") as file:
        file.write(bytes(MIB))
    with pytest.raises(DiskImageError, match="cannot mount") as failed, opened(image):
        raise AssertionError("it was opened")
    assert f"e2fsck -f {image.path}" in failed.value.hint
    image.path.unlink()
    with pytest.raises(DiskImageError, match="is gone"), opened(image):
        raise AssertionError("it was opened")


def test_the_trial_leaves_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        assert why_unmountable(tmp_path) == "mounting a file system takes root"
        return
    assert why_unmountable(tmp_path) == ""
    assert {path.name for path in tmp_path.iterdir()} == {"disk-probe.lock"}


def test_the_trial_tells_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("others are told that it takes root")
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    told = why_unmountable(tmp_path)
    assert told == "mkfs.ext4 is not installed"


def test_who_was_killed_may_still_unmount_it_before_we_do(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The umount(8) of a process that was killed goes on without it."""

    def outrun(program: str, *words: str) -> Outcome:
        if program == "umount":
            assert run(program, *words).ok
        return run(program, *words)

    monkeypatch.setattr(window, "run", outrun)
    with opened(image):
        assert os.path.ismount(image.mount_point)
    assert not os.path.ismount(image.mount_point)


def test_what_stays_mounted_is_told(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "run", lambda program, *words: run("umount", "/nonexistent"))
    with opened_by_hand(image), pytest.raises(DiskImageError, match="cannot unmount"):
        release(image)


@contextmanager
def opened_by_hand(image: Image) -> Iterator[None]:
    assert run("mount", "-o", "loop", str(image.path), str(image.mount_point)).ok
    try:
        yield
    finally:
        assert run("umount", "--lazy", str(image.mount_point)).ok
