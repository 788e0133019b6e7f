"""What a hostile guest tries. Its whole text is sent into a container and one function of it is run there.

Standard library only, no import of ours, arguments and results are JSON. Nothing here judges: each function
tells what the kernel answered, and the test on the host decides what that means.
"""

# System calls are the subject here, so paths are what the kernel is given:
# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH110, PTH112, PTH116, PTH118, PTH123, PTH208, PTH211

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import platform
import re
import resource
import signal
import socket
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

OPEN, REFUSED, SILENT = "open", "refused", "silent"
_KERNEL_TREES = ("/proc", "/sys", "/dev")
# clone(2): the flag that makes each kind anew.
_NAMESPACES = {"mnt": 0x20000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000,
               "net": 0x40000000, "cgroup": 0x2000000}  # fmt: skip
_libc = ctypes.CDLL(None, use_errno=True)


# --- the file system -----------------------------------------------------------------------------------------


def mounts() -> list[dict[str, str]]:
    """/proc/self/mountinfo (proc_pid_mountinfo(5)): root, point, options, type and source of each mount."""
    found = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            before, after = left.split(), right.split()
            found.append(
                {
                    "root": before[3],
                    "point": before[4],
                    "options": before[5],
                    "type": after[0],
                    "source": after[1],
                }
            )
    return found


def writable_mounts() -> dict[str, str]:
    """The mounts in some directory of which a file can be made, by mount point, with that directory.

    Every directory of every mount is tried, of the kernel's trees only what is no process's own.
    """
    points = sorted((one["point"] for one in mounts()), key=len, reverse=True)
    found: dict[str, str] = {}
    for directory in _directories("/"):
        if re.match(r"/proc/([0-9]+|self|thread-self)(/|$)", directory):
            continue
        if _can_make_a_file(directory):
            point = next(p for p in points if p == "/" or directory == p or directory.startswith(p + "/"))
            found.setdefault(point, directory)
    return found


def refusals_in_the_root() -> dict[str, int]:
    """How making a file was refused, by the error's name, in each directory of the root file system."""
    device = os.lstat("/").st_dev
    counts: dict[str, int] = {}
    for directory in _directories("/"):
        if os.lstat(directory).st_dev != device:
            continue
        answer = _answer(lambda at=directory: os.mkdir(at + "/hostile"))
        counts[answer] = counts.get(answer, 0) + 1
    return counts


def privileged_files() -> list[str]:
    """Programs that would run as somebody else, or with capabilities of their own."""
    found = []
    for directory in _directories("/"):
        for name in _names(directory):
            path = os.path.join(directory, name)
            with suppress(OSError):
                mode = os.lstat(path).st_mode
                if stat.S_ISREG(mode) and (mode & 0o6000 or "security.capability" in os.listxattr(path)):
                    found.append(path)
    return found


def sockets_and_devices() -> dict[str, list[str]]:
    """Every socket, block device and (as "path major:minor") character device in the file system."""
    found: dict[str, list[str]] = {"socket": [], "block": [], "character": []}
    kinds = {stat.S_IFSOCK: "socket", stat.S_IFBLK: "block", stat.S_IFCHR: "character"}
    for directory in _directories("/"):
        for name in _names(directory):
            with suppress(OSError):
                path = os.path.join(directory, name)
                info = os.lstat(path)
                if kind := kinds.get(stat.S_IFMT(info.st_mode)):
                    number = f" {os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
                    found[kind].append(path + (number if kind == "character" else ""))
    return found


def open_for_writing(trees: list[str]) -> list[str]:
    """Files below `trees`, less those of processes, that can be opened for writing. Nothing is written."""
    found = []
    for tree in trees:
        for directory in _directories(tree):
            if re.match(r"/proc/([0-9]+|self|thread-self)(/|$)", directory):
                continue
            for name in _names(directory):
                path = os.path.join(directory, name)
                with suppress(OSError):
                    if stat.S_ISREG(os.lstat(path).st_mode):
                        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                        found.append(path)
    return found


