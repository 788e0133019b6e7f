"""Resource limits of a container: frozen, parsed once from the command line or a settings file."""

from __future__ import annotations

import re
from decimal import Decimal

import msgspec

from coding_agents.errors import UsageError

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

MIN_CPUS, MAX_CPUS = Decimal("0.1"), Decimal(4096)
MIN_MEMORY, MAX_MEMORY = 256 * MIB, 64 * TIB  # below 256 MiB git and the agents' own runtimes do not start
MIN_PIDS, MAX_PIDS = 64, 4_194_304  # upper: the kernel's PID_MAX_LIMIT on 64 bits

MIN_TIME_S, MAX_TIME_S = 60, 30 * 86_400
NO_TIME = 10**9
"""So many seconds are no limit at all."""
NO_RATE = 10**12
"""So many bytes a second are no limit at all."""
MIN_RATE, MAX_RATE = 8_000, 10**10  # upper: what nft takes
NO_IO = 10**15
"""So many bytes a second are no limit at all."""
MIN_IO, MAX_IO = MIB, TIB
NO_DISK = 10**15
"""So many bytes of a disk are no limit at all."""
MIN_DISK, MAX_DISK = 64 * MIB, 15 * TIB  # upper: ext4 with blocks of 4 KiB ends at 16 TiB
NO_TRAFFIC = 10**15
"""So many bytes are no budget at all."""
MIN_RESERVE, MAX_RESERVE = 64 * MIB, TIB
MIN_FILE, MAX_FILE = 64 * MIB, TIB

MIN_RELAY_SIZE, MAX_RELAY_SIZE = MIB, TIB
MIN_RELAY_REFS, MAX_RELAY_REFS = 10, 100_000

