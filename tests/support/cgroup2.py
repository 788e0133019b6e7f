"""The cgroup of a container on version 2, seen from the host: what the kernel holds it to, and what that came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TOP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Group:
    """One directory of the unified hierarchy."""

    path: Path

    def text(self, name: str) -> str:
        return (self.path / name).read_text().strip()

    def table(self, name: str) -> Mapping[str, int]:
        """A file of lines such as `oom_kill 1`."""
        return {key: int(number) for key, number in (line.split() for line in self.text(name).splitlines())}

    def processes(self) -> list[int]:
        """All of the container's processes, those in groups below as well."""
        return [int(pid) for file in self.path.rglob("cgroup.procs") for pid in file.read_text().split()]


def group_of(pid: int) -> Group:
    """The group with the limits of process `pid`: its own, or the first above that has some (crun makes one below)."""
    (line,) = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    path = _TOP / line.removeprefix("0::/")
    while (path / "memory.max").read_text().strip() == "max" and path.parent != _TOP:
        path = path.parent
    return Group(path)


def label_of(pid: int) -> str:
    """Under which AppArmor profile a process is, with the mode."""
    return Path(f"/proc/{pid}/attr/apparmor/current").read_text().strip("\0\n")
