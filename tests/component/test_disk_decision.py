"""Whether a launch with `--disk` gets its file system: refused, watched, or made when what goes in fits."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coding_agents.app import disk_quota
from coding_agents.app.disk_quota import (
    Disk,
    decide_disk,
    full_disk_named,
    require_fitting,
    why_no_quota,
)
from coding_agents.app.launch_request import LaunchOptions, parse_request
from coding_agents.errors import EnforcementError, EngineError, UsageError, WorkspaceError
from coding_agents.model.limits import GIB, MIB, NO_DISK, parse_disk, parse_size
from coding_agents.model.session import Volumes
from coding_agents.quota.image import Image, usable_bytes
from coding_agents.supervisor import disk as disk_module
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.disk import disk_opened, holds_work, renew_volumes
from coding_agents.supervisor.room import Room
from coding_agents.workspace.weight import Weight, weigh
from support.fake_engine import FakeEngine
from support.host import host_environment
from support.supervised import make_session
from support.workspaces import Host, make_host

HERE: Any = SimpleNamespace(title="Docker", is_local=True, rootless=False)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return make_host(tmp_path)


def decide(host: Host, *, info: Any = HERE, **options: Any) -> tuple[Disk, list[str]]:
    """What is decided, and what a person is told."""
    told: list[str] = []
    env = host_environment(host.root / "home")
    request = parse_request(env, LaunchOptions(source=str(host.work), **options))
    facts: Any = SimpleNamespace(repo=host.facts(), engine=SimpleNamespace(info=info))
    narrator: Any = SimpleNamespace(say=told.append)
    return decide_disk(request, facts, env, narrator), told


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"is_local": False}, "runs on another machine"),
        ({"rootless": True}, "a rootless Docker sees no mounts"),
    ],
)
def test_where_there_can_be_none_it_is_refused_or_watched(
    host: Host, changes: dict[str, bool], reason: str
) -> None:
    info = SimpleNamespace(**{**vars(HERE), **changes})
    with pytest.raises(
        EnforcementError, match=f"a disk of 5g cannot be enforced here: .*{reason}"
    ) as refused:
        decide(host, info=info, disk="5g")
    assert "--best-effort disk" in refused.value.hint
    made, told = decide(host, info=info, disk="5g", best_effort=("disk",))
    assert made.size_bytes == NO_DISK
    (line,) = told
    assert line.startswith("no quota for the disk: ")
    assert decide(host, info=info) == (Disk(), [])


def test_who_is_not_root_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert why_no_quota(HERE, host.root / "state") == "mounting a file system takes root"


def test_what_fits_is_decided_with_what_goes_in(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_quota, "why_unmountable", lambda _place: "")
    made, told = decide(host, disk="64m")
    assert made.size_bytes == 64 * MIB
    assert made.copy == host.plan()
    assert told == []
    roomy, nearly_full = 900 * GIB, 10 * GIB
    for free, lines in ((roomy, 0), (nearly_full, 1)):
        room = Room(free_bytes=free, free_inodes=1, size_bytes=1000 * GIB, inodes=1)
        monkeypatch.setattr(Room, "of", lambda _path, r=room: r)
        told = decide(host, disk="20g")[1]
        assert len(told) == lines
    assert "the disk of 20g is more than the 5120 MiB that" in told[0]


def test_what_does_not_fit_is_refused_with_figures(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_quota, "why_unmountable", lambda _place: "")
    (host.work / "large.bin").write_bytes(os.urandom(50 * MIB))
    with pytest.raises(WorkspaceError, match="a disk of 64m is too small for this repository") as refused:
        decide(host, disk="64m")
    assert "goes in: 50 MiB in 1" in refused.value.details
    assert refused.value.hint == "Give it at least 96m: --disk 96m."
    assert decide(host, disk="96m")[0].size_bytes == 96 * MIB


def test_history_counts_and_only_what_goes_in(host: Host) -> None:
    def weight(room: int) -> Weight:
        return weigh(host.facts(), host.plan(), room=room, env=host.env)

    before = weight(GIB)
    host.write("large.bin", os.urandom(8 * MIB))
    host.git("checkout", "--quiet", "-b", "side")
    host.git("add", "--all")
    host.git("commit", "--quiet", "-m", "large")
    assert weight(GIB).size_bytes > before.size_bytes + 16 * MIB  # the file and its object
    host.git("checkout", "--quiet", "main")
    assert weight(GIB).size_bytes > before.size_bytes + 8 * MIB  # of all that the repository holds
    assert weight(MIB).size_bytes < before.size_bytes + MIB  # when that does not fit: of HEAD alone


def test_a_launch_from_the_commit_is_weighed_by_it(host: Host) -> None:
    host.commit(**{"sub/a": "x" * 9000, "sub/b/c": "y"})
    plan = host.plan(clean=True)
    (host.work / "sub/a").write_text("")
    weight = weigh(host.facts(), plan, room=GIB, env=host.env)
    dirty = weigh(host.facts(), host.plan(), room=GIB, env=host.env)
    assert weight.size_bytes - dirty.size_bytes == 3 * 4096
    assert weight.files == dirty.files


@pytest.mark.parametrize("weight", [Weight(usable_bytes(64 * MIB) - 16 * MIB + 1, 10), Weight(MIB, 7200)])
def test_there_must_be_room_to_work_in(weight: Weight) -> None:
    with pytest.raises(WorkspaceError, match="too small"):
        require_fitting(64 * MIB, weight)
    require_fitting(128 * MIB, weight)


@pytest.mark.parametrize(
    ("text", "size"), [("5g", 5 * GIB), ("64m", 64 * MIB), ("none", NO_DISK), ("15t", parse_size("15t"))]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_disk(text) == size


@pytest.mark.parametrize("text", ["0", "1m", "63m", "16t", "-5g", "lots", ""])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_disk(text)
    assert refused.value.hint == "Write it like 8g or 512m."


def test_a_disk_that_fills_up_all_the_same_is_named() -> None:
    full = EngineError("cannot run tar", details="tar: x: Cannot write: No space left on device")
    with pytest.raises(WorkspaceError, match="a disk of 64m is too small"), full_disk_named(Disk(64 * MIB)):
        raise full
    for disk, error in ((Disk(), full), (Disk(64 * MIB), EngineError("cannot", details="no such container"))):
        with pytest.raises(EngineError) as other, full_disk_named(disk):
            raise error
        assert other.value is error


def _session(tmp_path: Path) -> SessionContext:
    """A session with a disk of its own whose image is there, and whose engine has none of its volumes."""
    session = make_session(tmp_path, FakeEngine(tmp_path / "engine"))
    name = session.record.name
    session.update(
        quota=True,
        limits={**session.record.limits, "disk": str(64 * MIB)},
        volumes=Volumes(workspace=f"{name}-workspace", home=f"{name}-home"),
        engine_id=session.engine.info.identity,
    )
    Image(session.directory).path.touch()
    return session


def test_volumes_that_somebody_removed_are_made_anew_while_the_image_is_there(tmp_path: Path) -> None:
    session = _session(tmp_path)
    assert holds_work(session)
    assert not session.has_volume()
    renew_volumes(session)
    assert session.has_volume()
    assert session.engine.volume_exists(f"{session.record.name}-home")
    renew_volumes(session)
    Image(session.directory).path.unlink()
    assert not holds_work(session)  # whatever the engine calls by that name


def test_volumes_are_made_anew_on_their_own_engine_alone(tmp_path: Path) -> None:
    session = _session(tmp_path)
    session.update(engine_id="another engine")
    with pytest.raises(EngineError, match="is not the one that session"):
        renew_volumes(session)
    session.update(engine_id="")  # `recover --engine-gone`
    renew_volumes(session)
    assert session.has_volume()


def test_an_engine_that_does_not_see_the_mount_is_told_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_module, "opened", lambda _image: nullcontext())
    session = _session(tmp_path)
    place = Image(session.directory).place("home")
    unseen = EngineError("cannot start", details=f"mount {place}: no such file or directory")
    with pytest.raises(EngineError) as told, disk_opened(session):
        raise unseen
    assert "mount namespace" in told.value.hint
    with pytest.raises(EngineError) as other, disk_opened(session):
        raise EngineError("cannot start", details="no space")
    assert "mount namespace" not in other.value.hint
