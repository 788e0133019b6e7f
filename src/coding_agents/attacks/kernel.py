"""Attacks on the kernel: namespaces, mounts, and its large, young or shared parts.

Each call is worded so that it would do no harm, or fail with another error than a refusal, if it were allowed.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import signal
import socket
import stat
from collections.abc import Callable

from coding_agents.attacks.answers import answer_of, in_a_child, kernel_call
from coding_agents.attacks.processes import pids_of

_MACHINE = platform.machine() == "x86_64"
# clone(2): the flag that makes each kind anew.
_NAMESPACES = {"mnt": 0x20000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000,
               "net": 0x40000000, "cgroup": 0x2000000}  # fmt: skip
# The kernel's tables (asm/unistd_64.h, asm-generic/unistd.h): numbers, as libc has no names for most.
_CALLS: dict[str, tuple[int, int, tuple[object, ...]]] = {
    "io_uring_setup": (425, 425, (1, None)),
    "io_uring_enter": (426, 426, (-1, 0, 0, 0, None, 0)),
    "io_uring_register": (427, 427, (-1, 0, None, 0)),
    "bpf": (321, 280, (0, None, 0)),
    "perf_event_open": (298, 241, (None, 0, -1, -1, 0)),
    "userfaultfd": (323, 282, (0,)),
    "keyctl": (250, 219, (0, 0, 0, 0, 0)),
    "add_key": (248, 217, (None, None, None, 0, 0)),
    "request_key": (249, 218, (None, None, None, 0)),
    "ptrace a child": (101, 117, (0, 0, 0, 0)),
    "process_vm_readv": (310, 270, (1, None, 0, None, 0, 0)),
    "process_vm_writev": (311, 271, (1, None, 0, None, 0, 0)),
    "process_madvise": (440, 440, (-1, None, 0, 0, 0)),
    "pidfd_getfd": (438, 438, (-1, 0, 0)),
    "kcmp": (312, 272, (1, 1, 0, 0, 0)),
    "name_to_handle_at": (303, 264, (-100, b"/", None, None, 0)),
    "open_by_handle_at": (304, 265, (-100, None, 0)),
    "fanotify_init": (300, 262, (0, 0)),
    "quotactl": (179, 60, (0, None, 0, None)),
    "memfd_secret": (447, 447, (0x7FFFFFFF,)),
    "modify_ldt": (154, -1, (0, None, 0)),
    "vmsplice": (278, 75, (-1, None, 0, 0)),
    "kexec_file_load": (320, 294, (-1, -1, 0, None, 0)),
    "clone3": (435, 435, (None, 0)),
    "statmount": (457, 457, (None, None, 0, 0)),
    "personality": (135, 92, (0x40000,)),
}
_FAMILIES = {
    "AF_VSOCK": 40, "AF_ALG": 38, "AF_BLUETOOTH": 31, "AF_PACKET": 17, "AF_CAN": 29, "AF_XDP": 44, "AF_KEY": 15,
    "AF_TIPC": 30, "AF_RDS": 21, "AF_NFC": 39, "AF_KCM": 41, "AF_QIPCRTR": 42, "AF_SMC": 43,
}  # fmt: skip
_NETLINK = {
    "netfilter": 12,
    "generic": 16,
    "audit": 9,
    "xfrm": 6,
    "uevent": 15,
    "crypto": 21,
    "connector": 11,
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
    found = {name: in_a_child(lambda c=one: kernel_call(*c)) for name, one in calls.items()}
    for name, flag in _NAMESPACES.items():
        found[f"unshare {name}"] = in_a_child(lambda f=flag: kernel_call("unshare", f))
        found[f"join {name}"] = in_a_child(lambda n=name, f=flag: _join(f"/proc/1/ns/{n}", f))
    return found


def use_a_user_namespace() -> dict[str, str]:
    """What root of a user namespace of its own is told; every answer EPERM where none can be made."""

    def enter() -> None:
        kernel_call("unshare", 0x10000000 | 0x20000)  # CLONE_NEWUSER | CLONE_NEWNS

    def inside(attempt: Callable[[], object]) -> Callable[[], object]:
        return lambda: (enter(), attempt())

    bridges = pids_of(1002)
    tries: dict[str, Callable[[], object]] = {
        "write the root": lambda: kernel_call("mount", b"none", b"/", None, 32 | 4096, None),
        "write the guest": lambda: kernel_call(
            "mount", b"none", b"/opt/coding-agents", None, 32 | 4096, None
        ),
        "uncover the guest": lambda: kernel_call("umount2", b"/opt/coding-agents", 2),
        "make a file": lambda: os.mkdir("/etc/hostile"),
        "remove a socket": lambda: os.unlink("/run/coding-agents/relay.sock"),
        "trace the first process": lambda: kernel_call("ptrace", 0x4206, 1, None, None),
        "end the bridge": lambda: [os.kill(pid, signal.SIGKILL) for pid in bridges],
        "a device": lambda: os.mknod("/tmp/hostile-mem", stat.S_IFCHR | 0o666, os.makedev(1, 1)),
        "the host's name": lambda: kernel_call("sethostname", b"hostile", 7),
        "the host's network": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close(),
    }
    return {name: in_a_child(inside(attempt)) for name, attempt in tries.items()}


def reach_the_kernel() -> dict[str, str]:
    """The answers to calls and sockets that lead to large, young or shared parts of the kernel."""
    tries: dict[str, Callable[[], object]] = {}
    for name, (here, there, arguments) in _CALLS.items():
        number = here if _MACHINE else there
        if number >= 0:
            tries[name] = lambda n=number, a=arguments: kernel_call(n, *a)
    for name, family in _FAMILIES.items():
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            tries[f"{name} {kind.name}"] = lambda f=family, k=kind: socket.socket(f, k).close()
    for name, protocol in _NETLINK.items():
        tries[f"netlink {name}"] = lambda p=protocol: socket.socket(16, socket.SOCK_RAW, p).close()
    for name, command in {"TIOCSTI": 0x5412, "the same with a higher bit": 0x1_0000_5412}.items():
        tries[name] = lambda c=command: kernel_call(16 if _MACHINE else 29, 0, ctypes.c_ulong(c), b"x")
    return {name: answer_of(one) for name, one in tries.items()}


def call_by_another_abi() -> list[str]:
    """How two children end that make a call by the numbers of i386, and by those of x32."""
    if not _MACHINE:
        return ["SIGSYS", "SIGSYS"]  # aarch64 has neither
    ends = []
    for code in (
        b"\xb8\x14\x00\x00\x00\xcd\x80\xc3",  # mov eax, 20 (getpid of i386); int 0x80; ret
        b"\xb8\x27\x00\x00\x40\x0f\x05\xc3",  # mov eax, 39 | 0x40000000 (getpid of x32); syscall; ret
    ):
        child = os.fork()
        if child == 0:
            page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
            page.write(code)
            ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        ends.append(signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "lived")
    return ends


def _join(path: str, kind: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        kernel_call("setns", descriptor, kind)
    finally:
        os.close(descriptor)