def masked_bytes(paths: list[str]) -> dict[str, int]:
    """How many bytes, or entries of a directory, each of the paths that exist gives away."""
    found = {}
    for path in paths:
        with suppress(FileNotFoundError, PermissionError):
            if os.path.isdir(path):
                found[path] = len(os.listdir(path))
            else:
                with open(path, "rb") as file:
                    found[path] = len(file.read(4096))
    return found


def make_devices(directories: list[str]) -> dict[str, str]:
    """The answer to mknod of /dev/mem, a disk and a harmless null in each directory."""
    nodes = {
        "hostile-mem": (stat.S_IFCHR | 0o666, os.makedev(1, 1)),
        "hostile-disk": (stat.S_IFBLK | 0o666, os.makedev(8, 0)),
        "hostile-null": (stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    }
    return {
        f"{directory}/{name}": _answer(lambda p=f"{directory}/{name}", node=node: os.mknod(p, *node))
        for directory in directories
        for name, node in nodes.items()
    }


def replace_in(directory: str, name: str) -> dict[str, str]:
    """All ways to put something else where `directory`/`name` is."""
    path = f"{directory}/{name}"
    mine = f"{directory if _can_make_a_file(directory) else '/tmp'}/mine-{os.getpid()}"
    with open(mine, "w") as file:
        file.write("hostile")
    tries: dict[str, Callable[[], object]] = {
        "write": lambda: os.close(os.open(path, os.O_WRONLY)),
        "truncate": lambda: os.truncate(path, 0),
        "chmod": lambda: os.chmod(path, 0o777),
        "chown": lambda: os.chown(path, 1000, 1000),
        "unlink": lambda: os.unlink(path),
        "rename away": lambda: os.rename(path, f"{path}.old"),
        "rename over": lambda: os.rename(mine, path),
        "link over": lambda: os.link(mine, path),
        "symlink over": lambda: os.symlink(mine, path),
        "bind over": lambda: _bind(path),
        "exchange": lambda: _call("renameat2", -100, mine.encode(), -100, path.encode(), 2),
        "rename the directory": lambda: os.rename(directory, f"{directory}.old"),
        "remove the directory": lambda: os.rmdir(directory),
        "chmod of the directory": lambda: os.chmod(directory, 0o777),
        "mount over": lambda: _call("mount", mine.encode(), path.encode(), None, 4096, None),
    }
    answers = {name: _answer(one) for name, one in tries.items()}
    with suppress(OSError):
        os.unlink(mine)
    return answers


def find_text(backwards: str) -> list[str]:
    """Every place that can be read and holds the text, which comes backwards so as not to find ourselves.

    Environments, arguments and mounts of all processes, and all files but the kernel's and the image's own.
    """
    wanted, image = backwards[::-1].encode(), os.lstat("/").st_dev
    processes = [f"/proc/{pid}/{name}" for pid in _pids() for name in ("environ", "cmdline", "mountinfo")]
    files = (
        os.path.join(directory, name)
        for directory in _directories("/")
        if not directory.startswith(_KERNEL_TREES)
        and (directory == "/etc" or os.lstat(directory).st_dev != image)
        for name in _names(directory)
    )
    return [path for path in (*processes, *files) if _holds(path, wanted)]


def digest(path: str) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def sizes(points: list[str]) -> dict[str, int]:
    """Bytes of the file systems at the mount points."""
    found = {point: os.statvfs(point) for point in points}
    return {point: one.f_blocks * one.f_frsize for point, one in found.items()}


def fill(directory: str) -> int:
    """How many bytes a file in `directory` takes before the kernel refuses more (at most 64 MiB); removed then."""
    path, written, block = f"{directory}/filling", 0, b"x" * 65536
    try:
        with open(path, "wb", buffering=0) as file, suppress(OSError):
            while written < 64 << 20:
                written += file.write(block)
    finally:
        os.unlink(path)
    return written


# --- privileges ----------------------------------------------------------------------------------------------


def statuses() -> list[dict[str, str]]:
    """/proc/PID/status of every process, our own among them."""
    found = []
    for pid in _pids():
        with suppress(OSError), open(f"/proc/{pid}/status") as file:
            lines = (line.rstrip("\n").split(":\t", 1) for line in file)
            found.append({line[0]: line[1].strip() for line in lines if len(line) == 2})
    return found


def become_root() -> dict[str, str]:
    """The answers to the calls and programs that make root of somebody."""
    tries: dict[str, Callable[[], object]] = {
        "setuid": lambda: os.setuid(0),
        "setresuid": lambda: os.setresuid(0, 0, 0),
        "setgid": lambda: os.setgid(0),
        "setgroups": lambda: os.setgroups([0]),
        "become the bridge": lambda: os.setuid(1002),
        "capset": _raise_capabilities,
        "ambient": lambda: _call("prctl", 47, 2, 12, 0, 0),
        "clear no-new-privs": lambda: _call("prctl", 38, 0, 0, 0, 0),
    }
    programs = {"sudo": ("sudo", "-n", "id"), "su": ("su", "-c", "id"), "newgrp": ("newgrp", "root"),
                "pkexec": ("pkexec", "id"), "setpriv": ("setpriv", "--reuid=0", "id"),
                "chroot": ("chroot", "/", "id")}  # fmt: skip
    return {name: _answer(one) for name, one in tries.items()} | {
        name: _program(argv) for name, argv in programs.items()
    }


def leave_the_container() -> dict[str, str]:
    """The answers to the calls that change namespaces and mounts, or reach the kernel.

    Each is worded so that it would do no harm, or fail with another error than a refusal, if it were allowed.
    """
    calls: dict[str, tuple[object, ...]] = {
        "mount": ("mount", b"none", b"/tmp", b"tmpfs", 0, None),
        "remount": ("mount", b"none", b"/", None, 32 | 4096, None),  # MS_REMOUNT | MS_BIND, without MS_RDONLY
        "umount": ("umount2", b"/opt/coding-agents", 2),
        "pivot_root": ("pivot_root", b"/tmp", b"/tmp"),
        "chroot": ("chroot", b"/tmp"),
        "hostname": ("sethostname", b"hostile", 7),
        "module": ("init_module", None, 0, b""),
        "handle": ("open_by_handle_at", -100, None, 0),
        "swap": ("swapon", b"/tmp", 0),
        "reboot": ("reboot", 0),
        "accounting": ("acct", b"/tmp/none"),
        "kernel log": ("klogctl", 10, None, 0),
        "mount_setattr": (
            442,
            -100,
            b"/",
            0,
            (ctypes.c_uint64 * 4)(0, 1, 0, 0),
            32,
        ),  # clear MOUNT_ATTR_RDONLY
        "fsopen": (430, b"tmpfs", 0),
        "open_tree": (428, -100, b"/", 1),
    }
    if platform.machine() == "x86_64":
        calls |= {"kexec": (246, 0, 0, None, 0), "bpf": (321, 0, None, 0), "ports": ("iopl", 3)}
    found = {name: _answer(lambda c=call: _call(*c)) for name, call in calls.items()}
    for name, flag in _NAMESPACES.items():
        found[f"unshare {name}"] = _in_a_child(lambda f=flag: _call("unshare", f))
        found[f"join {name}"] = _in_a_child(lambda n=name, f=flag: _join(f"/proc/1/ns/{n}", f))
    return found


def use_a_user_namespace() -> dict[str, str]:
    """What root of a user namespace of its own is told; every answer EPERM where none can be made."""

    def enter() -> None:
        _call("unshare", 0x10000000 | 0x20000)  # CLONE_NEWUSER | CLONE_NEWNS

    def inside(attempt: Callable[[], object]) -> Callable[[], object]:
        return lambda: (enter(), attempt())

    bridges = pids_of(1002)
    tries: dict[str, Callable[[], object]] = {
        "write the root": lambda: _call("mount", b"none", b"/", None, 32 | 4096, None),
        "write the guest": lambda: _call("mount", b"none", b"/opt/coding-agents", None, 32 | 4096, None),
        "uncover the guest": lambda: _call("umount2", b"/opt/coding-agents", 2),
        "make a file": lambda: os.mkdir("/etc/hostile"),
        "remove a socket": lambda: os.unlink("/run/coding-agents/relay.sock"),
        "trace the first process": lambda: _call("ptrace", 0x4206, 1, None, None),
        "end the bridge": lambda: [os.kill(pid, signal.SIGKILL) for pid in bridges],
        "a device": lambda: os.mknod("/tmp/hostile-mem", stat.S_IFCHR | 0o666, os.makedev(1, 1)),
        "the host's name": lambda: _call("sethostname", b"hostile", 7),
        "the host's network": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close(),
    }
    return {name: _in_a_child(inside(attempt)) for name, attempt in tries.items()}


def attack_process(pid: int) -> dict[str, str]:
    """The answers to reading, tracing and joining another process."""
    buffer = ctypes.create_string_buffer(8)
    span = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    tries: dict[str, Callable[[], object]] = {
        "attach": lambda: _call("ptrace", 16, pid, None, None),
        "seize": lambda: _call("ptrace", 0x4206, pid, None, None),
        "read memory": lambda: _call("process_vm_readv", pid, span, 1, span, 1, 0),
        "write memory": lambda: _call("process_vm_writev", pid, span, 1, span, 1, 0),
        "mem": lambda: os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR)),
        "environ": lambda: os.close(os.open(f"/proc/{pid}/environ", os.O_RDONLY)),
        "root": lambda: os.listdir(f"/proc/{pid}/root/"),
        "fds": lambda: os.listdir(f"/proc/{pid}/fd"),
        "take a descriptor": lambda: _take_descriptor(pid),
        "oom score": lambda: os.close(os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY)),
    }
    return {name: _answer(one) for name, one in tries.items()}


