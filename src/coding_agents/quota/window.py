"""The moments in which a session's image is mounted on the host: while an engine takes it for a container.

An engine's volume is a bind mount of one of them. Once the container runs, the engine's mounts hold the file system and
ours is gone; when the container ends, the engine unmounts it and the kernel lets the loop device go. So nothing of ours
is mounted while an agent works. Who is killed in such a moment leaves one mount, which the next one takes away.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coding_agents.errors import DiskImageError
from coding_agents.quota.image import PARTS, Image, require_done, run
from coding_agents.store.files import locked

MOUNT_OPTIONS = "loop,rw,nosuid,nodev,noatime,discard,noinit_itable"
"""Blocks that the session frees are given back to the host; tables that read as zeros are not written."""

_BLOCK = Path("/sys/block")
_SET_DIRECT_IO = 0x4C08  # LOOP_SET_DIRECT_IO, linux/loop.h
_LOCK_S = 60.0  # a window lasts as long as an engine takes to create and start a container
_TRIES, _PAUSE_S = 3, 0.1
_AGENT_UID = 1000


@contextmanager
def opened(image: Image) -> Iterator[None]:
    """The image is mounted for the block. One at a time: a second one waits. Raises DiskImageError, StoreError."""
    if not image.exists():
        raise DiskImageError(
            f"the session's disk image {image.path} is gone",
            hint="What it held is lost, unless you have a copy.",
        )
    with locked(image.lock, timeout_s=_LOCK_S):
        _unmount(image)  # what somebody left who was killed
        try:
            _mount(image)
            yield
        finally:
            _unmount(image)


def release(image: Image) -> None:
    """Take away the mount that somebody left who was killed. Raises DiskImageError, StoreError while it is in use."""
    if os.path.ismount(image.mount_point):
        with locked(image.lock, timeout_s=_LOCK_S):
            _unmount(image)


def loops_of(image: Image, block: Path = _BLOCK) -> tuple[str, ...]:
    """The loop devices that hold the image now, as `7:0`: none, or one for all mounts of it."""
    path = os.path.realpath(image.path)
    found = []
    for place in block.glob("loop*"):
        with suppress(OSError):  # one that is just being let go
            if (place / "loop/backing_file").read_text().rstrip("\n") == path:
                found.append((place / "dev").read_text().strip())
    return tuple(sorted(found))


def is_direct(device: str, block: Path = Path("/sys/dev/block")) -> bool:
    """Whether a loop device reads and writes past the page cache of the host: only so is all of it throttled."""
    try:
        return (block / device / "loop/dio").read_text().strip() == "1"
    except OSError:
        return False


def _mount(image: Image) -> None:
    words = ("-t", "ext4", "-o", MOUNT_OPTIONS, str(image.path), str(image.mount_point))
    outcome = run("mount", *words)
    for _ in range(
        _TRIES
    ):  # a container that has just ended is letting the device go that mount(8) wanted to share
        if outcome.ok:
            break
        time.sleep(_PAUSE_S)
        outcome = run("mount", *words)
    require_done(
        f"cannot mount the session's disk image {image.path}",
        outcome,
        hint=f"If it is damaged: `e2fsck -f {image.path}`, then try again.",
    )
    device = _device_at(image.mount_point)
    loops = loops_of(image)
    # Two devices over one file are two file systems that write into one; a device over another file has other content.
    if loops != (device,):
        raise DiskImageError(
            f"the disk image {image.path} was not mounted as it must be",
            details=f"mounted is {device}, and the image is at {', '.join(loops) or 'no loop device'}",
            hint="See what else uses it: losetup --list.",
        )
    if os.statvfs(image.mount_point).f_flag & os.ST_RDONLY:
        raise DiskImageError(
            f"the disk image {image.path} can only be read now",
            details=f"it is at the loop device {device}",
            hint="Who looks into it (findmnt, losetup --list) must unmount it. If the kernel found it damaged (dmesg): "
            f"`e2fsck -f {image.path}`.",
        )
    _set_direct_io(device)
    for part in PARTS:
        _make_part(image.mount_point / part)


def _device_at(path: Path) -> str:
    number = path.stat().st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def _make_part(place: Path) -> None:
    """The root of the file system is root's, and no container sees it: only we make anything there."""
    with suppress(FileExistsError):
        place.mkdir(mode=0o755)
        os.chown(place, _AGENT_UID, _AGENT_UID)


def _set_direct_io(device: str) -> None:
    """Not every file system can; then the host caches what the session has cached already."""
    name = Path(f"/sys/dev/block/{device}").resolve().name
    with suppress(OSError):
        fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _SET_DIRECT_IO, 1)
        finally:
            os.close(fd)


def _unmount(image: Image) -> None:
    while os.path.ismount(image.mount_point):
        # Whoever looks around in it keeps nobody waiting.
        outcome = run("umount", "--lazy", str(image.mount_point))
        if not os.path.ismount(image.mount_point):
            return  # by us, or by the umount(8) of somebody who was killed, which went on and was faster
        require_done(f"cannot unmount {image.mount_point}", outcome)
