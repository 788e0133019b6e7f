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
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.cgroups import Facts, Limit, read_cgroup_v1, read_cgroup_v2
from coding_agents_guest.gvisor import read_kernel
from coding_agents_guest.watermark import read_watermark

_WATCHED = (
    "/", "/workspace", "/home/agentuser", "/tmp", "/var/tmp", "/run", "/run/coding-agents", "/dev/shm",
    "/opt/coding-agents", "/opt/coding-agents-config", "/opt/coding-agents-door",
)  # fmt: skip
_KERNEL_TREES = ("/proc", "/sys", "/dev")
_MAX_ITEMS = 100
_OCTAL = re.compile(r"\\([0-7]{3})")


def main(_arguments: Sequence[str]) -> int:
    """Print the facts as JSON."""
    print(json.dumps(read_facts(), indent=2, sort_keys=True))
    return 0


def read_facts(root: Path = Path("/")) -> Facts:
    """Facts of process 1, mounts, limits and network, below the file system root `root`."""
    readers: dict[str, Callable[[Path], object]] = {
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
    }
    facts: Facts = {}
    for name, read in readers.items():
        try:
            facts[name] = read(root)
        except (OSError, ValueError):  # ValueError: a kernel that words it otherwise
            continue
    if facts.get("process", {}).get("Seccomp") == 0:  # on the host's kernel there always is a filter
        with suppress(OSError):
            facts["unfiltered"] = read_kernel()
    return facts


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
    for point, device, options, kind, source, super_options in _mount_entries(text):
        if point in watched:
            mounts[point] = {
                "device": device,
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


def _read_cgroup(root: Path) -> Facts:
    tree = root / "sys/fs/cgroup"
    if (tree / "cgroup.controllers").exists():
        return read_cgroup_v2(tree)
    return read_cgroup_v1(lambda controller: tree / controller)


def _with_sizes(root: Path, mounts: dict[str, Facts]) -> dict[str, Facts]:
    for point, facts in mounts.items():
        try:
            found = os.statvfs(root / point.lstrip("/"))
        except OSError:
            continue
        facts["size_bytes"] = found.f_blocks * found.f_frsize
    return mounts


def _mount_entries(text: str) -> list[tuple[str, str, str, str, str, str]]:
    """Mount point, device as major:minor, options, type, source and super options of each mount, in mounting order."""
    entries = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(), after.split(" ")
        if len(left) >= 6 and len(right) >= 3:
            entries.append((_unescaped(left[4]), left[2], left[5], right[0], _unescaped(right[1]), right[2]))
    return entries


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _address(word: str) -> str:
    return socket.inet_ntoa(struct.pack("=I", int(word, 16)))


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace")
