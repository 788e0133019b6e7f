"""The ballast of a running session: it takes real room beside the data, and is gone before anything is saved."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from coding_agents.errors import EngineStoppedError
from coding_agents.model.session import Saved
from coding_agents.supervisor import ballast as module
from coding_agents.supervisor.ballast import BALLAST, drop_ballast, hold_ballast
from coding_agents.supervisor.ending import Ending
from coding_agents.supervisor.room import Room
from support.fake_engine import FakeEngine
from support.faults import fill
from support.supervised import make_session, supervise

_needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class _Disk:
    """A session whose engine has its data in `root`, and its volume's directory there."""

    def __init__(self, root: Path, *, quota: bool = False) -> None:
        self.volume = root / "volumes" / "shop-workspace"
        (self.volume / "_data").mkdir(parents=True)
        (root / "session").mkdir()
        record = SimpleNamespace(
            name="shop",
            quota=quota,
            limits={"disk_reserve": "1"},
            volumes=SimpleNamespace(workspace="shop-workspace"),
        )
        info = SimpleNamespace(data_root=str(root), is_local=True)
        engine = SimpleNamespace(info=info)
        self.session: Any = SimpleNamespace(record=record, engine=engine, directory=root / "session")

    @property
    def found(self) -> list[Path]:
        return sorted(self.volume.parent.parent.rglob(f"*{BALLAST}*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own, so that full is really full."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)), check=True)
    try:
        yield mount
    finally:
        subprocess.run(("umount", "-l", str(mount)), check=True)


def test_it_takes_real_room_beside_the_data_until_it_is_dropped(tmp_path: Path) -> None:
    disk = _Disk(tmp_path)
    for _ in range(2):  # a supervisor that comes back finds it there
        hold_ballast(disk.session)
    assert disk.found == [disk.volume / BALLAST]
    assert list((disk.volume / "_data").iterdir()) == []
    found = disk.found[0].stat()
    assert found.st_blocks * 512 >= 1 << 20
    assert found.st_size <= 64 << 20
    for _ in range(2):
        drop_ballast(disk.session)
    assert disk.found == []


def test_a_session_with_a_disk_of_its_own_has_it_beside_the_image(tmp_path: Path) -> None:
    disk = _Disk(tmp_path, quota=True)
    hold_ballast(disk.session)
    assert disk.found == [tmp_path / "session" / BALLAST]
    drop_ballast(disk.session)
    assert disk.found == []


def _make_container(disk: Path) -> None:
    (disk / "container").mkdir(exist_ok=True)
    (disk / "container" / "config.json").write_bytes(b"x" * 4096)


@_needs_root
def test_what_was_full_has_room_again(small_disk: Path) -> None:
    disk = _Disk(small_disk)
    hold_ballast(disk.session)
    fill(small_disk)
    with pytest.raises(OSError, match="No space"):
        _make_container(small_disk)
    drop_ballast(disk.session)
    _make_container(small_disk)


@_needs_root
def test_a_disk_that_cannot_give_the_room_keeps_nothing_of_it(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHARE", 1)
    disk = _Disk(small_disk)
    (small_disk / "other").write_bytes(b"x" * (100 << 10))
    hold_ballast(disk.session)
    assert disk.found == []


@pytest.mark.parametrize(("free", "held"), [(99, False), (163, False), (164, True)])
def test_no_session_is_ended_for_its_ballast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, held: bool
) -> None:
    """It is held where the watch would still let the session go on, with 100 MiB to be left."""
    disk = _Disk(tmp_path)
    disk.session.record.limits["disk_reserve"] = str(100 << 20)
    room = Room(free_bytes=free << 20, free_inodes=10**6, size_bytes=1 << 40, inodes=10**6)
    monkeypatch.setattr(module, "room_of", lambda _: room)
    hold_ballast(disk.session)
    assert disk.found == ([disk.volume / BALLAST] if held else [])


def test_where_nothing_can_be_held_nothing_fails(tmp_path: Path) -> None:
    """An engine elsewhere or with its volumes elsewhere, one that is down, and a link in the directory's place."""
    disk = _Disk(tmp_path)
    info = disk.session.engine.info
    for engine in (
        SimpleNamespace(info=SimpleNamespace(data_root=info.data_root, is_local=False)),
        SimpleNamespace(info=SimpleNamespace(data_root=str(tmp_path / "session"), is_local=True)),
        _Down(),
    ):
        disk.session.engine = engine
        hold_ballast(disk.session)
        drop_ballast(disk.session)
    disk.session.engine = SimpleNamespace(info=info)
    target = disk.volume.rename(disk.volume.with_name("elsewhere"))
    disk.volume.symlink_to(target)
    hold_ballast(disk.session)
    assert disk.found == []


class _Down:
    @property
    def info(self) -> None:
        raise EngineStoppedError("it is down")


@_needs_root
def test_root_writes_nothing_into_another_users_engine(tmp_path: Path) -> None:
    disk = _Disk(tmp_path)
    os.chown(disk.volume, 4711, 4711)
    hold_ballast(disk.session)
    assert disk.found == []


def test_it_is_gone_before_the_end_saves_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeEngine(tmp_path / "engine")
    fake.directory.mkdir()
    session = make_session(tmp_path, fake)
    here = os.uname()
    monkeypatch.setattr(FakeEngine, "info", replace(fake.info, machine=(here.nodename, here.release)))
    held = fake.directory / "volumes" / session.record.volumes.workspace / BALLAST
    held.parent.mkdir(parents=True)
    hold_ballast(session)
    assert held.exists()
    seen: list[bool] = []

    async def verified(self: Ending) -> Saved:
        seen.append(held.exists())
        return Saved()

    monkeypatch.setattr(Ending, "_verified", verified)
    monkeypatch.setattr(Ending, "_salvage_is_due", _due)
    supervise(session)
    assert seen == [False]


async def _due(*_: object) -> bool:
    return True
