"""Which protections are in force in a started container: measured by the kernel's words, judged here. Pure.

Three classes (design §2.9). Required: absent stops the launch. Best available: absent is shown. Asked: a
best-available one that the user named by a flag, by `[require]` or in a file becomes required, unless the
user also said `--best-effort NAME`. So does one that the plan itself has: our AppArmor profile, where the kernel
knows it. What was not measured is `unknown` and counts as absent, never as on.

Facts are the JSON object that the guest's probe sends before anything of the agent runs; every value is
looked at with suspicion, and one of another type than expected is as good as missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum

import msgspec

from coding_agents.model.limits import NO_DISK, NO_IO, cpus_text, quota_text, size_text
from coding_agents.sandbox.seccomp import profile
from coding_agents.sandbox.spec import NoNetwork, SandboxSpec

ON, OFF, ABSENT, UNKNOWN = "on", "off", "absent", "unknown"
MONITORED = "monitored"
IN_GVISOR, IN_OLD_GVISOR = "gvisor", "old-gvisor"

Facts = Mapping[str, object]

# What engines mount besides what we ask for: files that they write themselves.
_ENGINE_FILES = frozenset({"/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/run/.containerenv"})

_ENFORCED = " (enforce)"  # how the kernel ends the label of a process whose profile is not only complaining
_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,60}")

_GVISOR_LOG = re.compile(r"<6>\[ *0\.000000\] Starting gVisor\.\.\.\n")  # pkg/sentry/kernel/syslog.go

_ENGINE_MOUNTS = frozenset({"/", "/dev/shm"})  # noqa: S108 - paths inside the container


class Need(StrEnum):
    """How much depends on a layer."""

    REQUIRED = "required"
    BEST_AVAILABLE = "best-available"


class Measured(msgspec.Struct, frozen=True):
    """The value shown for a layer, whether it holds, and what is wrong when it does not."""

    value: str
    holds: bool
    detail: str = ""


class Evidence(msgspec.Struct, frozen=True):
    """All that is known about a started container.

    `guard` are the problems of the rules read back from the holder, None when they were not read;
    `userns` whether root inside is nobody outside, None when the engine does not say; `disk_watched` whether the host
    can ask what is left on the engine's disk; `kernel` is the release of the engine's own kernel, "" when it does
    not say. Of a container in gVisor, `facts` have the host's account of its control groups. `loops` are the devices,
    as `7:0`, that hold the image of the session's own file system, as the host sees them; `direct` whether they go past
    the page cache of the host.
    """

    facts: Facts
    spec: SandboxSpec
    guard: Sequence[str] | None = None
    userns: bool | None = None
    disk_watched: bool = False
    kernel: str = ""
    loops: Sequence[str] = ()
    direct: bool = False


class Enforced(msgspec.Struct, frozen=True):
    """The verdict: layer to value in the order of LAYERS, and everything that must stop the launch."""

    layers: Mapping[str, str]
    violations: tuple[str, ...]


class Layer(msgspec.Struct, frozen=True):
    """One protection: its name in `enforced` and in `--best-effort`, its class, and how it is measured.

    `planned` tells whether a spec has it at all; what nobody planned is not shown.
    """

    name: str
    need: Need
    measure: Callable[[Evidence], Measured]
    planned: Callable[[SandboxSpec], bool] = lambda _spec: True


def judge(evidence: Evidence, *, asked: Collection[str] = (), best_effort: Collection[str] = ()) -> Enforced:
    """Measure every layer. `asked` are layers the user named, `best_effort` those that may be missing."""
    layers: dict[str, str] = {}
    violations = []
    wanted = {*asked, *(("apparmor",) if evidence.spec.apparmor else ())} - set(best_effort)
    for layer in LAYERS:
        if not layer.planned(evidence.spec) and layer.name not in asked:
            continue
        found = layer.measure(evidence)
        layers[layer.name] = found.value
        needed = layer.need is Need.REQUIRED or layer.name in wanted
        if needed and not found.holds:
            detail = f" ({found.detail})" if found.detail else ""
            violations.append(f"{layer.name} is {found.value}{detail}")
    unknown = sorted(wanted - layers.keys())
    violations += [f"{name} is {ABSENT} (this version cannot enforce it)" for name in unknown]
    return Enforced(layers, tuple(violations))


def _user(evidence: Evidence) -> Measured:
    uid, gid = (int(part) for part in evidence.spec.user.split(":"))
    process = _mapping(evidence.facts.get("process"))
    ids = [*_list(process.get("Uid")), *_list(process.get("Gid"))]
    if len(ids) != 8:
        return _unmeasured()
    return _switch(ids == [uid] * 4 + [gid] * 4, f"the first process has ids {ids}")


def _capabilities(evidence: Evidence) -> Measured:
    process = _mapping(evidence.facts.get("process"))
    sets = {key: process.get(key) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    if evidence.spec.gvisor and sets["CapAmb"] is None:
        del sets["CapAmb"]  # gVisor has no ambient capabilities
    if not all(isinstance(value, str) and value for value in sets.values()):
        return _unmeasured()
    held = [f"{key} {value}" for key, value in sets.items() if set(str(value)) != {"0"}]
    return _switch(not held, ", ".join(held))


def _no_new_privileges(evidence: Evidence) -> Measured:
    if evidence.spec.gvisor:
        answer = _mapping(evidence.facts.get("unfiltered")).get("no_new_privs")
        return _switch(answer == 1, f"gVisor answers {answer!r}")
    return _process_number(evidence, "NoNewPrivs", 1)


def _seccomp(evidence: Evidence) -> Measured:
    """There is a filter, and it is the very one: it answers as no other does. Or the kernel is gVisor's."""
    if evidence.spec.gvisor:
        return _gvisor(evidence)
    filtered = _process_number(evidence, "Seccomp", 2)  # 2: filter, prctl(2)
    if not filtered.holds:
        return filtered
    mark, wanted = evidence.facts.get("seccomp"), profile(evidence.spec.seccomp).watermark
    if not isinstance(mark, int):
        return _unmeasured("which profile is in force was not measured")
    return _switch(
        mark == wanted, f"the filter is not our profile {evidence.spec.seccomp!r}: it answers {mark}"
    )


