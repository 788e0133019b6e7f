"""A container's limits as the host's kernel holds them: where the container has another kernel (gVisor) it cannot know.

Read from this machine's own control groups, so only of an engine that runs here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coding_agents.engine.api import ContainerState, EngineInfo
from coding_agents_guest.cgroups import read_cgroup_v1, read_cgroup_v2

_PROC, _TREE = Path("/proc"), Path("/sys/fs/cgroup")


def read_limits(
    info: EngineInfo, state: ContainerState, *, proc: Path = _PROC, tree: Path = _TREE
) -> Mapping[str, object]:
    """The limits of a running container, by the names of the guest's probe; empty when they cannot be known.

    The control group must be the container's own, by its id in the path: a process that has ended meanwhile, or a
    pid of another pid namespace, is not taken for it.
    """
    if not info.is_local or not state.pid:
        return {}
    try:
        groups = parse_groups((proc / str(state.pid) / "cgroup").read_text("ascii"), state.id)
        if "" in groups and (tree / "cgroup.controllers").exists():
            return read_cgroup_v2(tree / groups[""])
        if {"memory", "pids", "cpu"} <= groups.keys():
            return read_cgroup_v1(lambda controller: tree / controller / groups.get(controller, "none"))
    except (OSError, ValueError):
        pass
    return {}


def parse_groups(text: str, container: str) -> dict[str, str]:
    """Controller to path (cgroups(7), `/proc/PID/cgroup`), "" for version 2; only paths that name `container`.

    >>> parse_groups("4:memory:/docker/0a1b\\n3:cpu,cpuacct:/docker/0a1b\\n0::/\\n", "0a1b")
    {'memory': 'docker/0a1b', 'cpu': 'docker/0a1b', 'cpuacct': 'docker/0a1b'}
    """
    groups = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if container in path and ".." not in path.split("/"):
            groups.update(dict.fromkeys(controllers.split(","), path.lstrip("/")))
    return groups