def signal_process(pid: int, signals: list[int]) -> list[str]:
    """The answers to sending each signal."""
    return [_answer(lambda n=number: os.kill(pid, n)) for number in signals]


def starve_process(pid: int) -> str:
    """The answer to taking all file descriptors from another process of our uid: the kernel allows it."""
    return _answer(lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 3)))


def squat(directory: str, names: list[str], timeout_s: float) -> list[str]:
    """Put a socket of ours at each free name of the directory as soon as it is free; gives the answers."""
    answers = []
    for name in names:
        end = time.monotonic() + timeout_s
        while os.path.lexists(f"{directory}/{name}") and time.monotonic() < end:
            with suppress(OSError):
                os.unlink(f"{directory}/{name}")
            time.sleep(0.01)
        answers.append(_answer(lambda path=f"{directory}/{name}": _bind(path)))
    return answers


def pids_of(uid: int) -> list[int]:
    """The processes of a user."""
    found = []
    for pid in _pids():
        with suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == uid or _real_uid(pid) == uid:
                found.append(pid)
    return found


# --- resources -----------------------------------------------------------------------------------------------


def limits() -> dict[str, int]:
    """The cgroup's limits as the kernel words them: bytes, processes, and CPU microseconds a 100 000."""
    files = {
        "memory": ("memory.max", "memory/memory.limit_in_bytes"),
        "memory and swap": ("", "memory/memory.memsw.limit_in_bytes"),
        "swap": ("memory.swap.max", ""),
        "pids": ("pids.max", "pids/pids.max"),
        "cpu quota": ("", "cpu/cpu.cfs_quota_us"),
        "cpu period": ("", "cpu/cpu.cfs_period_us"),
        "cpu": ("cpu.max", ""),
    }
    version = 0 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1
    found = {}
    for name, paths in files.items():
        with suppress(OSError, IndexError):
            if paths[version]:
                with open(f"/sys/fs/cgroup/{paths[version]}") as file:
                    words = file.read().split()
                found.update({name: int(words[0])} if len(words) == 1 else
                             {"cpu quota": int(words[0]), "cpu period": int(words[1])})  # fmt: skip
    return found


