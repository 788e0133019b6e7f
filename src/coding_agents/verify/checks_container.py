"""Checks of the container's own walls: files, privileges, kernel, processes, limits, secrets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from coding_agents.model.limits import MIB
from coding_agents.sandbox.spec import SOCKETS, scratch
from coding_agents.verify.judges import (
    PASSED,
    equal,
    failed,
    holds,
    not_done,
    nothing,
    only,
    refused,
    worked,
)
from coding_agents.verify.model import Check, Judge, Verdict
from coding_agents.verify.scene import SOCKET_NAMES, Scene

CONTAINER: Final = "container-and-kernel"
SAME_UID: Final = "same-uid"
WRITABLE: Final = frozenset(
    {"/workspace", "/home/agentuser", "/tmp", "/var/tmp", SOCKETS, "/dev/shm", "/dev/mqueue"}  # noqa: S108
)
# Numbers of the kernel (Documentation/admin-guide/devices.txt): none leads to hardware or a disk.
_DEVICES: Final = frozenset({"1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:2"})
_HARMLESS: Final = frozenset(f"/proc/pressure/{name}" for name in ("cpu", "io", "memory", "irq"))
# Directories of a session's own file system, where it has one.
_OWN_DISK: Final = frozenset({("/workspace", "/workspace"), ("/home", "/home/agentuser")})
_KERNEL_FILE_SYSTEMS: Final = frozenset({"proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"})
_ENGINE_FILES: Final = frozenset({"/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/run/.containerenv"})
_VARIABLES: Final = frozenset(
    {"HOME", "LANG", "PATH", "PWD", "HOSTNAME", "TERM", "container", "SHLVL", "_", "OLDPWD", "LC_CTYPE"}
)
_SECCOMP: Final = "the seccomp profile"
_CAPS: Final = "no capabilities"


def container_checks(scene: Scene) -> Iterator[Check]:
    """All of them, with what is right for the scene."""
    yield from _files()
    yield from _privileges()
    yield from _kernel()
    yield from _processes()
    yield from _limits(scene)
    yield from _secrets()


def _check(id: str, evidence: str, tried: str, stopped_by: str, judge: Judge, **more: Any) -> Check:
    more.setdefault("group", CONTAINER)
    return Check(id=id, evidence=evidence, tried=tried, stopped_by=stopped_by, judge=judge, **more)


def _files() -> Iterator[Check]:
    ours, image = {"baseline": False}, "programs without setuid bits in the image"
    root = "the read-only root file system"
    yield _check("files.work", "everyday", "make, change, rename and remove files where the agent works",
                 "nothing: this must work", worked, **ours)  # fmt: skip
    yield _check("files.outside", "writable", "make a file in every directory of every mount", root,
                 only(WRITABLE, "files can be made below"))  # fmt: skip
    yield _check("files.root-read-only", "root", "make a directory in every directory of the root", root,
                 holds(lambda counts: set(counts) == {"EROFS"}, "it was answered"))  # fmt: skip
    yield _check("files.setuid", "privileged", "find a program with setuid, setgid or capabilities", image,
                 nothing("found"))  # fmt: skip
    yield _check("files.host-paths", "mounts", "find a directory or file of the host among the mounts",
                 "no bind mount exists in the launcher", _no_host_path)  # fmt: skip
    yield _check("files.engine-socket", "nodes", "find a socket of an engine or of the host", "nothing is mounted",
                 _no_foreign_socket)  # fmt: skip
    yield _check("files.disks", "nodes", "find a disk", "the devices cgroup and an empty /dev",
                 lambda found: nothing("found")(found["block"]))  # fmt: skip
    yield _check("files.devices", "nodes", "find a device that leads to hardware", "the devices of the engine's /dev",
                 _harmless_devices)  # fmt: skip
    yield _check("files.mknod", "make devices", "make a node for memory, a disk and null in each writable directory",
                 _CAPS, refused())  # fmt: skip
    yield _check("files.proc-sys-writes", "kernel files", "open every file of /proc and /sys for writing",
                 "read-only /proc/sys and /sys", only(_HARMLESS, "opened for writing"))  # fmt: skip
    yield _check("files.masked", "masked", "read kernel memory, keys, timers and firmware through /proc and /sys",
                 "masked paths",
                 holds(lambda sizes: set(sizes.values()) <= {0}, "they give something away"))  # fmt: skip
    yield _check("files.guest-program", "guest", "replace the program that runs first at each start, in 15 ways",
                 "a read-only volume of root's", not_done(), group=SAME_UID, **ours)  # fmt: skip


def _no_host_path(mounts: Any) -> Verdict:
    """Volumes of ours, files that the engine writes itself, and file systems of the kernel's: no other root."""
    strange = []
    for mount in mounts:
        root, point, kind = mount["root"], mount["point"], mount["type"]
        masked = point.startswith(("/proc/", "/sys/")) and root in ("/", "/null")
        own_disk = mount["source"].startswith("/dev/loop") and (root, point) in _OWN_DISK
        ours = own_disk or ("/volumes/" in root and root.endswith("/_data"))
        if point in _ENGINE_FILES or masked or ours or kind in _KERNEL_FILE_SYSTEMS:
            continue
        if root != "/" or kind not in ("tmpfs", "overlay", "fuse.fuse-overlayfs", "btrfs", "zfs"):
            strange.append(f"{point} ({kind} {root})")
    return failed(f"mounted: {', '.join(strange)[:300]}") if strange else PASSED


