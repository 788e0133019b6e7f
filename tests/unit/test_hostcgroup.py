"""A container's limits as the host has them: only of its own control group, and of an engine of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coding_agents.engine.api import ContainerState, EngineInfo
from coding_agents.engine.hostcgroup import read_limits
from support.fake_engine import FakeEngine

ID = "0a1b" * 16
PID = 4321
LIMITS = {
    "memory/docker/{id}/memory.limit_in_bytes": "8589934592",
    "memory/docker/{id}/memory.memsw.limit_in_bytes": "8589934592",
    "pids/docker/{id}/pids.max": "4096",
    "cpu/docker/{id}/cpu.cfs_quota_us": "200000",
    "cpu/docker/{id}/cpu.cfs_period_us": "100000",
    "memory/memory.limit_in_bytes": "9223372036854771712",
    "pids/pids.max": "max",
    "cpu/cpu.cfs_quota_us": "-1",
}
FOUND = {
    "memory_max": 8 << 30, "memory_swap_max": 8 << 30, "pids_max": 4096, "cpu_quota_us": 200000,
    "cpu_period_us": 100000,
}  # fmt: skip
VERSION_1 = "8:pids:{path}\n4:memory:{path}\n2:cpu,cpuacct:{path}\n0::/\n"


@pytest.fixture
def info(tmp_path: Path) -> EngineInfo:
    here = os.uname()
    return replace(FakeEngine(tmp_path).info, machine=(here.nodename, here.release))


def _state(**changes: Any) -> Any:
    class State:
        id, pid = ID, PID

    for name, value in changes.items():
        setattr(State, name, value)
    return State


def _read(
    tmp_path: Path, info: EngineInfo, groups: str, state: ContainerState | None = None
) -> dict[str, object]:
    files = {f"tree/{path.format(id=ID)}": text for path, text in LIMITS.items()}
    for path, text in {**files, f"proc/{PID}/cgroup": groups}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return dict(read_limits(info, state or _state(), proc=tmp_path / "proc", tree=tmp_path / "tree"))


def test_version_1(tmp_path: Path, info: EngineInfo) -> None:
    found = _read(tmp_path, info, VERSION_1.format(path=f"/docker/{ID}"))
    assert {key: found[key] for key in FOUND} == FOUND
    assert found["version"] == 1


def test_version_2(tmp_path: Path, info: EngineInfo) -> None:
    files = {
        "memory.max": "8589934592",
        "memory.swap.max": "0",
        "pids.max": "4096",
        "cpu.max": "200000 100000",
    }
    group = tmp_path / f"tree/system.slice/docker-{ID}.scope"
    group.mkdir(parents=True)
    for name, text in files.items():
        (group / name).write_text(text)
    (tmp_path / "tree/cgroup.controllers").write_text("cpu memory pids")
    found = _read(tmp_path, info, f"0::/system.slice/docker-{ID}.scope\n")
    assert {key: found[key] for key in FOUND} == FOUND


@pytest.mark.parametrize(
    "groups",
    [
        VERSION_1.format(path="/"),
        VERSION_1.format(path=f"/docker/{'f' * 64}"),
        VERSION_1.format(path=f"/../../docker/{ID}"),
        "0::/\n",
        f"4:memory:/docker/{ID}\n",
        "",
        "nonsense",
    ],
)
def test_another_control_group_is_not_taken_for_the_containers(
    tmp_path: Path, info: EngineInfo, groups: str
) -> None:
    assert _read(tmp_path, info, groups) == {}


def test_what_cannot_be_known_is_not_read(tmp_path: Path, info: EngineInfo) -> None:
    groups = VERSION_1.format(path=f"/docker/{ID}")
    assert _read(tmp_path, replace(info, machine=("elsewhere", "6.1")), groups) == {}
    assert _read(tmp_path, info, groups, _state(pid=0)) == {}
    assert _read(tmp_path, info, groups, _state(pid=PID + 1)) == {}
