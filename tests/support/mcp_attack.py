"""A hostile agent and the server that holds a secret: runs inside as user 1000, tells what the kernel answered.

Standard library only. Its standard output is one JSON object; it judges nothing.
"""

# ruff: noqa: PTH115, PTH123, PTH208
from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

RELAY = ("/usr/bin/python3", "-IS", "/opt/coding-agents/guest.pyz", "mcp")
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "where", "arguments": {"say": "hi"}},
}
PRIVATE = ("environ", "mem", "maps", "smaps", "auxv", "io", "stack", "syscall", "personality", "pagemap")
LINKS = ("cwd", "root", "exe")
_PTRACE_ATTACH, _PTRACE_SEIZE = 16, 0x4206
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    told: dict = {"uid": os.getuid(), "before": servers()}
    started = [start("probe"), start("probe")]
    told["answers"] = [ask(one) for one in started]
    pids = [pid for pid in servers() if pid not in told["before"]]
    told["seen"] = {pid: cmdline(pid) for pid in pids}
    told["opened"] = [f"{pid} {what}" for pid in pids for what in opened(pid)]
    told["done"] = [f"{pid} {what}" for pid in pids for what in done_to(pid)]
    told["homes"] = {str(home): entered(home) for home in sorted(Path("/tmp").glob("mcp-*"))}
    told["alive"] = [ask(one) for one in started]
    for one in started:
        one.stdin.close()
        one.wait(20)
    killed = start("probe")
    ask(killed)
    killed.kill()
    told["other"] = refused("other")
    told["leaky"] = refused("leaky")
    told["no name"] = refused("../probe")
    print(json.dumps(told))


def start(name: str) -> subprocess.Popen:
    pipe = subprocess.PIPE
    return subprocess.Popen((*RELAY, name), stdin=pipe, stdout=pipe, stderr=pipe)


def ask(server: subprocess.Popen) -> str:
    server.stdin.write(json.dumps(CALL).encode() + b"\n")
    server.stdin.flush()
    return server.stdout.readline().decode()


def refused(name: str) -> list:
    server = start(name)
    with suppress(BrokenPipeError):
        out, err = server.communicate(json.dumps(CALL).encode() + b"\n", timeout=30)
        return [server.returncode, out.decode(), err.decode()]
    return [server.wait(30), "", ""]


def servers() -> list:
    """The processes of the servers' user."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if "\nUid:\t1001\t" in (entry / "status").read_text():
                    found.append(entry.name)
    return found


def cmdline(pid: str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def opened(pid: str) -> list:
    """What of /proc/PID that is a process's own could be read."""
    found = []
    for name in (*PRIVATE, *(f"task/{pid}/{name}" for name in PRIVATE)):
        with suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
            file.read(1)
            found.append(name)
    for name in LINKS:
        with suppress(OSError):
            os.readlink(f"/proc/{pid}/{name}")
            found.append(name)
    for name in ("fd", "fdinfo", "map_files", "cwd/", "root/tmp"):
        with suppress(OSError):
            os.listdir(f"/proc/{pid}/{name}")
            found.append(name)
    return found


def done_to(pid: str) -> list:
    """What could be done to a process."""
    found, number = [], int(pid)
    for sent in (0, signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):
        with suppress(PermissionError):
            os.kill(number, sent)
            found.append(f"signal {int(sent)}")
    for request in (_PTRACE_ATTACH, _PTRACE_SEIZE):
        if _libc.ptrace(request, number, None, None) == 0:
            found.append(f"ptrace {request}")
    with suppress(OSError):
        os.sched_setaffinity(number, {0})
        found.append("affinity")
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, number, 19)
        found.append("priority")
    pidfd = _libc.syscall(_PIDFD_OPEN, number, 0)
    if pidfd >= 0 and _libc.syscall(_PIDFD_GETFD, pidfd, 0, 0) >= 0:
        found.append("its descriptor")
    local = ctypes.create_string_buffer(8)
    one = (ctypes.c_ulong * 2)(ctypes.addressof(local), 8)
    if _libc.process_vm_readv(number, one, 1, (ctypes.c_ulong * 2)(0x400000, 8), 1, 0) >= 0:
        found.append("its memory")
    return found


def entered(home: Path) -> list:
    found = [f"{home.stat().st_uid}:{home.stat().st_mode & 0o777:o}"]
    for what, attempt in (
        ("list", lambda: os.listdir(home)),
        ("read", lambda: (home / "state").read_bytes()),
        ("write", lambda: (home / "x").write_bytes(b"x")),
        ("rename", lambda: home.rename("/tmp/taken")),
        ("chmod", lambda: home.chmod(0o777)),
        ("remove", lambda: home.rmdir()),
    ):
        with suppress(OSError):
            attempt()
            found.append(what)
    return found


if sys.argv[-1] != "import":
    main()