def bomb(most: int, hold_s: float) -> dict[str, object]:
    """Fork until the kernel refuses (or `most`), stay so for a while, then end the children again."""
    children: list[int] = []
    refused = ""
    while len(children) < most and not refused:
        try:
            child = os.fork()
        except OSError as error:
            refused = errno.errorcode[error.errno or 0]
            break
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
    time.sleep(hold_s)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return {"children": len(children), "refused": refused}


def hoard(most_bytes: int) -> int:
    """Take memory and touch it; returns how much there was, if one lives to tell."""
    held = []
    for _ in range(most_bytes >> 24):
        held.append(b"x" * (1 << 24))
    return len(held) << 24


# --- the network ---------------------------------------------------------------------------------------------


def knock(targets: list[list[object]], timeout_s: float) -> dict[str, list[object]]:
    """Try each [protocol, address, port]; gives "protocol address port" to [open|refused|silent, seconds, detail].

    Protocols are tcp, udp (a datagram and its echo) and icmp (an echo request; the port does not matter).
    """
    found: dict[str, list[object]] = {}
    for protocol, address, port in targets:
        began = time.monotonic()
        try:
            _KNOCKS[str(protocol)](str(address), int(str(port)), timeout_s)
            answer, detail = OPEN, ""
        except TimeoutError:
            answer, detail = SILENT, ""
        except OSError as error:
            answer, detail = REFUSED, errno.errorcode.get(error.errno or 0, str(error))
        found[f"{protocol} {address} {port}"] = [answer, time.monotonic() - began, detail]
    return found


