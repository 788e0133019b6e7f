"""What both gates judge by: where a volume may be, who may run, what a holder may be told. Pure.

Written out here once more instead of taken from `spec` and `plan`, on purpose: a mistake there must not
excuse itself.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from coding_agents.errors import InvariantError
from coding_agents.sandbox.credentials import credential_in
from coding_agents.sandbox.spec import Role, VolumeMount

NAME = re.compile(r"[a-z0-9A-Z][a-zA-Z0-9_.-]{0,127}")
IMAGE = re.compile(r"sha256:[0-9a-f]{64}")
ENGINE_ID = re.compile(r"[0-9a-f]{64}")
HOSTNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LABEL_NAME = re.compile(r"[a-z][a-z0-9.-]*")
DEVICE = re.compile(r"/dev/[a-zA-Z0-9][a-zA-Z0-9_/-]*")  # to throttle it: no container is given one
_PLACE = re.compile(r"/[^\x00-\x1f\x7f]*/coding-agents/sessions/[0-9a-f]{12}/disk/(?:workspace|home)")
ABSOLUTE = re.compile(r"/[A-Za-z0-9_./-]*")

# Where each role may have a volume, and whether it may write there. The filler is a helper that writes
# the guest's directory, or the configuration, and has nothing else mounted; see mount_problems.
_MOUNTS: Mapping[Role, Mapping[str, bool]] = {
    Role.AGENT: {
        "/workspace": True,
        "/home/agentuser": True,
        "/opt/coding-agents": False,
        "/opt/coding-agents-config": False,
        "/opt/coding-agents-door": False,
    },
    Role.HOLDER: {"/opt/coding-agents": False, "/opt/coding-agents-door": True},
    Role.HELPER: {"/workspace": False, "/opt/coding-agents": False},
}
USERS: Mapping[Role, str] = {Role.AGENT: "1000:1000", Role.HOLDER: "0:0", Role.HELPER: "1000:1000"}
CAPABILITIES: Mapping[Role, frozenset[str]] = {
    Role.AGENT: frozenset(),
    Role.HOLDER: frozenset({"NET_ADMIN", "SETUID", "SETGID", "SETPCAP"}),
    Role.HELPER: frozenset(),
}
PROFILES = Path(__file__).parent / "seccomp"
SECCOMP: Mapping[Role, tuple[str, ...]] = {
    Role.AGENT: ("agent", "ptrace"),
    Role.HOLDER: ("holder",),
    Role.HELPER: ("agent",),
}
APPARMOR: Mapping[Role, str] = {Role.AGENT: "agent", Role.HOLDER: "holder", Role.HELPER: "agent"}
_APPARMOR_PROFILES = Path(__file__).parent / "apparmor" / "profiles.in"
TMPFS_PATHS = frozenset({"/run", "/run/coding-agents", "/tmp", "/var/tmp"})  # noqa: S108 - in the container
TMPFS_MODES = frozenset({"755", "1777"})
_RESERVED_NETWORKS = frozenset(
    {"host", "none", "bridge", "default", "private", "pasta", "slirp4netns", "podman"}
)
_GUEST_INTERPRETER = ("/usr/bin/python3", "-IS", "-c")
_GUEST_LOADER_SHA256 = "21ed75fd93838dfa419e60acf544ad37d6c5f038b449a5c1ebeb7df87d91e923"
_GUEST_PROGRAM = "/opt/coding-agents/guest.pyz"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HOLDER_OPTIONS = frozenset({"--dns", "--allow", "--rate", "--uid"})


def require(what: str, problems: list[str]) -> None:
    """Raise InvariantError naming all `problems`, if there are any."""
    if problems:
        raise InvariantError(
            f"{what} is not safe: {problems[0]}",
            details="\n".join(problems),
            hint="Nothing was started. This is a mistake in coding-agents: please report it.",
        )


def bridge_problems(name: str) -> list[str]:
    """What is wrong with a bridge as the network of a holder: the engines' own networks are not ours."""
    if not NAME.fullmatch(name) or name in _RESERVED_NETWORKS:
        return [f"network {name!r} is not one of ours"]
    return []