def _gvisor(evidence: Evidence) -> Measured:
    """The calls are answered by gVisor's kernel: its log begins as no other does, and it is not the engine's own.

    Before anything of the agent runs, nobody in the container could have written that log.
    """
    kernel = _mapping(evidence.facts.get("unfiltered"))
    log, release = kernel.get("log"), kernel.get("release")
    if not isinstance(log, str) or not _GVISOR_LOG.match(log) or release in ("", None, evidence.kernel):
        return Measured(OFF, False, f"runsc was asked for, and the kernel is not gVisor's: {release!r}")
    return Measured(IN_GVISOR if kernel.get("statx") is True else IN_OLD_GVISOR, True)


def _read_only_root(evidence: Evidence) -> Measured:
    options = _mount_options(evidence.facts, "/")
    return _unmeasured() if options is None else _switch("ro" in options, "the root file system is writable")


def _mounts(evidence: Evidence) -> Measured:
    """The volumes and tmpfs of the spec, with the options that keep them harmless."""
    problems = []
    for volume in evidence.spec.volumes:
        options = _mount_options(evidence.facts, volume.path)
        if options is None:
            return _unmeasured(f"{volume.path} is not mounted")
        if not volume.writable and "ro" not in options:
            problems.append(f"{volume.path} is writable")
    for tmpfs in evidence.spec.tmpfs:
        entry = _mapping(_mapping(evidence.facts.get("mounts")).get(tmpfs.path))
        options = _mount_options(evidence.facts, tmpfs.path)
        if options is None:
            return _unmeasured(f"{tmpfs.path} is not mounted")
        # gVisor shows neither of the two: a program gains nothing there, and a device is one of its own.
        wanted = set() if evidence.spec.gvisor else {"nosuid", "nodev"}
        wanted |= set() if tmpfs.executable else {"noexec"}
        problems += [f"{tmpfs.path} lacks {option}" for option in sorted(wanted - options)]
        size = entry.get("size_bytes")
        if entry.get("type") != "tmpfs" or not isinstance(size, int) or not 0 < size <= tmpfs.size_bytes:
            problems.append(f"{tmpfs.path} is not a tmpfs of {size_text(tmpfs.size_bytes)}")
    return _switch(not problems, "; ".join(problems))


def _host_paths(evidence: Evidence) -> Measured:
    """Nothing is mounted that we did not ask for and that the engine does not write itself."""
    others = evidence.facts.get("other_mounts")
    if not isinstance(others, list):
        return _unmeasured()
    ours = {volume.path for volume in evidence.spec.volumes} | {tmpfs.path for tmpfs in evidence.spec.tmpfs}
    watched = {path for path in _mapping(evidence.facts.get("mounts")) if path not in _ENGINE_MOUNTS} - ours
    foreign = sorted({*map(str, others), *watched} - _ENGINE_FILES)
    return _switch(not foreign, f"mounted: {', '.join(foreign)}")


