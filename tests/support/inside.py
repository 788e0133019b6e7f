"""What is to be found in a container by root of the host: environments, memory and files of everything in it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from support.product import Product

_WRITABLE = ("home", "tmp", "workspace", "run", "var", "dev")


class Inside:
    """All of a session's container, as root of the host sees it."""

    def __init__(self, init: int) -> None:
        space = _space(Path(f"/proc/{init}"))
        self.root = Path(f"/proc/{init}/root")
        processes = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
        self.pids = [int(entry.name) for entry in processes if _space(entry) == space]

    @classmethod
    def of(cls, product: Product, name: str) -> Inside:
        return cls(int(product.engine_run("inspect", "--format", "{{.State.Pid}}", name)))

    def find(self, word: bytes) -> list[str]:
        """Where `word` is: in environments, arguments and memory of every process, and in files."""
        found = [
            f"{kind} {pid}"
            for pid in self.pids
            for kind in ("environ", "cmdline")
            if word in _of_process(pid, kind)
        ]
        found += [f"memory {pid}" for pid in self.pids if _in_memory(pid, word)]
        for top in (*_WRITABLE, "etc", "opt"):
            for path in (self.root / top).rglob("*"):
                with suppress(OSError):
                    if path.is_file() and not path.is_symlink() and word in path.read_bytes():
                        found.append(f"file {path}")
        return found

    def cores(self) -> list[str]:
        """What of a core dump there is: limits that would let a process write one, and files that look like one."""
        found = [f"limit {pid}" for pid in self.pids if core_limits(pid) != ("0", "0")]
        for top in _WRITABLE:
            found += [f"file {path}" for path in (self.root / top).rglob("core*") if _is_core(path)]
        return found


def core_limits(pid: int) -> tuple[str, str]:
    """How large a core dump a process may write now, and at most when it asks for more; none when it has ended."""
    try:
        limits = Path(f"/proc/{pid}/limits").read_text()
    except OSError:
        return "0", "0"
    found = re.search(r"^Max core file size +(\S+) +(\S+) ", limits, re.MULTILINE)
    assert found is not None
    return found[1], found[2]


def _is_core(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(18)
    except OSError:
        return False
    return head[:4] == b"\x7fELF" and head[16:18] == b"\x04\x00"  # ET_CORE


def supervisor_of(directory: Path) -> int:
    """The process id of the supervisor of the session in `directory`."""
    words = b"\0coding_agents.supervisor\0" + os.fsencode(directory) + b"\0"
    (found,) = (
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and words in _of_process(int(entry.name), "cmdline")
    )
    return found


def _space(process: Path) -> str:
    try:
        return str((process / "ns/pid").readlink())
    except OSError:
        return ""


def _of_process(pid: int, kind: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{kind}").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def _in_memory(pid: int, word: bytes) -> bool:
    with suppress(OSError), Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, mode = line.split()[:2]
            start, end = (int(one, 16) for one in span.split("-"))
            if mode.startswith("rw"):
                with suppress(OSError, ValueError, OverflowError):
                    memory.seek(start)
                    while start < end and (data := memory.read(min(1 << 24, end - start))):
                        start += len(data)
                        if word in data:
                            return True
    return False
