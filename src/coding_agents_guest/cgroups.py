"""The limits that a control group puts on its processes, of both versions. Read in the guest, and by the host for one.

A file that does not exist or cannot be read leaves its key out: absent is not the same as unlimited, which is
null. Sizes are bytes, times microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Union

Facts = dict[str, Any]
Limit = Union[int, None]

_UNLIMITED = 2**62  # cgroup v1 writes "no limit" as the highest multiple of a page below 2**63


def parse_limit(text: str) -> Limit:
    """A cgroup limit: a number, or None for "max", -1 and version 1's highest value."""
    word = text.strip()
    return None if word == "max" or not 0 <= int(word) < _UNLIMITED else int(word)


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


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace")