def _no_foreign_socket(found: Any) -> Verdict:
    known = {f"{SOCKETS}/{name}" for name in SOCKET_NAMES}
    return only(known, "found")([path for path in found["socket"] if not path.startswith("/tmp/")])  # noqa: S108


def _harmless_devices(found: Any) -> Verdict:
    strange = [
        one for one in found["character"] if one.rsplit(" ", 1)[1] not in _DEVICES and "/dev/pts/" not in one
    ]
    return only(set(), "found")([one for one in strange if " 136:" not in one])


def _privileges() -> Iterator[Check]:
    for id, field, wanted, tried, by in (
        ("privileges.capabilities", "Cap", "", "find a process with a capability in any of its five sets", _CAPS),
        ("privileges.no-new-privileges", "NoNewPrivs", "1", "find a process that may gain privileges",
         "no-new-privileges"),
        ("privileges.seccomp", "Seccomp", "2", "find a process without a system call filter", _SECCOMP),
    ):  # fmt: skip
        yield _check(id, "statuses", tried, by, _every_process(field, wanted))
    yield _check("privileges.user", "statuses", "find a process that is root's", "uid 1000, and 1002 for our sockets",
                 _no_root)  # fmt: skip
    yield _check("privileges.setuid-calls", "become root", "become root by setuid, setresuid, setgid, setgroups",
                 _CAPS, not_done("setuid", "setresuid", "setgid", "setgroups"))  # fmt: skip
    yield _check("privileges.other-user", "become root", "become the user of our sockets", _CAPS,
                 not_done("become the bridge"))  # fmt: skip
    yield _check("privileges.raise", "become root", "raise capabilities: capset, ambient set, no_new_privs off",
                 _CAPS, not_done("capset", "ambient", "clear no-new-privs"))  # fmt: skip
    yield _check("privileges.programs", "become root", "sudo, su, newgrp, pkexec, setpriv, chroot",
                 "no setuid program, no-new-privileges",
                 not_done("sudo", "su", "newgrp", "pkexec", "setpriv", "chroot"))  # fmt: skip


def _every_process(field: str, wanted: str) -> Judge:
    def judge(statuses: Any) -> Verdict:
        for status in map(_settled, statuses):
            for key, value in status.items():
                if key.startswith(field) and key != "Seccomp_filters" and value.lstrip("0") != wanted:
                    return failed(f"process {status['Pid']} ({status['Name']}) has {key} {value}")
        return PASSED if statuses else Verdict("unknown", "no process was seen")

    return judge


def _settled(status: Any) -> dict[str, str]:
    """The status of a process; nothing of one that is still the runtime's own, about to become one of `exec`."""
    return {} if status["Name"].startswith(("runc", "crun")) else dict(status)


def _no_root(statuses: Any) -> Verdict:
    users = {
        uid for one in map(_settled, statuses) if one for uid in (one["Uid"] + "\t" + one["Gid"]).split()
    }
    if not users:
        return Verdict("unknown", "no process was seen")
    return only({"1000", "1001", "1002"}, "processes run with id")(users)