@cache
def apparmor_name(role: Role) -> str:
    """The AppArmor profile that a container of this role may be given, named by its content."""
    content = hashlib.sha256(_APPARMOR_PROFILES.read_bytes()).hexdigest()
    return f"coding-agents-{APPARMOR[role]}-{content[:12]}"


def mount_problems(role: Role, volumes: Sequence[VolumeMount]) -> list[str]:
    """What is wrong with the volumes of a container, seen as a whole."""
    problems = []
    allowed = _MOUNTS[role]
    if role is Role.HELPER and len(volumes) == 1:  # the filler
        allowed = {**allowed, "/opt/coding-agents": True, "/opt/coding-agents-config": True}
    for mount in volumes:
        if not NAME.fullmatch(mount.volume):
            problems.append(f"host path or malformed volume: {mount.volume!r}")
        if mount.path not in allowed:
            problems.append(f"nothing may be mounted at {mount.path!r} of a {role.value}")
        elif mount.writable and not allowed[mount.path]:
            problems.append(f"volume at {mount.path} is writable")
    problems += [f"{path} is mounted twice" for path, n in Counter(v.path for v in volumes).items() if n > 1]
    return problems


def place_problems(place: str) -> list[str]:
    """What is wrong with a directory of the host as a volume: it can only be one of a session's own file system."""
    if not place or (_PLACE.fullmatch(place) and "/../" not in place):
        return []
    return [f"{place!r} is no directory of a session's own file system"]


def command_problems(role: Role, argv: Sequence[str]) -> list[str]:
    """What is wrong with the command of a container."""
    words = _guest_words(argv)
    if role is Role.AGENT:
        return (
            [] if words == ["entrypoint"] else ["the agent's container does not start with our entry point"]
        )
    if role is Role.HOLDER:
        return _holder_problems(words)
    return [] if argv else ["there is no command"]


def _guest_words(argv: Sequence[str]) -> list[str]:
    """What `argv` tells the guest's program, which it has verified; nothing when it runs anything else."""
    *interpreter, loader, program, digest = (*argv[:6], *[""] * 6)[:6]
    ours = (
        tuple(interpreter) == _GUEST_INTERPRETER
        and hashlib.sha256(loader.encode()).hexdigest() == _GUEST_LOADER_SHA256
        and program == _GUEST_PROGRAM
        and _DIGEST.fullmatch(digest) is not None
    )
    return list(argv[6:]) if ours else []


def _holder_problems(words: Sequence[str]) -> list[str]:
    """A holder is root for a moment, so it may run our guard alone, with or without the proxy behind it."""
    options = words[1:]
    problems = []
    if list(words[:1]) not in (["holder"], ["proxy"]):
        problems.append("the holder does not run our guard")
    if list(words[:1]) == ["proxy"] and "--uid" not in options:
        problems.append("squid could open connections of its own")
    if len(options) % 2 or not set(options[::2]) <= _HOLDER_OPTIONS:
        problems.append("the holder has an unknown option")
    for option, value in zip(options[::2], options[1::2], strict=False):
        if not _HOLDER_VALUES.get(option, _is_endpoint)(value):
            problems.append(f"the holder's {option} is malformed: {value!r}")
    return problems


def text_problems(labels: Iterable[tuple[str, str]], argv: Iterable[str]) -> list[str]:
    """What is wrong with the texts that anyone who may look at the container can read."""
    problems = [f"label {key} holds a {kind}" for key, value in labels if (kind := credential_in(value))]
    problems += [f"label name {key!r} is malformed" for key, _ in labels if not LABEL_NAME.fullmatch(key)]
    problems += [f"label {key} holds a control character" for key, v in labels if any(ord(c) < 32 for c in v)]
    return problems + [f"the command holds a {kind}" for word in argv if (kind := credential_in(word))]


def is_address(text: str) -> bool:
    """Whether `text` is one IP address without a scope."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _is_endpoint(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return is_address(host.removeprefix("[").removesuffix("]")) and port.isdigit() and 0 < int(port) < 65536


def _is_rate(value: str) -> bool:
    return value.isascii() and value.isdigit() and 0 < int(value) < 1 << 40


def _is_proxys_user(value: str) -> bool:
    return value == "1002"


_HOLDER_VALUES = {"--dns": is_address, "--rate": _is_rate, "--uid": _is_proxys_user}
