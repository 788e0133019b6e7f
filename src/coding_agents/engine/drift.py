"""Compares what the engine says it made with what was asked. Pure. Any difference stops the launch."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from coding_agents.engine.api import ContainerConfig, ContainerState, Mounted
from coding_agents.engine.argv import APPARMOR_OPTION, network_text
from coding_agents.model.runtimes import is_gvisor
from coding_agents.sandbox.credentials import credentials_in_environment
from coding_agents.sandbox.seccomp import is_seccomp, profile
from coding_agents.sandbox.spec import ContainerSpec

_LIMITS = {"memory": "memory", "swap": "memory and swap", "cpus": "CPUs", "pids": "processes"}
_SHARED = ("host", "container:", "ns:")
_KNOWN_SECURITY = frozenset({"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"})


def drift(spec: ContainerSpec, state: ContainerState, *, ignored: Collection[str] = ()) -> list[str]:
    """Every way in which the container differs from `spec`, a line each; empty when it is what was asked.

    `ignored` are the limits that the engine is known to drop (`EngineInfo.ignored_limits`): what is in force of them is
    measured, and shown.
    """
    made = state.config
    return [
        *_differences(spec, state, ignored),
        *_weakened(made),
        *_mounts(spec, made),
        *_environment(spec, made),
    ]


def _differences(spec: ContainerSpec, state: ContainerState, ignored: Collection[str]) -> Iterator[str]:
    made, limits = state.config, spec.limits
    labels = {key: state.labels.get(key) for key, _ in spec.labels}
    wanted = (
        ("name", spec.name, state.name),
        ("image", spec.image, state.image),
        ("command", spec.argv, made.argv),
        ("user", spec.user, made.user),
        ("working directory", spec.workdir, made.workdir),
        ("network", network_text(spec.network), made.network),
        ("resolvers", spec.dns, made.dns),
        ("capabilities", frozenset(spec.capabilities), made.capabilities),
        ("memory", limits.memory_bytes, made.memory_bytes),
        ("memory and swap", limits.memory_bytes, made.memory_swap_bytes),
        ("CPUs", limits.cpus, made.cpus),
        ("processes", limits.pids, made.pids),
        ("shared memory", limits.shm_bytes, made.shm_bytes),
        ("stop timeout", spec.stop_timeout_s, made.stop_timeout_s),
        ("labels", dict(spec.labels), labels),
    )
    dropped = {_LIMITS[name] for name in ignored}
    for what, asked, found in wanted:
        if asked != found and what not in dropped:
            yield f"{what}: asked {_shown(asked)}, the engine made {_shown(found)}"
    if made.runtime != spec.runtime if spec.runtime else is_gvisor(made.runtime):
        yield f"runtime: asked {spec.runtime or 'of the engine'}, the engine made {made.runtime or 'unknown'}"
    if not has_seccomp(spec, made):
        yield "its seccomp profile is not that of this version"
    # What it was asked, and what it says that it did: an engine without AppArmor takes any name and does nothing.
    if not has_apparmor(spec, made) or (spec.apparmor and made.apparmor != spec.apparmor):
        asked = ", ".join(_armor_options(made)) or "none"
        applied = made.apparmor or "none"
        yield f"AppArmor profile: planned {spec.apparmor or 'none'}, asked {asked}, applied {applied}"


def _weakened(made: ContainerConfig) -> Iterator[str]:
    """Walls that every container of ours has."""
    if not made.read_only:
        yield "the root file system is writable"
    if made.privileged:
        yield "the container is privileged"
    if made.devices:
        yield f"{made.devices} devices were added"
    if not made.security_options & _KNOWN_SECURITY:
        yield "new privileges are possible"
    if odd := [one for one in made.security_options - _KNOWN_SECURITY if not _is_profile(one)]:
        yield f"security options were added: {', '.join(sorted(odd))}"
    for kind, mode in made.namespaces.items():
        if mode.startswith(_SHARED):
            yield f"the {kind} namespace is shared: {mode}"
    if made.restart not in ("no", ""):
        yield f"the engine restarts it: {made.restart}"
    if made.auto_remove:
        yield "the engine removes it and its volumes at its end"


def has_profiles(spec: ContainerSpec, made: ContainerConfig) -> bool:
    """Whether the container was made with exactly the profiles that this version gives it now."""
    return has_seccomp(spec, made) and has_apparmor(spec, made)


def has_seccomp(spec: ContainerSpec, made: ContainerConfig) -> bool:
    """Whether the container has exactly the seccomp profile that this version gives it."""
    given = [option for option in made.security_options if is_seccomp(option)]
    return len(given) == 1 and profile(spec.seccomp).is_in(given[0])


def has_apparmor(spec: ContainerSpec, made: ContainerConfig) -> bool:
    """Whether the container was asked to have the AppArmor profile of `spec`; where it names none, the engine's own."""
    given = _armor_options(made)
    if spec.apparmor:
        return given == [spec.apparmor]
    return not any(name == "unconfined" or name.startswith("coding-agents-") for name in given)


def _armor_options(made: ContainerConfig) -> list[str]:
    options = sorted(option for option in made.security_options if option.startswith(APPARMOR_OPTION))
    return [option.removeprefix(APPARMOR_OPTION) for option in options]


def _is_profile(option: str) -> bool:
    return is_seccomp(option) or option.startswith(APPARMOR_OPTION)


def _mounts(spec: ContainerSpec, made: ContainerConfig) -> Iterator[str]:
    asked = {Mounted("volume", v.volume, v.path, v.writable) for v in spec.volumes}
    mounts = {mount for mount in made.mounts if mount.kind != "tmpfs"}
    for mount in sorted(mounts - asked, key=lambda one: one.path):
        yield f"a mount was not asked for: {mount.kind} {mount.name} at {mount.path}"
    for mount in sorted(asked - mounts, key=lambda one: one.path):
        yield f"a mount is missing: {mount.name} at {mount.path}"
    if odd := made.tmpfs.keys() ^ {tmpfs.path for tmpfs in spec.tmpfs}:
        yield f"tmpfs differ: {', '.join(sorted(odd))}"
    for tmpfs in spec.tmpfs:
        wanted = {"nosuid", "nodev", f"size={tmpfs.size_bytes}", "exec" if tmpfs.executable else "noexec"}
        if missing := wanted - made.tmpfs.get(tmpfs.path, frozenset(wanted)):
            yield f"tmpfs {tmpfs.path} lacks {', '.join(sorted(missing))}"


def _environment(spec: ContainerSpec, made: ContainerConfig) -> Iterator[str]:
    for name, value in dict(spec.env).items():
        if made.env.get(name) != value:
            yield f"environment variable {name} differs"
    yield from credentials_in_environment(made.env.items())  # an engine's client may have added some


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, frozenset):
        return ", ".join(sorted(value)) or "none"
    return "unknown" if value is None else str(value)