def resolve(name: str) -> list[str]:
    """The IPv4 addresses of `name`, by the way that every program takes."""
    found = socket.getaddrinfo(name, 80, family=socket.AF_INET, type=socket.SOCK_STREAM)
    return sorted({str(address[4][0]) for address in found})


def interfaces() -> dict[str, list[str]]:
    """Names of the interfaces, and the lines of the routing tables."""
    with open("/proc/net/route") as file:
        routes = file.read().splitlines()[1:]
    with suppress(FileNotFoundError), open("/proc/net/ipv6_route") as file:
        routes += [line for line in file.read().splitlines() if line.split()[-1] != "lo"]
    return {"interfaces": [name for _, name in socket.if_nameindex()], "routes": routes}


def pump(address: str, port: int, way: str) -> float:
    """Seconds that it takes to get a megabyte from there ("d") or to send one ("u")."""
    with socket.create_connection((address, port), timeout=30) as connection:
        began = time.monotonic()
        connection.sendall(b"d" if way == "d" else b"u" + bytes(1 << 20))
        left = 1 << 20 if way == "d" else 1
        if way == "u":
            connection.shutdown(socket.SHUT_WR)
        while left > 0:
            left -= len(connection.recv(1 << 16))
        return time.monotonic() - began


def change_the_network() -> dict[str, str]:
    """The answers to whatever could get round the rules of the network namespace."""
    programs = {
        "flush": ("nft", "flush", "ruleset"),
        "list": ("nft", "list", "ruleset"),
        "table": ("nft", "delete", "table", "inet", "coding_agents_guard"),
        "iptables": ("iptables", "-F"),
        "route": ("ip", "route", "add", "10.0.0.0/8", "dev", "lo"),
        "rule": ("ip", "rule", "add", "from", "all", "table", "7"),
        "address": ("ip", "address", "add", "10.9.9.9/32", "dev", "lo"),
        "link": ("ip", "link", "add", "hostile0", "type", "dummy"),
        "down": ("ip", "link", "set", "lo", "down"),
    }

    def set_mark() -> None:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, 36, 1)

    tries: dict[str, Callable[[], object]] = {
        "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close(),
        "raw icmp": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(),
        "raw tcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255).close(),
        "raw ipv6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58).close(),
        "mark": set_mark,
        "forward": lambda: os.close(os.open("/proc/sys/net/ipv4/ip_forward", os.O_WRONLY)),
    }
    return {name: _program(argv) for name, argv in programs.items()} | {
        name: _answer(one) for name, one in tries.items()
    }