def _network(evidence: Evidence) -> Measured:
    interfaces = evidence.facts.get("interfaces")
    if not isinstance(interfaces, list):
        return _unmeasured()
    if isinstance(evidence.spec.network, NoNetwork):
        others = sorted({str(name) for name in interfaces} - {"lo"})
        routes, routes6 = evidence.facts.get("routes"), evidence.facts.get("ipv6_routes", 0)
        closed = not others and routes == [] and routes6 == 0
        if closed and evidence.guard is not None:  # the proxy's own network has one
            return _guarded("proxy", evidence.guard)
        detail = f"interfaces: {', '.join(others) or 'lo'}; routes: {routes!r}, IPv6: {routes6!r}"
        return Measured("none" if closed else OFF, closed, "" if closed else detail[:300])
    if evidence.guard is None:
        return _unmeasured("the guard's rules were not read back")
    return _guarded("guarded", evidence.guard)


def _guarded(value: str, problems: Sequence[str]) -> Measured:
    return Measured(OFF if problems else value, not problems, "; ".join(problems)[:300])


def _memory(evidence: Evidence) -> Measured:
    wanted = evidence.spec.limits.memory_bytes
    return _limit(evidence, "memory_max", wanted, size_text)


def _swap(evidence: Evidence) -> Measured:
    """Memory and swap together are limited to the memory."""
    cgroup = _mapping(evidence.facts.get("cgroup"))
    if "memory_swap_max" not in cgroup:
        return _unmeasured("the kernel does not account for swap")
    held = cgroup["memory_swap_max"] == evidence.spec.limits.memory_bytes
    return _switch(held, f"memory and swap: {cgroup['memory_swap_max']!r}")


def _pids(evidence: Evidence) -> Measured:
    return _limit(evidence, "pids_max", evidence.spec.limits.pids, str)


def _cpus(evidence: Evidence) -> Measured:
    cgroup = _mapping(evidence.facts.get("cgroup"))
    quota, period = cgroup.get("cpu_quota_us", UNKNOWN), cgroup.get("cpu_period_us")
    if quota is None:
        return Measured(OFF, False, "unlimited")
    if not isinstance(quota, int) or not isinstance(period, int) or period <= 0:
        return _unmeasured()
    cpus = Decimal(quota) / period
    return Measured(cpus_text(cpus), cpus == evidence.spec.limits.cpus, f"asked {evidence.spec.limits.cpus}")


def _apparmor(evidence: Evidence) -> Measured:
    """On is our own profile, by its whole label; the engine's is better than none, and named."""
    label, wanted = evidence.facts.get("label"), evidence.spec.apparmor
    if not isinstance(label, str) or not label:
        return Measured(ABSENT, False, "the kernel has no such module")
    if wanted:
        return _switch(label == f"{wanted}{_ENFORCED}", f"label {label[:80]!r}, not {wanted}{_ENFORCED}")
    name = label.removesuffix(_ENFORCED)
    if label == "unconfined" or name == label or not _LABEL.fullmatch(name):
        return Measured(OFF, False, f"label {label[:80]!r}")
    return Measured(f"engine's {name}", False, "our own profile is not loaded")


def _userns(evidence: Evidence) -> Measured:
    return (
        _unmeasured() if evidence.userns is None else _switch(evidence.userns, "root inside is root outside")
    )


def _disk(evidence: Evidence) -> Measured:
    """Without a quota at best somebody watches, and ends the session before the disk is full."""
    if evidence.spec.limits.disk_bytes < NO_DISK:
        return _quota(evidence)
    if evidence.disk_watched:
        return Measured(MONITORED, False, "it has no quota")
    return Measured(ABSENT, False, "the engine's disk cannot be asked from here")


