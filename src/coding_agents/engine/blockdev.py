"""The block device that holds what a container writes: the kernel throttles the disk of a container by it.

Mostly that is the disk with the engine's data. See blkio, io.max.
"""

from __future__ import annotations

import os
from pathlib import Path

from coding_agents.engine.api import EngineInfo

_BLOCK = Path("/sys/dev/block")


def data_device(info: EngineInfo) -> str:
    """The path of the whole disk with the engine's data, "" where there is none to be throttled.

    That is: the engine is elsewhere, or its file system has no device of its own (btrfs, overlay, tmpfs).
    """
    return device_below(Path(info.data_root)) if info.is_local else ""


def device_below(place: Path) -> str:
    """The path of the whole disk with the file system of `place` on this machine, "" as above."""
    try:
        number = place.stat().st_dev
    except OSError:
        return ""
    return device_of(os.major(number), os.minor(number))


def device_of(major: int, minor: int, block: Path = _BLOCK) -> str:
    """The path of the disk with this number, or with a partition of this number; "" when it is no disk."""
    if major == 0:  # an anonymous one (Documentation/admin-guide/devices.txt)
        return ""
    try:
        place = (block / f"{major}:{minor}").resolve(strict=True)
    except OSError:
        return ""
    disk = place.parent if (place / "partition").exists() else place
    return f"/dev/{disk.name.replace('!', '/')}"  # sysfs writes a slash so
