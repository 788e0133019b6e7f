"""What the kernel says about this container: the facts that the host compares with what it asked for.

The host does not trust the answer of a compromised guest; it is taken before anything of the agent runs. A
file that does not exist or cannot be read leaves its key out: absent is not the same as unlimited, which is
null. Sizes are bytes, times microseconds.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Union

from coding_agents_guest.gvisor import read_kernel
from coding_agents_guest.watermark import read_watermark

Facts = dict[str, Any]
Limit = Union[int, None]

_WATCHED = (
    "/", "/workspace", "/home/agentuser", "/tmp", "/var/tmp", "/run", "/run/coding-agents", "/dev/shm",
    "/opt/coding-agents", "/opt/coding-agents-config",
)  # fmt: skip
_KERNEL_TREES = ("/proc", "/sys", "/dev")
_MAX_ITEMS = 100
_UNLIMITED = 2**62  # cgroup v1 writes "no limit" as the highest multiple of a page below 2**63
_OCTAL = re.compile(r"\\([0-7]{3})")


def main(_arguments: Sequence[str]) -> int:
    """Print the facts as JSON."""
    print(json.dumps(read_facts(), indent=2, sort_keys=True))
    return 0


def read_facts(root: Path = Path("/")) -> Facts:
    """Facts of process 1, mounts, limits and network, below the file system root `root`."""
    readers: dict[str, Callable[[Path], Any]] = {
        "process": lambda root: parse_status(_text(root / "proc/1/status")),
        "rlimits": lambda root: parse_limits(_text(root / "proc/1/limits")),
        "seccomp": lambda _root: read_watermark(),
        "label": lambda root: _text(root / "proc/1/attr/current").rstrip("\0\n"),
        "mounts": lambda root: _with_sizes(root, parse_mounts(_text(root / "proc/self/mountinfo"), _WATCHED)),
        "other_mounts": lambda root: other_mounts(_text(root / "proc/self/mountinfo")),
        "cgroup": _read_cgroup,
        "interfaces": lambda root: parse_interfaces(_text(root / "proc/net/dev")),
        "routes": lambda root: parse_routes(_text(root / "proc/net/route")),
        "ipv6_routes": lambda root: count_ipv6_routes(_text(root / "proc/net/ipv6_route")),
        "nameservers": lambda root: parse_nameservers(_text(root / "etc/resolv.conf")),
        "kernel": lambda root: _text(root / "proc/sys/kernel/osrelease").strip(),
        "unfiltered": lambda _root: read_kernel() if not _is_filtered(facts) else None,
    }
    facts: Facts = {}
    for name, read in readers.items():
        try:
            facts[name] = read(root)
        except (OSError, ValueError):  # ValueError: a kernel that words it otherwise
            continue
    return facts


def _is_filtered(facts: Facts) -> bool:
    """Whether there is a seccomp filter: on the host's kernel there always is."""
    return bool(facts.get("process", {}).get("Seccomp"))


def parse_status(text: str) -> Facts:
    """/proc/PID/status: ids as [real, effective, saved, file system], capability sets as hex, two numbers."""
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    facts: Facts = {}
    for key in ("Uid", "Gid", "Groups"):
        if key in fields:
            facts[key] = [int(number) for number in fields[key].split()]
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if key in fields:
            facts[key] = fields[key].strip()
    for key in ("NoNewPrivs", "Seccomp", "Seccomp_filters"):
        if key in fields:
            facts[key] = int(fields[key])
    return facts


def parse_limits(text: str) -> dict[str, list[Limit]]:
    """/proc/PID/limits: [soft, hard] of open files and processes."""
    names = {"Max open files": "nofile", "Max processes": "nproc"}
    facts = {}
    for line in text.splitlines():
        name = names.get(line[:26].strip())
        if name:
            facts[name] = [None if word == "unlimited" else int(word) for word in line[26:].split()[:2]]
    return facts


def parse_mounts(text: str, watched: Sequence[str]) -> dict[str, Facts]:
    """/proc/PID/mountinfo (proc_pid_mountinfo(5)): the topmost mount at each watched path."""
    mounts: dict[str, Facts] = {}
    for point, options, kind, source, super_options in _mount_entries(text):
        if point in watched:
            mounts[point] = {
                "options": options.split(","),
                "type": kind,
                "source": source,
                "super_options": [option for option in super_options.split(",") if "=" not in option],
            }
    return mounts


def other_mounts(text: str) -> list[str]:
    """Mount points that are neither watched nor below the kernel's own trees."""
    points = {entry[0] for entry in _mount_entries(text)}
    return sorted(
        point
        for point in points
        if point not in _WATCHED
        and not any(point == tree or point.startswith(f"{tree}/") for tree in _KERNEL_TREES)
    )[:_MAX_ITEMS]


def parse_interfaces(text: str) -> list[str]:
    """/proc/net/dev: names of the network interfaces."""
    return [line.split(":", 1)[0].strip() for line in text.splitlines() if ":" in line][:_MAX_ITEMS]


