"""From a spec to the arguments of `ENGINE create`: pure, shared by both engines, no wall can be switched off.

Every valued flag is one word (`--flag=value`), so `sandbox.invariants` can judge the result without
knowing which flags take a value.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from coding_agents.engine.features import PROXY_VARIABLES, Features
from coding_agents.model.limits import NO_IO, Limits, cpus_text
from coding_agents.sandbox.seccomp import profile
from coding_agents.sandbox.spec import (
    BridgeNetwork,
    ContainerSpec,
    JoinContainer,
    NetworkMode,
    NoNetwork,
    Tmpfs,
    VolumeMount,
)

APPARMOR_OPTION = "apparmor="
_WALLS = (
    "--pull=never",  # an image is ours and here, or the launch stops
    "--no-healthcheck",  # an image's health check would run before the gate opens
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--ipc=private",
    "--cgroupns=private",
    "--restart=no",
)


class RlimitCeiling(msgspec.Struct, frozen=True):
    """The hard limits of the process that will start the container; None where there is none."""

    nofile: int | None = None
    nproc: int | None = None


NO_CEILING = RlimitCeiling()


def create_argv(
    spec: ContainerSpec, features: Features, *, ceiling: RlimitCeiling = NO_CEILING
) -> tuple[str, ...]:
    """Everything after the name of the engine's program (and its global options)."""
    return (
        "create",
        f"--name={spec.name}",
        *_WALLS,
        f"--security-opt={profile(spec.seccomp).option}",
        *((f"--security-opt={APPARMOR_OPTION}{spec.apparmor}",) if spec.apparmor else ()),
        *features.create_flags,
        *(f"--cap-add={capability}" for capability in spec.capabilities),
        f"--user={spec.user}",
        f"--workdir={spec.workdir}",
        f"--network={network_text(spec.network)}",
        *(f"--dns={address}" for address in spec.dns),
        *((f"--hostname={spec.hostname}",) if spec.hostname else ()),
        *_limits(spec.limits, features, ceiling),
        *(_tmpfs(tmpfs) for tmpfs in spec.tmpfs),
        *(_mount(mount) for mount in spec.volumes),
        *(f"--env={name}={value}" for name, value in _environment(spec, features)),
        *(f"--label={key}={value}" for key, value in spec.labels),
        f"--stop-timeout={spec.stop_timeout_s}",
        *(("--interactive",) if spec.interactive else ()),
        *((f"--runtime={spec.runtime}",) if spec.runtime and not features.global_runtime else ()),
        f"--entrypoint={spec.argv[0]}",
        spec.image,
        *spec.argv[1:],
    )


def network_text(network: NetworkMode) -> str:
    """The value of `--network`."""
    match network:
        case NoNetwork():
            return "none"
        case BridgeNetwork(name):
            return name
        case JoinContainer(container):
            return f"container:{container}"


def _limits(limits: Limits, features: Features, ceiling: RlimitCeiling) -> Iterator[str]:
    yield f"--memory={limits.memory_bytes}"
    yield f"--memory-swap={limits.memory_bytes}"  # memory and swap together: no swap
    yield f"--cpus={cpus_text(limits.cpus)}"
    yield f"--pids-limit={limits.pids}"
    yield f"--shm-size={limits.shm_bytes}"
    hard, soft = limits.nofile_hard, limits.nofile_soft
    if ceiling.nofile is not None:
        hard, soft = min(hard, ceiling.nofile), min(soft, ceiling.nofile)
    yield f"--ulimit=nofile={soft}:{hard}"
    yield f"--ulimit=fsize={limits.file_bytes}:{limits.file_bytes}"
    for flag, rate in (("read", limits.disk_read), ("write", limits.disk_write)):
        if limits.disk_device and rate < NO_IO:
            yield f"--device-{flag}-bps={limits.disk_device}:{rate}"
    yield "--ulimit=core=0:0"  # a core file in the work tree would be committed
    if features.fits_rlimits and ceiling.nproc is not None:
        # Not a limit (it counts all processes of a uid on the host): what the engine may ask for at most.
        yield f"--ulimit=nproc={ceiling.nproc}:{ceiling.nproc}"
    yield f"--log-driver={features.log_driver}"
    yield f"--log-opt=max-size={limits.log_bytes}"
    if features.log_files:
        yield f"--log-opt=max-file={limits.log_files}"


def _environment(spec: ContainerSpec, features: Features) -> Iterator[tuple[str, str]]:
    yield from spec.env
    if features.blanks_proxies:
        given = {name for name, _ in spec.env}
        yield from ((name, "") for name in PROXY_VARIABLES if name not in given)


def _tmpfs(tmpfs: Tmpfs) -> str:
    runs = "exec" if tmpfs.executable else "noexec"
    return f"--tmpfs={tmpfs.path}:rw,nosuid,nodev,{runs},size={tmpfs.size_bytes},mode={tmpfs.mode}"


def _mount(mount: VolumeMount) -> str:
    # The long form: a host path in its `source` is an error, where `--volume` would take it.
    return f"--mount=type=volume,source={mount.volume},target={mount.path}{'' if mount.writable else ',ro'}"