_KERNEL_CALLS: Final = (
    ("kernel.uring", ("io_uring_setup", "io_uring_enter", "io_uring_register"), "io_uring"),
    ("kernel.bpf", ("bpf",), "bpf"),
    ("kernel.perf", ("perf_event_open",), "perf events"),
    ("kernel.userfaultfd", ("userfaultfd",), "userfaultfd"),
    ("kernel.keys", ("keyctl", "add_key", "request_key"), "the kernel's keys"),
    ("kernel.trace", ("ptrace a child", "process_vm_readv", "process_vm_writev", "process_madvise"),
     "tracing and memory of processes"),
    ("kernel.descriptors", ("pidfd_getfd", "kcmp"), "descriptors of other processes"),
    ("kernel.handles", ("name_to_handle_at", "open_by_handle_at"), "files by their handles (Shocker)"),
    ("kernel.fanotify", ("fanotify_init",), "watching all files"),
    ("kernel.rare-calls", ("quotactl", "memfd_secret", "vmsplice", "statmount", "personality"), "rarely used calls"),
    ("kernel.kexec", ("kexec_file_load",), "another kernel"),
    ("kernel.vsock", ("AF_VSOCK",), "the hypervisor's sockets"),
    ("kernel.packet", ("AF_PACKET", "AF_XDP"), "packet sockets"),
    ("kernel.crypto-sockets", ("AF_ALG", "AF_KEY"), "sockets of the kernel's cryptography"),
    ("kernel.rare-sockets", ("AF_BLUETOOTH", "AF_CAN", "AF_TIPC", "AF_RDS", "AF_NFC", "AF_KCM", "AF_QIPCRTR",
                             "AF_SMC"), "sockets of rare protocols"),
    ("kernel.netlink", ("netlink netfilter", "netlink generic", "netlink audit", "netlink xfrm", "netlink uevent",
                        "netlink crypto", "netlink connector"), "netlink but for the list of interfaces"),
    ("kernel.terminal-input", ("TIOCSTI", "the same with a higher bit"), "typing into the terminal (TIOCSTI)"),
)  # fmt: skip

_LEAVE: Final = (
    ("kernel.mount", ("mount", "remount", "umount", "pivot_root"), "mount, remount and unmount"),
    ("kernel.new-mounts", ("mount_setattr", "fsopen", "open_tree"), "the new mount calls"),
    ("kernel.modules", ("module",), "load a module"),
    ("kernel.chroot", ("chroot",), "change the root directory"),
    ("kernel.host-settings", ("hostname", "swap", "reboot", "accounting", "kernel log"), "change or read the host's"),
)  # fmt: skip
_NAMESPACES: Final = ("mnt", "uts", "ipc", "user", "pid", "net", "cgroup")


def _kernel() -> Iterator[Check]:
    for id, names, what in _KERNEL_CALLS:
        yield _check(id, "kernel", f"use {what}", _SECCOMP, refused(*names))
    for id, names, what in _LEAVE:
        yield _check(id, "leave", what, f"{_SECCOMP}, {_CAPS}", refused(*names))
    yield _check("kernel.raw-io", "leave", "reach ports and the kernel's own loader", f"{_SECCOMP}, {_CAPS}",
                 _if_there("kexec", "ports"))  # fmt: skip
    yield _check("kernel.namespaces", "leave", "make a namespace of each kind", _SECCOMP,
                 refused(*(f"unshare {name}" for name in _NAMESPACES)))  # fmt: skip
    yield _check("kernel.join-namespaces", "leave", "join the namespaces of the first process", _SECCOMP,
                 refused(*(f"join {name}" for name in _NAMESPACES)))  # fmt: skip
    yield _check("kernel.user-namespace", "user namespace", "be root of a user namespace, and use it", _SECCOMP,
                 refused())  # fmt: skip
    yield _check("kernel.other-abi", "other abi", "call by the numbers of i386 and x32", _SECCOMP,
                 equal(["SIGSYS", "SIGSYS"], "the programs ended with"))  # fmt: skip


def _if_there(*names: str) -> Judge:
    """`refused` for calls that another machine's kernel does not have."""

    def judge(answers: Any) -> Verdict:
        here = [name for name in names if name in answers]
        return refused(*here)(answers) if here else Verdict("passed", "this machine has none")

    return judge