def parse_routes(text: str) -> list[Facts]:
    """/proc/net/route: the IPv4 routes, addresses dotted."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return [
        {
            "interface": row[0],
            "destination": _address(row[1]),
            "gateway": _address(row[2]),
            "mask": _address(row[7]),
        }
        for row in rows
        if len(row) >= 8
    ][:_MAX_ITEMS]


def count_ipv6_routes(text: str) -> int:
    """/proc/net/ipv6_route: how many IPv6 routes leave by anything but loopback."""
    return sum(1 for line in text.splitlines() if line.split()[-1:] not in ([], ["lo"]))


def parse_nameservers(text: str) -> list[str]:
    """resolv.conf(5): addresses of the resolvers."""
    words = [line.split() for line in text.splitlines()]
    return [line[1] for line in words if len(line) >= 2 and line[0] == "nameserver"][:_MAX_ITEMS]


def parse_limit(text: str) -> Limit:
    """A cgroup limit: a number, or None for "max", -1 and version 1's highest value."""
    word = text.strip()
    return None if word == "max" or not 0 <= int(word) < _UNLIMITED else int(word)


def _read_cgroup(root: Path) -> Facts:
    tree = root / "sys/fs/cgroup"
    if (tree / "cgroup.controllers").exists():
        return read_cgroup_v2(tree)
    return read_cgroup_v1(lambda controller: tree / controller)


def read_cgroup_v2(tree: Path) -> Facts:
    """The limits of the control group whose directory is `tree` (cgroup-v2.rst)."""
    facts: Facts = {"version": 2, **_limits(tree, {"memory_max": "memory.max", "pids_max": "pids.max"})}
    facts.update(_throttles_v2(tree / "io.max"))
    swap = _limits(tree, {"swap": "memory.swap.max"})
    if "memory_max" in facts and "swap" in swap:
        parts = (facts["memory_max"], swap["swap"])
        facts["memory_swap_max"] = None if None in parts else sum(parts)
    try:
        quota, period = _text(tree / "cpu.max").split()
    except OSError:
        return facts
    return {**facts, "cpu_quota_us": parse_limit(quota), "cpu_period_us": int(period)}


def read_cgroup_v1(directory: Callable[[str], Path]) -> Facts:
    """The limits of a process whose control group of each controller is in `directory(CONTROLLER)`."""
    files = {
        "memory": {"memory_max": "memory.limit_in_bytes", "memory_swap_max": "memory.memsw.limit_in_bytes"},
        "pids": {"pids_max": "pids.max"},
        "cpu": {"cpu_quota_us": "cpu.cfs_quota_us", "cpu_period_us": "cpu.cfs_period_us"},
    }
    facts: Facts = {"version": 1}
    for controller, names in files.items():
        facts.update(_limits(directory(controller), names))
    return {**facts, **_throttles_v1(directory("blkio"))}


def _throttles_v1(tree: Path) -> Facts:
    """Bytes a second by device, as `254:0 4194304` (blkio-controller.rst)."""
    facts: Facts = {}
    for key in ("read_bps", "write_bps"):
        try:
            lines = _text(tree / f"blkio.throttle.{key}_device").splitlines()
        except OSError:
            continue
        facts[key] = {device: int(rate) for device, rate in (line.split() for line in lines)}
    return facts


def _throttles_v2(path: Path) -> Facts:
    """The same from `254:0 rbps=4194304 wbps=max riops=max wiops=max` (cgroup-v2.rst)."""
    facts: Facts = {"read_bps": {}, "write_bps": {}}
    try:
        lines = _text(path).splitlines()
    except OSError:
        return {}
    for line in lines:
        device, *words = line.split()
        rates = dict(word.split("=", 1) for word in words)
        for key, word in (("read_bps", "rbps"), ("write_bps", "wbps")):
            if rates.get(word, "max") != "max":
                facts[key][device] = int(rates[word])
    return facts


def _limits(tree: Path, files: dict[str, str]) -> Facts:
    facts: Facts = {}
    for name, path in files.items():
        try:
            facts[name] = parse_limit(_text(tree / path))
        except OSError:
            continue
    return facts


def _with_sizes(root: Path, mounts: dict[str, Facts]) -> dict[str, Facts]:
    for point, facts in mounts.items():
        try:
            found = os.statvfs(root / point.lstrip("/"))
        except OSError:
            continue
        facts["size_bytes"] = found.f_blocks * found.f_frsize
    return mounts


def _mount_entries(text: str) -> list[tuple[str, str, str, str, str]]:
    """Mount point, options, type, source and super options of each mount, in mounting order."""
    entries = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(), after.split(" ")
        if len(left) >= 6 and len(right) >= 3:
            entries.append((_unescaped(left[4]), left[5], right[0], _unescaped(right[1]), right[2]))
    return entries


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _address(word: str) -> str:
    return socket.inet_ntoa(struct.pack("=I", int(word, 16)))


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace")
