"""The independent gate: whatever made a spec or a command line, it is judged here before the engine sees it.

This package's gates know nothing of `plan` and `engine.argv`. `check_spec` judges values; `check_argv`
(its own module) the final arguments of `ENGINE create`. Both name everything that is wrong at once.
"""

from __future__ import annotations

from decimal import Decimal

from coding_agents.sandbox.argv_invariants import argv_violations, check_argv
from coding_agents.sandbox.credentials import credentials_in_environment
from coding_agents.sandbox.rules import (
    ABSOLUTE,
    CAPABILITIES,
    DEVICE,
    ENV_NAME,
    HOSTNAME,
    IMAGE,
    NAME,
    SECCOMP,
    TMPFS_MODES,
    TMPFS_PATHS,
    USERS,
    apparmor_name,
    bridge_problems,
    command_problems,
    is_address,
    mount_problems,
    place_problems,
    require,
    text_problems,
)
from coding_agents.sandbox.spec import BridgeNetwork, ContainerSpec, JoinContainer, NoNetwork, Role

__all__ = ["argv_violations", "check_argv", "check_spec", "check_volume", "spec_violations"]


def check_spec(spec: ContainerSpec) -> None:
    """Raise InvariantError naming everything that is unsafe about `spec`."""
    require(spec.name, spec_violations(spec))


def check_volume(name: str, place: str) -> None:
    """Raise InvariantError when a volume may not be the directory `place` of the host ("": it is the engine's own)."""
    require(f"volume {name}", place_problems(place))


def spec_violations(spec: ContainerSpec) -> list[str]:
    """Everything that is unsafe about `spec`, a line each; empty when it may be created."""
    return [
        *_identity_problems(spec),
        *(
            []
            if spec.seccomp in SECCOMP[spec.role]
            else [f"seccomp profile {spec.seccomp!r} is not for its kind"]
        ),
        *(
            []
            if spec.apparmor in ("", apparmor_name(spec.role))
            else [f"AppArmor profile {spec.apparmor!r} is not for its kind"]
        ),
        *_network_problems(spec),
        *mount_problems(spec.role, spec.volumes),
        *_tmpfs_problems(spec),
        *_limit_problems(spec),
        *command_problems(spec.role, spec.argv),
        *credentials_in_environment(spec.env),
        *(f"environment variable name {n!r} is malformed" for n, _ in spec.env if not ENV_NAME.fullmatch(n)),
        *text_problems(spec.labels, spec.argv),
    ]


def _identity_problems(spec: ContainerSpec) -> list[str]:
    problems = []
    if not NAME.fullmatch(spec.name):
        problems.append(f"container name {spec.name!r} is malformed")
    if not IMAGE.fullmatch(spec.image):
        problems.append(f"image is not given by id: {spec.image!r}")
    if spec.user != USERS[spec.role]:
        problems.append(f"user is {spec.user!r}, not {USERS[spec.role]}")
    if extra := set(spec.capabilities) - CAPABILITIES[spec.role]:
        problems.append(f"capability {', '.join(sorted(extra))} is not for a {spec.role.value}")
    if not ABSOLUTE.fullmatch(spec.workdir):
        problems.append(f"working directory {spec.workdir!r} is malformed")
    if spec.hostname and not HOSTNAME.fullmatch(spec.hostname):
        problems.append(f"host name {spec.hostname!r} is malformed")
    if spec.runtime and not NAME.fullmatch(spec.runtime):
        problems.append(f"runtime is not a plain name: {spec.runtime!r}")
    if not 1 <= spec.stop_timeout_s <= 3600:
        problems.append(f"stop timeout is {spec.stop_timeout_s} s")
    if dict(spec.labels).get("coding-agents.type") != spec.role.value:
        problems.append("label coding-agents.type does not say what the container is")
    return problems


def _network_problems(spec: ContainerSpec) -> list[str]:
    problems = [f"resolver is not an address: {dns!r}" for dns in spec.dns if not is_address(dns)]
    match spec.network:
        case NoNetwork():
            if spec.role is Role.HOLDER:
                problems.append("a holder without a network holds nothing")
        case BridgeNetwork(name):
            if spec.role is not Role.HOLDER:
                problems.append(f"a {spec.role.value} may not stand on a network of its own")
            problems += bridge_problems(name)
        case JoinContainer(container):
            if spec.role is not Role.AGENT:
                problems.append(f"a {spec.role.value} may not join another container's network")
            if not NAME.fullmatch(container):
                problems.append(f"container to join is malformed: {container!r}")
    if spec.dns and spec.role is not Role.HOLDER:
        problems.append("only a holder has resolvers")
    return problems


def _tmpfs_problems(spec: ContainerSpec) -> list[str]:
    problems = [f"tmpfs at {t.path!r} is not expected" for t in spec.tmpfs if t.path not in TMPFS_PATHS]
    problems += [f"tmpfs at {t.path} has no size" for t in spec.tmpfs if t.size_bytes <= 0]
    problems += [
        f"programs may run from {t.path}" for t in spec.tmpfs if t.executable and t.path.startswith("/run")
    ]
    problems += [f"tmpfs at {t.path} has mode {t.mode!r}" for t in spec.tmpfs if t.mode not in TMPFS_MODES]
    paths = [t.path for t in spec.tmpfs]
    # Engines put an unlimited tmpfs at these paths when a read-only root names none.
    return problems + [f"{path} has no sized tmpfs" for path in sorted(TMPFS_PATHS) if paths.count(path) != 1]


def _limit_problems(spec: ContainerSpec) -> list[str]:
    limits = spec.limits
    values: dict[str, int | Decimal] = {
        "CPUs": limits.cpus,
        "memory": limits.memory_bytes,
        "processes": limits.pids,
        "shared memory": limits.shm_bytes,
        "open files": limits.nofile_soft,
        "size of files": limits.file_bytes,
        "log": limits.log_bytes,
    }
    problems = [f"limit on {name} is missing" for name, value in values.items() if value <= 0]
    if limits.disk_device and not DEVICE.fullmatch(limits.disk_device):
        problems.append(f"{limits.disk_device!r} is not a block device")
    if limits.nofile_hard < limits.nofile_soft:
        problems.append("hard limit on open files is below the soft one")
    if spec.role is Role.AGENT and limits.shm_bytes < 1 << 30:
        problems.append("shared memory is below 1g")
    return problems
