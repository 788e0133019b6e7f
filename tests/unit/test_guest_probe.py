"""The probe on the kernel's own wordings, and on trees in which things are missing."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from coding_agents_guest import probe
from coding_agents_guest.cgroups import parse_limit
from coding_agents_guest.gvisor import read_kernel
from coding_agents_guest.probe import (
    count_ipv6_routes,
    other_mounts,
    parse_interfaces,
    parse_limits,
    parse_mounts,
    parse_nameservers,
    parse_routes,
    parse_status,
    read_facts,
)
from coding_agents_guest.wire import PROTOCOL, Hello, encode

STATUS = """Name:\tpython3
Umask:\t0022
Uid:\t1000\t1000\t1000\t1000
Gid:\t1000\t1000\t1000\t1000
Groups:\t1000 1005
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t1
"""
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max processes             unlimited            unlimited            processes
Max open files            4096                 8192                 files
"""
MOUNTINFO = """610 500 0:50 / / ro,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d
611 610 0:53 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
612 610 0:54 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
613 612 0:55 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k
614 610 0:56 / /tmp rw,nosuid,nodev,relatime shared:7 master:2 - tmpfs tmpfs rw,size=2097152k
615 610 254:0 /vol /workspace rw,relatime - ext4 /dev/vda rw,discard
616 610 254:0 /x /mnt/a\\040b rw - ext4 /dev/vda rw
617 610 0:57 / /run rw - tmpfs first rw
618 610 0:58 / /run rw,noexec - tmpfs second rw
619 610 254:0 /resolv.conf /etc/resolv.conf rw - ext4 /dev/vda rw
broken line
"""
ROUTES = """Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
ZERO = "0" * 32
IPV6_ROUTES = f"""{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo
{ZERO} 00 {ZERO} 00 {ZERO} 00000400 00000001 00000000 00000003     eth0
"""
DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets
    lo:       0       0    0    0    0     0          0         0        0       0
  eth0:     100       1    0    0    0     0          0         0        0       0
"""


def test_status_keeps_ids_capabilities_and_filters() -> None:
    assert parse_status(STATUS) == {
        "Uid": [1000] * 4,
        "Gid": [1000] * 4,
        "Groups": [1000, 1005],
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0000000000000000"),
        "NoNewPrivs": 1,
        "Seccomp": 2,
        "Seccomp_filters": 1,
    }
    assert parse_status("Name:\tx\nGroups:\t \n") == {"Groups": []}


def test_limits() -> None:
    assert parse_limits(LIMITS) == {"nproc": [None, None], "nofile": [4096, 8192]}
    assert parse_limits("") == {}


def test_mounts_of_watched_paths_are_the_topmost_ones() -> None:
    mounts = parse_mounts(MOUNTINFO, ("/", "/run", "/tmp", "/workspace", "/opt/coding-agents", "/mnt/a b"))
    assert list(mounts) == ["/", "/tmp", "/workspace", "/mnt/a b", "/run"]
    assert mounts["/"] == {
        "device": "0:50",
        "options": ["ro", "relatime"],
        "type": "overlay",
        "source": "overlay",
        "super_options": ["rw"],
    }
    assert mounts["/run"]["source"] == "second"
    assert mounts["/tmp"]["options"] == ["rw", "nosuid", "nodev", "relatime"]


def test_other_mounts_are_those_that_nobody_planned() -> None:
    assert other_mounts(MOUNTINFO) == ["/etc/resolv.conf", "/mnt/a b"]


def test_network() -> None:
    assert parse_interfaces(DEV) == ["lo", "eth0"]
    assert parse_routes(ROUTES) == [
        {"interface": "eth0", "destination": "0.0.0.0", "gateway": "172.17.0.1", "mask": "0.0.0.0"},
        {"interface": "eth0", "destination": "172.17.0.0", "gateway": "0.0.0.0", "mask": "255.255.0.0"},
    ]
    assert parse_routes("") == []
    assert count_ipv6_routes(IPV6_ROUTES) == 1
    assert parse_nameservers(
        "# nameserver 1.1.1.1\nnameserver 127.0.0.11\nnameserver\noptions ndots:0\n"
    ) == ["127.0.0.11"]


@pytest.mark.parametrize(
    ("text", "limit"),
    [("max\n", None), ("-1\n", None), ("9223372036854771712\n", None), ("0\n", 0), ("4096\n", 4096)],
)
def test_cgroup_limits(text: str, limit: int | None) -> None:
    assert parse_limit(text) == limit


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_what_is_missing_or_unreadable_is_absent(tmp_path: Path) -> None:
    asked = {"cgroup": {"version": 1}, "seccomp": errno.EAFNOSUPPORT}  # of this kernel, not of a file
    assert read_facts(tmp_path) == asked
    tree(
        tmp_path,
        {"proc/net/route": "Iface\neth0 zz 0 0 0 0 0 0\n", "etc/resolv.conf": "nameserver 10.0.0.1\n"},
    )
    assert read_facts(tmp_path) == {**asked, "nameservers": ["10.0.0.1"]}


def test_cgroup_v1(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": "8589934592\n",
        "memory/memory.memsw.limit_in_bytes": "8589934592\n",
        "pids/pids.max": "4096\n",
        "cpu/cpu.cfs_quota_us": "400000\n",
        "cpu/cpu.cfs_period_us": "100000\n",
        "blkio/blkio.throttle.read_bps_device": "254:0 4194304\n",
        "blkio/blkio.throttle.write_bps_device": "",
    }
    tree(tmp_path / "sys/fs/cgroup", files)
    assert read_facts(tmp_path)["cgroup"] == {
        "version": 1,
        "memory_max": 8589934592,
        "memory_swap_max": 8589934592,
        "pids_max": 4096,
        "cpu_quota_us": 400000,
        "cpu_period_us": 100000,
        "read_bps": {"254:0": 4194304},
        "write_bps": {},
    }


def test_throttled_disks_of_cgroup_v2(tmp_path: Path) -> None:
    lines = (
        "254:0 rbps=max wbps=4194304 riops=max wiops=max\n254:16 rbps=1048576 wbps=max riops=max wiops=max\n"
    )
    tree(tmp_path / "sys/fs/cgroup", {"cgroup.controllers": "io\n", "io.max": lines})
    cgroup = read_facts(tmp_path)["cgroup"]
    assert cgroup["read_bps"] == {"254:16": 1048576}
    assert cgroup["write_bps"] == {"254:0": 4194304}


@pytest.mark.parametrize(
    ("swap", "both"),
    [("0\n", 8589934592), ("1024\n", 8589935616), ("max\n", None)],
)
def test_cgroup_v2_counts_swap_as_v1_does(tmp_path: Path, swap: str, both: int | None) -> None:
    files = {
        "cgroup.controllers": "cpu memory pids\n",
        "memory.max": "8589934592\n",
        "memory.swap.max": swap,
        "pids.max": "max\n",
        "cpu.max": "max 100000\n",
    }
    tree(tmp_path / "sys/fs/cgroup", files)
    assert read_facts(tmp_path)["cgroup"] == {
        "version": 2,
        "memory_max": 8589934592,
        "memory_swap_max": both,
        "pids_max": None,
        "cpu_quota_us": None,
        "cpu_period_us": 100000,
    }
    (tmp_path / "sys/fs/cgroup/memory.swap.max").unlink()
    (tmp_path / "sys/fs/cgroup/cpu.max").unlink()
    assert read_facts(tmp_path)["cgroup"] == {"version": 2, "memory_max": 8589934592, "pids_max": None}


def test_the_facts_of_this_machine_fit_into_a_hello() -> None:
    facts = read_facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["process"]["Uid"]
    assert "size_bytes" in facts["mounts"]["/"]
    assert encode(Hello(PROTOCOL, "1", facts))


def test_only_a_process_without_a_filter_asks_the_kernel_for_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "read_kernel", lambda: {"release": "4.4.0"})
    tree(tmp_path, {"proc/1/status": STATUS})
    assert "unfiltered" not in read_facts(tmp_path)
    tree(tmp_path, {"proc/1/status": "Seccomp:\t0\n"})
    assert read_facts(tmp_path)["unfiltered"] == {"release": "4.4.0"}


def test_the_hosts_kernel_is_not_taken_for_gvisors() -> None:
    """As root, whom it lets read its log."""
    found = read_kernel()
    assert not found["log"].startswith("<6>[    0.000000] Starting gVisor")
    assert found["release"] == os.uname().release
    assert found["statx"] is True
