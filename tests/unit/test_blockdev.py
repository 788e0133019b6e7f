"""Which disk an engine's data are on, from sysfs as kernels lay it out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coding_agents.engine.blockdev import data_device, device_of


@pytest.fixture
def block(tmp_path: Path) -> Path:
    """A disk vda with a partition, an LVM volume, and one whose name has a slash."""
    devices, links = tmp_path / "devices", tmp_path / "block"
    links.mkdir()
    for number, place in {
        "254:0": "vda",
        "254:1": "vda/vda1",
        "253:3": "dm-3",
        "104:0": "cciss!c0d0",
    }.items():
        (devices / place).mkdir(parents=True, exist_ok=True)
        (links / number).symlink_to(devices / place)
    (devices / "vda/vda1/partition").write_text("1\n")
    return links


@pytest.mark.parametrize(
    ("number", "path"),
    [
        ((254, 0), "/dev/vda"),
        ((254, 1), "/dev/vda"),
        ((253, 3), "/dev/dm-3"),
        ((104, 0), "/dev/cciss/c0d0"),
        ((0, 51), ""),  # btrfs, overlay, tmpfs
        ((8, 0), ""),
    ],
)
def test_the_whole_disk_is_named(block: Path, number: tuple[int, int], path: str) -> None:
    assert device_of(*number, block) == path


def test_an_engine_elsewhere_has_no_disk_here() -> None:
    info: Any = SimpleNamespace(is_local=False, data_root="/")
    assert data_device(info) == ""
    gone: Any = SimpleNamespace(is_local=True, data_root="/nonexistent")
    assert data_device(gone) == ""