_UNITS = {"": 1, "b": 1, "k": KIB, "m": MIB, "g": GIB, "t": TIB}
_SIZE = re.compile(r"(?P<number>[0-9]{1,15}(\.[0-9]{1,6})?)\s*(?P<unit>[bkmgt]?)(?P<suffix>i?b)?", re.ASCII)
_RATE = re.compile(r"(?P<number>[0-9]{1,12}(\.[0-9]{1,3})?)\s*(?P<unit>kbit|mbit|gbit|)(/s)?", re.ASCII)
_BITS = {"": 8, "kbit": 1000, "mbit": 1000**2, "gbit": 1000**3}
_TIME = re.compile(r"(?P<number>[0-9]{1,10})(?P<unit>[smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_CPUS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,10}", re.ASCII)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one container may use at most.

    `cpus` counts processors, `memory_bytes` memory and swap together (no extra swap is ever given),
    `pids` processes and threads, `shm_bytes` /dev/shm (browsers and test runners need ≥ 1 GiB; its
    pages count as memory), `tmp_bytes` and `var_tmp_bytes` the two scratch tmpfs, `nofile_*` open files
    of one process, `file_bytes` the largest file that a process may write (RLIMIT_FSIZE), `disk_bytes` the
    file system that holds all writable volumes (NO_DISK: they are the engine's own directories), `disk_read`
    and `disk_write` bytes a second of the block device `disk_device` (a path below /dev; "" when it has none),
    `log_bytes` and `log_files` the engine's own record of the container's output.
    """

    cpus: Decimal = Decimal(4)
    memory_bytes: int = 8 * GIB
    pids: int = 4096
    shm_bytes: int = GIB
    tmp_bytes: int = 2 * GIB
    var_tmp_bytes: int = GIB
    nofile_soft: int = 8192
    nofile_hard: int = 16384
    file_bytes: int = 32 * GIB
    disk_bytes: int = NO_DISK
    disk_read: int = NO_IO
    disk_write: int = NO_IO
    disk_device: str = ""
    log_bytes: int = 10 * MIB
    log_files: int = 3

    def to_json(self) -> dict[str, int | str]:
        """Field name to value; `cpus` as a decimal string."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: cpus_text(v) if isinstance(v, Decimal) else v for name, v in values.items()}


def cpus_text(cpus: Decimal) -> str:
    """The shortest plain decimal form, as the engines read it: `4`, `0.5`."""
    return format(cpus.normalize(), "f")


def parse_cpus(text: str) -> Decimal:
    """`4` or `0.5` to processors. Raises UsageError."""
    stripped = text.strip()
    if not _CPUS.fullmatch(stripped):
        raise UsageError(f"not a number of CPUs: {text!r}", hint="Write it like 4 or 0.5.")
    cpus = Decimal(stripped)
    if not MIN_CPUS <= cpus <= MAX_CPUS:
        raise UsageError(
            f"CPUs must be between {MIN_CPUS} and {MAX_CPUS}, not {stripped}", hint="Write it like 4 or 0.5."
        )
    return cpus


def parse_size(text: str) -> int:
    """`8g`, `512m`, `1.5GiB` or plain bytes to bytes, units of 1024. Raises UsageError."""
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise UsageError(f"not a size: {text!r}", hint="Write it like 8g or 512m.")
    return int(Decimal(match["number"]) * _UNITS[match["unit"]])


def parse_memory(text: str) -> int:
    """A memory limit in bytes, within the bounds of this module. Raises UsageError."""
    return _bounded_size(text, MIN_MEMORY, MAX_MEMORY, what="memory")


def parse_relay_size(text: str) -> int:
    """A budget of the relay in bytes, within the bounds of this module. Raises UsageError."""
    return _bounded_size(text, MIN_RELAY_SIZE, MAX_RELAY_SIZE)


def parse_relay_refs(text: str) -> int:
    """A number of refs that the relay keeps. Raises UsageError."""
    stripped = text.strip()
    if not _COUNT.fullmatch(stripped) or not MIN_RELAY_REFS <= int(stripped) <= MAX_RELAY_REFS:
        raise UsageError(
            f"not a number from {MIN_RELAY_REFS} to {MAX_RELAY_REFS}: {text!r}", hint="Write it like 1000."
        )
    return int(stripped)


def parse_pids(text: str) -> int:
    """A limit of processes and threads. Raises UsageError."""
    stripped = text.strip()
    if not _COUNT.fullmatch(stripped):
        raise UsageError(f"not a number of processes: {text!r}", hint="Write it like 4096.")
    pids = int(stripped)
    if not MIN_PIDS <= pids <= MAX_PIDS:
        raise UsageError(
            f"processes must be between {MIN_PIDS} and {MAX_PIDS}, not {stripped}", hint="Write it like 4096."
        )
    return pids


def parse_time(text: str) -> int:
    """`90m`, `2h`, `1d` or seconds to seconds, `none` to NO_TIME. Raises UsageError."""
    stripped = text.strip().lower()
    if stripped == "none":
        return NO_TIME
    match = _TIME.fullmatch(stripped)
    seconds = int(match["number"]) * _SECONDS[match["unit"]] if match else 0
    if not MIN_TIME_S <= seconds <= MAX_TIME_S and seconds != NO_TIME:
        raise UsageError(f"not a time from 1m to 30d: {text!r}", hint="Write it like 90m or 2h.")
    return seconds


def parse_rate(text: str) -> int:
    """`10mbit` (a million bits a second each) or bytes a second to bytes a second, `none` to NO_RATE.

    Raises UsageError.
    """
    stripped = text.strip().lower()
    if stripped in ("none", str(NO_RATE)):
        return NO_RATE
    match = _RATE.fullmatch(stripped)
    rate = int(Decimal(match["number"]) * _BITS[match["unit"]]) // 8 if match else 0
    if not MIN_RATE <= rate <= MAX_RATE:
        raise UsageError(
            f"not a rate from 64kbit to 80gbit: {text!r}", hint="Write it like 10mbit or 500kbit."
        )
    return rate


def rate_text(rate: int) -> str:
    """Bytes a second in the largest unit of bits that divides them: `10mbit`."""
    for unit in ("gbit", "mbit", "kbit"):
        if rate * 8 % _BITS[unit] == 0:
            return f"{rate * 8 // _BITS[unit]}{unit}"
    return f"{Decimal(rate * 8) / 1000}kbit"


def parse_io(text: str) -> int:
    """`50m` bytes a second of a disk, `none` to NO_IO. Raises UsageError."""
    stripped = text.strip().lower().removesuffix("/s")
    return NO_IO if stripped in ("none", str(NO_IO)) else _bounded_size(stripped, MIN_IO, MAX_IO)


def parse_disk(text: str) -> int:
    """The size of a session's own file system in bytes, `none` to NO_DISK. Raises UsageError."""
    stripped = text.strip().lower()
    if stripped in ("none", str(NO_DISK)):
        return NO_DISK
    return _bounded_size(text, MIN_DISK, MAX_DISK, what="the disk of a session")


def parse_traffic(text: str) -> int:
    """`500m` bytes that may pass the network, `none` to NO_TRAFFIC. Raises UsageError."""
    stripped = text.strip().lower()
    return NO_TRAFFIC if stripped in ("none", str(NO_TRAFFIC)) else _bounded_size(stripped, MIB, TIB)


def parse_reserve(text: str) -> int:
    """Bytes that are kept free on a disk, within the bounds of this module. Raises UsageError."""
    return _bounded_size(text, MIN_RESERVE, MAX_RESERVE)


def parse_file_size(text: str) -> int:
    """The largest file in bytes, within the bounds of this module. Raises UsageError."""
    return _bounded_size(text, MIN_FILE, MAX_FILE)


def _bounded_size(text: str, smallest: int, largest: int, *, what: str = "it") -> int:
    size = parse_size(text)
    if not smallest <= size <= largest:
        raise UsageError(
            f"{what} must be between {size_text(smallest)} and {size_text(largest)}, not {text.strip()}",
            hint="Write it like 8g or 512m.",
        )
    return size


def duration_text(seconds: int) -> str:
    """Seconds in the largest unit that divides them: `2h`, `90m`, `45s`."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds // _SECONDS[unit]}{unit}"
    return f"{seconds}s"


def quota_text(size_bytes: int) -> str:
    """What bounds a session's disk, for people."""
    return f"kernel quota (ext4 on a loop device, {size_text(size_bytes)})"


def size_text(size_bytes: int) -> str:
    """Bytes in the largest unit that divides them: `8g`, `512m`, `1000`."""
    for unit in ("t", "g", "m", "k"):
        if size_bytes and size_bytes % _UNITS[unit] == 0:
            return f"{size_bytes // _UNITS[unit]}{unit}"
    return str(size_bytes)
