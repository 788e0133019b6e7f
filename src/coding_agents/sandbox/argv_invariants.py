"""Judges the final arguments of `ENGINE create` by an allow-list of flags and of their values. Pure.

A flag that is not named here is refused, whatever it does. Every flag is one word (`--flag=value`), so the
first word that is not a flag is the image.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation

from coding_agents.sandbox.credentials import credentials_in_environment
from coding_agents.sandbox.rules import (
    ABSOLUTE,
    CAPABILITIES,
    DEVICE,
    ENGINE_ID,
    ENV_NAME,
    HOSTNAME,
    IMAGE,
    NAME,
    PROFILES,
    SECCOMP,
    TMPFS_MODES,
    TMPFS_PATHS,
    USERS,
    apparmor_name,
    bridge_problems,
    command_problems,
    is_address,
    mount_problems,
    require,
    text_problems,
)
from coding_agents.sandbox.spec import Role, VolumeMount

_MOUNT = re.compile(
    r"type=volume,source=(?P<name>[a-zA-Z0-9][a-zA-Z0-9_.-]*),target=(?P<path>/[a-z/-]+)(?P<ro>,ro)?"
)
_TMPFS = re.compile(
    r"(?P<path>/[a-z/-]+):rw,nosuid,nodev,(?P<exec>noexec|exec),size=(?P<size>[1-9][0-9]*),mode=(?P<mode>[0-7]{3,4})"
)

_BARE_FLAGS = frozenset({"--read-only", "--no-healthcheck", "--interactive"})
_FIXED_FLAGS: Mapping[str, frozenset[str]] = {
    "--pull": frozenset({"never"}),
    "--cap-drop": frozenset({"ALL"}),
    "--ipc": frozenset({"private"}),
    "--cgroupns": frozenset({"private"}),
    "--restart": frozenset({"no"}),
    "--log-driver": frozenset({"json-file", "k8s-file"}),
    "--http-proxy": frozenset({"false"}),
    "--systemd": frozenset({"false"}),
}
_REPEATABLE = frozenset(
    {
        "--cap-add",
        "--env",
        "--label",
        "--mount",
        "--tmpfs",
        "--ulimit",
        "--dns",
        "--log-opt",
        "--security-opt",
    }
)
_REQUIRED = (
    "--name", "--pull", "--read-only", "--no-healthcheck", "--cap-drop", "--security-opt", "--ipc",
    "--cgroupns", "--restart", "--user", "--network", "--memory", "--memory-swap", "--cpus", "--pids-limit",
    "--shm-size", "--tmpfs", "--log-driver", "--log-opt", "--stop-timeout", "--entrypoint", "--ulimit",
)  # fmt: skip


def check_argv(argv: Sequence[str], *, role: Role) -> None:
    """Raise InvariantError naming everything that is unsafe about the arguments `create …` of an engine."""
    require("the engine's command line", argv_violations(argv, role=role))


def argv_violations(argv: Sequence[str], *, role: Role) -> list[str]:
    """Everything that is unsafe about `create FLAG… IMAGE WORD…`, a line each; empty when it may run."""
    if not argv or argv[0] != "create":
        return ["not a create command"]
    flags: dict[str, list[str]] = {}
    rest = list(argv[1:])
    while rest and rest[0].startswith("-"):
        name, _, value = rest.pop(0).partition("=")
        flags.setdefault(name, []).append(value)
    image, words = (rest[0], rest[1:]) if rest else ("", [])
    command = [*flags.get("--entrypoint", []), *words]
    env = [(name, value) for name, _, value in (v.partition("=") for v in flags.get("--env", []))]
    labels = [(name, value) for name, _, value in (v.partition("=") for v in flags.get("--label", []))]
    return [
        *_unknown_flags(flags, role),
        *(f"{name} is missing" for name in _REQUIRED if name not in flags),
        *(
            f"{name} is given {len(v)} times"
            for name, v in flags.items()
            if len(v) > 1 and name not in _REPEATABLE
        ),
        *([] if IMAGE.fullmatch(image) else [f"image is not given by id: {image!r}"]),
        *_pair_problems(flags, role),
        *command_problems(role, command),
        *credentials_in_environment(env),
        *text_problems(labels, command),
    ]


def _unknown_flags(flags: Mapping[str, list[str]], role: Role) -> list[str]:
    problems = []
    checks = _value_checks(role)
    for name, values in flags.items():
        if name in _BARE_FLAGS:
            problems += [f"{name} takes no value" for value in values if value]
        elif name in _FIXED_FLAGS:
            problems += [f"{name} is {value!r}" for value in values if value not in _FIXED_FLAGS[name]]
        elif name in checks:
            problems += [f"{name} is {value!r}" for value in values if not checks[name](value)]
        else:
            problems.append(f"unknown flag {name}")
    return problems


def _value_checks(role: Role) -> dict[str, Callable[[str], bool]]:
    checks: dict[str, Callable[[str], bool]] = {
        "--name": _matches(NAME),
        "--user": USERS[role].__eq__,
        "--cap-add": CAPABILITIES[role].__contains__,
        "--network": lambda value: _network_allowed(value, role),
        "--hostname": _matches(HOSTNAME),
        "--workdir": _matches(ABSOLUTE),
        "--entrypoint": _matches(ABSOLUTE),
        "--runtime": _matches(NAME),
        "--env": lambda value: "=" in value and bool(ENV_NAME.fullmatch(value.partition("=")[0])),
        "--label": lambda value: "=" in value,
        "--mount": lambda value: _MOUNT.fullmatch(value) is not None,  # placement: _pair_problems
        "--tmpfs": _tmpfs_allowed,
        "--memory": _is_count,
        "--memory-swap": _is_count,
        "--shm-size": _is_count,
        "--pids-limit": _is_count,
        "--stop-timeout": _is_count,
        "--security-opt": lambda _value: True,  # both together: _pair_problems
        "--cpus": _is_positive,
        "--device-read-bps": _matches(re.compile(rf"{DEVICE.pattern}:[1-9][0-9]*")),
        "--device-write-bps": _matches(re.compile(rf"{DEVICE.pattern}:[1-9][0-9]*")),
        "--ulimit": _matches(re.compile(r"(?:nofile|nproc|core|fsize)=[0-9]+:[0-9]+")),
        "--log-opt": _matches(re.compile(r"max-(?:size=[1-9][0-9]*[bkm]?|file=[1-9])")),
    }
    if role is Role.HOLDER:
        checks["--dns"] = is_address
    return checks


def _pair_problems(flags: Mapping[str, list[str]], role: Role) -> list[str]:
    """What no flag shows alone: limits that belong together, and mounts seen as a whole."""
    problems = []
    given = flags.get("--security-opt", [])
    if sorted(given) not in _security_options(role):
        problems.append(f"security options are {', '.join(given) or 'none'}")
    if flags.get("--memory") != flags.get("--memory-swap"):
        problems.append("memory and swap together are not limited to the memory")
    if not any(value.startswith("max-size=") for value in flags.get("--log-opt", [])):
        problems.append("the container's log has no size limit")
    if not any(value.startswith("nofile=") for value in flags.get("--ulimit", [])):
        problems.append("open files are not limited")
    if not any(value.startswith("fsize=") for value in flags.get("--ulimit", [])):
        problems.append("the size of files is not limited")
    mounts = [match for value in flags.get("--mount", []) if (match := _MOUNT.fullmatch(value))]
    problems += mount_problems(
        role, [VolumeMount(m["name"], m["path"], writable=not m["ro"]) for m in mounts]
    )
    tmpfs = Counter(value.partition(":")[0] for value in flags.get("--tmpfs", []))
    return problems + [f"{path} has no sized tmpfs" for path in sorted(TMPFS_PATHS) if tmpfs[path] != 1]


def _security_options(role: Role) -> list[list[str]]:
    """What a container of this role may be given of them: no new privileges, and one of its profiles of each kind."""
    armored = [[], [f"apparmor={apparmor_name(role)}"]]
    return [
        sorted([*armor, "no-new-privileges", f"seccomp={PROFILES}/{name}.json"])
        for name in SECCOMP[role]
        for armor in armored
    ]


def _network_allowed(value: str, role: Role) -> bool:
    if role is Role.HOLDER:
        return not bridge_problems(value)
    joined = value.removeprefix("container:")
    return value == "none" or (role is Role.AGENT and joined != value and bool(ENGINE_ID.fullmatch(joined)))


def _tmpfs_allowed(value: str) -> bool:
    match = _TMPFS.fullmatch(value)
    if match is None or match["path"] not in TMPFS_PATHS or match["mode"] not in TMPFS_MODES:
        return False
    return match["exec"] == "noexec" or not match["path"].startswith("/run")


def _matches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda value: pattern.fullmatch(value) is not None


def _is_count(value: str) -> bool:
    return value.isascii() and value.isdigit() and int(value) > 0


def _is_positive(value: str) -> bool:
    try:
        return Decimal(value).is_finite() and Decimal(value) > 0
    except InvalidOperation:
        return False