def _quota(evidence: Evidence) -> Measured:
    """All that can be written is on the one device that holds the session's image, and that is no larger than asked."""
    wanted = evidence.spec.limits.disk_bytes
    mounts = _mapping(evidence.facts.get("mounts"))
    problems = [] if len(evidence.loops) == 1 else [f"{len(evidence.loops)} loop devices hold the image"]
    for volume in evidence.spec.volumes:
        entry = _mapping(mounts.get(volume.path))
        if not volume.writable:
            continue
        if "device" not in entry:
            return _unmeasured(f"the device of {volume.path} was not measured")
        size = entry.get("size_bytes")
        if entry["device"] not in evidence.loops or entry.get("type") != "ext4":
            problems.append(f"{volume.path} is not on the session's image")
        if not isinstance(size, int) or not 0 < size <= wanted:
            problems.append(f"{volume.path} has {size!r} bytes")
    return Measured(OFF, False, "; ".join(problems)[:300]) if problems else Measured(quota_text(wanted), True)


def _disk_read(evidence: Evidence) -> Measured:
    return _throttle(evidence, "read_bps", evidence.spec.limits.disk_read)


def _disk_write(evidence: Evidence) -> Measured:
    """cgroup v1 throttles what is written past the page cache alone (blkio-controller.rst, "cgroup writeback")."""
    found = _throttle(evidence, "write_bps", evidence.spec.limits.disk_write)
    if found.holds and _mapping(evidence.facts.get("cgroup")).get("version") == 1:
        return Measured("direct-only", False, "cgroup v1 does not throttle buffered writes")
    return found


def _throttle(evidence: Evidence, key: str, wanted: int) -> Measured:
    """The kernel's rate for the one device that it throttles."""
    rates = _mapping(_mapping(evidence.facts.get("cgroup")).get(key))
    if not evidence.spec.limits.disk_device:
        return Measured(ABSENT, False, "the engine's disk is no block device of this machine")
    if evidence.spec.limits.disk_bytes < NO_DISK and not evidence.direct:
        return Measured(OFF, False, "its file system is cached by the host, which is not throttled")
    if len(rates) != 1:
        return _unmeasured(f"{len(rates)} devices are throttled")
    (rate,) = rates.values()
    held = rate == wanted
    return Measured(size_text(wanted) if held else OFF, held, f"{key} is {rate!r}")


LAYERS = (
    Layer("user", Need.REQUIRED, _user),
    Layer("capabilities", Need.REQUIRED, _capabilities),
    Layer("no-new-privileges", Need.REQUIRED, _no_new_privileges),
    Layer("seccomp", Need.REQUIRED, _seccomp),
    Layer("read-only-root", Need.REQUIRED, _read_only_root),
    Layer("mounts", Need.REQUIRED, _mounts),
    Layer("host-paths", Need.REQUIRED, _host_paths),
    Layer("network", Need.REQUIRED, _network),
    Layer("memory", Need.BEST_AVAILABLE, _memory),
    Layer("swap", Need.BEST_AVAILABLE, _swap),
    Layer("cpus", Need.BEST_AVAILABLE, _cpus),
    Layer("pids", Need.BEST_AVAILABLE, _pids),
    Layer("disk", Need.BEST_AVAILABLE, _disk),
    Layer("disk-read", Need.BEST_AVAILABLE, _disk_read, lambda spec: spec.limits.disk_read < NO_IO),
    Layer("disk-write", Need.BEST_AVAILABLE, _disk_write, lambda spec: spec.limits.disk_write < NO_IO),
    Layer("apparmor", Need.BEST_AVAILABLE, _apparmor),
    Layer("userns", Need.BEST_AVAILABLE, _userns),
)
LAYER_NAMES = tuple(layer.name for layer in LAYERS)


def _switch(holds: bool, problem: str) -> Measured:
    return Measured(ON, True) if holds else Measured(OFF, False, problem[:300])


def _unmeasured(detail: str = "not measured") -> Measured:
    return Measured(UNKNOWN, False, detail)


def _process_number(evidence: Evidence, key: str, wanted: int) -> Measured:
    value = _mapping(evidence.facts.get("process")).get(key)
    return _switch(value == wanted, f"{key} is {value}") if isinstance(value, int) else _unmeasured()


def _limit(evidence: Evidence, key: str, wanted: int, show: Callable[[int], str]) -> Measured:
    cgroup = _mapping(evidence.facts.get("cgroup"))
    if key not in cgroup:
        return _unmeasured()
    value = cgroup[key]
    if not isinstance(value, int):
        return Measured(OFF, False, "unlimited")
    return Measured(show(value), value == wanted, f"asked {show(wanted)}")


def _mount_options(facts: Facts, path: str) -> set[str] | None:
    options = _mapping(_mapping(facts.get("mounts")).get(path)).get("options")
    return {str(option) for option in options} if isinstance(options, list) else None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