def _knock_tcp(address: str, port: int, timeout_s: float) -> None:
    with socket.create_connection((address, port), timeout_s) as one:
        if one.recv(5) != b"hello":
            raise ConnectionError("somebody else")


def _knock_udp(address: str, port: int, timeout_s: float) -> None:
    with socket.socket(_family(address), socket.SOCK_DGRAM) as one:
        one.settimeout(timeout_s)
        one.connect(_resolved(address, port))
        one.send(b"hello")
        one.recv(5)


def _knock_icmp(address: str, _port: int, timeout_s: float) -> None:
    six = ":" in address
    with socket.socket(_family(address), socket.SOCK_DGRAM, 58 if six else 1) as one:
        one.settimeout(timeout_s)
        one.setsockopt(
            41 if six else 0, 25 if six else 11, 1
        )  # IPV6_RECVERR, IP_RECVERR: tell what came back
        one.connect(_resolved(address, 0))
        one.send(struct.pack("!BBHHH", 128 if six else 8, 0, 0, 0, 1))
        one.recv(64)


_KNOCKS = {"tcp": _knock_tcp, "udp": _knock_udp, "icmp": _knock_icmp}


def _resolved(address: str, port: int) -> tuple[object, ...]:
    """The address as the kernel wants it, with the number of the interface after its `%`."""
    return socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4]


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


# --- how it is done ------------------------------------------------------------------------------------------


def _answer(attempt: Callable[[], object]) -> str:
    """Empty when the attempt succeeded, else the name of the kernel's error."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return ""


def _program(argv: tuple[str, ...]) -> str:
    """Empty when the program did its work, else how it ended."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    return "" if done.returncode == 0 else f"status {done.returncode}"


def _call(what: object, *arguments: object) -> int:
    """A C function by its name, or a system call by its number. Raises OSError when it returns -1."""
    function, given = (
        (_libc.syscall, (what, *arguments)) if isinstance(what, int) else (_libc[what], arguments)
    )
    result = function(*given)
    if result == -1:
        raise OSError(ctypes.get_errno(), str(what))
    return int(result)


def _in_a_child(attempt: Callable[[], object]) -> str:
    """`_answer` in a process of its own, which is over when its namespaces have changed."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writable, _answer(attempt).encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def _join(path: str, kind: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _call("setns", descriptor, kind)
    finally:
        os.close(descriptor)


def _take_descriptor(pid: int) -> None:
    handle = _call(434, pid, 0)  # pidfd_open
    try:
        _call(438, handle, 0, 0)  # pidfd_getfd
    finally:
        os.close(handle)


def _raise_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    full = (ctypes.c_uint32 * 6)(*([0xFFFFFFFF] * 6))
    _call("capset", header, full)


def _bind(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path)


def _can_make_a_file(directory: str) -> bool:
    path = f"{directory}/hostile-{os.getpid()}"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError:
        return False
    os.unlink(path)
    return True


def _directories(top: str) -> Iterator[str]:
    """All directories that can be reached, links not followed."""
    for directory, names, _ in os.walk(top):
        names.sort()
        yield directory


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _holds(path: str, wanted: bytes) -> bool:
    try:
        if path.startswith("/proc/") or stat.S_ISREG(os.lstat(path).st_mode):
            with open(path, "rb") as file:
                return wanted in file.read()
    except OSError:
        pass
    return False


def _pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def _real_uid(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Uid:"))