def _processes() -> Iterator[Check]:
    ours = {"group": SAME_UID, "baseline": False}
    yield _check("processes.first", "first process", "read, write, trace and join the first process",
                 "it is not dumpable; the seccomp profile", refused(), group=SAME_UID)  # fmt: skip
    yield _check("processes.bridge", "bridge", "read, write, trace and join the process behind our sockets",
                 "it is another user's", refused(), **ours)  # fmt: skip
    yield _check("processes.kill-bridge", "signal bridge", "end it", "it is another user's",
                 refused(by={"EPERM"}), **ours)  # fmt: skip
    for name in SOCKET_NAMES:
        yield _check(f"sockets.{name.removesuffix('.sock')}", f"replace {name}",
                     f"put something else in the place of {name}, in 15 ways",
                     "a sticky directory, sockets of another user", not_done(), **ours)  # fmt: skip


def _limits(scene: Scene) -> Iterator[Check]:
    limits = scene.limits
    sizes = {
        one.path: one.size_bytes
        for one in scratch(tmp_bytes=limits.tmp_bytes, var_tmp_bytes=limits.var_tmp_bytes)
    }
    sizes["/dev/shm"] = limits.shm_bytes  # noqa: S108 - a path inside the container
    yield _check("limits.memory", "limits", "find a limit on memory", "the memory cgroup",
                 holds(lambda found: 0 < found["memory"] <= limits.memory_bytes, "the limit is another"))  # fmt: skip
    yield _check("limits.swap", "limits", "go on in swap where memory ends", "the memory cgroup", _no_swap)
    yield _check("limits.processes", "limits", "find a limit on processes", "the pids cgroup",
                 holds(lambda found: 0 < found["pids"] <= limits.pids, "the limit is another"))  # fmt: skip
    yield _check("limits.cpu", "limits", "find a limit on CPU time", "the cpu cgroup",
                 holds(lambda found: found["cpu quota"] > 0, "there is none"))  # fmt: skip
    yield _check("limits.scratch", "sizes", "find a temporary directory of another size", "sizes of tmpfs mounts",
                 holds(lambda found: all(0 < found.get(at, 0) <= n for at, n in sizes.items()), "sizes"))  # fmt: skip
    yield _check("limits.sockets-directory", "fill", "fill the directory of our sockets", "its size",
                 holds(lambda written: 0 <= written <= MIB, "bytes were taken"), baseline=False)  # fmt: skip
    yield _check("limits.files", "rlimits", "open files without end", "ulimit nofile",
                 holds(lambda found: 0 < found["files"][1] <= limits.nofile_hard, "the hard limit is"))  # fmt: skip
    yield _check("limits.file-size", "rlimits", "write a file without end", "ulimit fsize",
                 holds(lambda found: 0 < found["size"][1] <= limits.file_bytes, "the hard limit is"))  # fmt: skip
    yield _check("limits.core", "rlimits", "leave a core dump in the work tree", "ulimit core",
                 holds(lambda found: found["core"] == [0, 0], "the limit is"))  # fmt: skip


def _no_swap(found: Any) -> Verdict:
    swap = found.get("swap", 0)
    both = found.get("memory and swap", found["memory"])
    return (
        PASSED
        if swap == 0 and 0 < both <= found["memory"]
        else failed(f"swap {swap}, memory and swap {both}")
    )


def _secrets() -> Iterator[Check]:
    yield _check("secrets.found", "decoy", "find a word of the repository's own files", "nothing: the search works",
                 holds(lambda places: any("/workspace/" in place for place in places), "it was found at"),
                 baseline=False)  # fmt: skip
    yield _check("secrets.inside", "secret",
                 "find a secret of the host's (home directory, environment, git settings) in files, environments, "
                 "arguments and mounts", "nothing of it goes in", nothing("found in"))  # fmt: skip
    yield _check("secrets.environment", "environment", "find a variable of the host's", "an environment of our own",
                 _our_environment, baseline=False)  # fmt: skip


def _our_environment(found: Any) -> Verdict:
    proxies = {name for name, value in found.items() if name.lower().endswith("_proxy") and not value}
    return only(_VARIABLES | proxies, "there is")(found)
