"""What a container of ours is: frozen values from which `engine.argv` makes the one command line.

Hardening is not a field. No capability, read-only root, no-new-privileges, private namespaces, no
health check, no restart and limits hold for every spec, so nothing can ask for less; a spec says only
what differs between sessions. There is no bind mount, device or free-form option to ask for.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import msgspec
from msgspec.structs import replace

from coding_agents.model.limits import GIB, MIB, Limits
from coding_agents.model.runtimes import is_gvisor

WORKSPACE = "/workspace"
HOME = "/home/agentuser"
SOCKETS = "/run/coding-agents"

AGENT_USER = "1000:1000"
MCP_USER = "1001:1001"
BRIDGE_UID = 1002
BRIDGE_USER = f"{BRIDGE_UID}:{BRIDGE_UID}"
ROOT_USER = "0:0"

SAVE_BUDGET_S = 120  # the guest commits and pushes within 100 s; then the engine may kill

LABEL = "coding-agents."


class Role(StrEnum):
    """What a container is for; the value of its label `coding-agents.type`."""

    AGENT = "agent"
    HOLDER = "holder"
    HELPER = "helper"


class Network(StrEnum):
    """The user's choice of network (design §4)."""

    ALLOW_ALL = "allow-all"
    RESTRICTED = "restricted"
    SQUID = "squid"


class NoNetwork(msgspec.Struct, frozen=True):
    """Only a loopback interface."""


class BridgeNetwork(msgspec.Struct, frozen=True):
    """A bridge of this session alone; only a holder stands on one."""

    name: str


class JoinContainer(msgspec.Struct, frozen=True):
    """The network namespace of the holder: its name in a plan, its engine id when it is created."""

    container: str


NetworkMode = NoNetwork | BridgeNetwork | JoinContainer


class VolumeMount(msgspec.Struct, frozen=True):
    """A named volume at `path`; never a host path."""

    volume: str
    path: str
    writable: bool = False


class Tmpfs(msgspec.Struct, frozen=True):
    """A sized tmpfs, always nosuid and nodev; `mode` is octal text."""

    path: str
    size_bytes: int
    executable: bool = False
    mode: str = "1777"


def scratch(*, tmp_bytes: int, var_tmp_bytes: int) -> tuple[Tmpfs, ...]:
    """The writable places of a read-only root.

    The socket directory is sticky, so what the bridge (uid 1002) makes there the agent cannot remove;
    programs run from /tmp and /var/tmp because build tools and agents unpack helpers there.
    """
    return (
        Tmpfs("/run", 16 * MIB, mode="755"),
        Tmpfs(SOCKETS, MIB),
        Tmpfs("/tmp", tmp_bytes, executable=True),  # noqa: S108 - a path inside the container
        Tmpfs("/var/tmp", var_tmp_bytes, executable=True),  # noqa: S108 - likewise
    )


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What all our containers have in common; use one of its three kinds.

    `image` is an id (`sha256:…`), `argv` the whole command (its first word replaces the image's entry
    point), `user` is `uid:gid`, `runtime` empty for the engine's default, and so is `apparmor`, else the
    name of one of our profiles (`sandbox.apparmor`).
    """

    role: ClassVar[Role]
    capabilities: ClassVar[tuple[str, ...]] = ()

    @property
    def seccomp(self) -> str:
        """The name of its seccomp profile (`sandbox.seccomp`)."""
        return "agent"

    @property
    def gvisor(self) -> bool:
        """Whether it runs on gVisor's kernel: what the host's would enforce is then enforced, or shown, otherwise."""
        return is_gvisor(self.runtime)

    name: str
    image: str
    argv: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    user: str
    network: NetworkMode = msgspec.field(default_factory=NoNetwork)
    env: tuple[tuple[str, str], ...] = ()
    workdir: str = "/"
    volumes: tuple[VolumeMount, ...] = ()
    tmpfs: tuple[Tmpfs, ...]
    limits: Limits
    hostname: str = ""
    stop_timeout_s: int = 10
    interactive: bool = False
    runtime: str = ""
    apparmor: str = ""
    dns: tuple[str, ...] = ()


class SandboxSpec(ContainerSpec, frozen=True, kw_only=True):
    """The agent's container: uid 1000, no capability, no interface of its own.

    `allow_ptrace` lets debuggers trace what the agent itself runs.
    """

    role: ClassVar[Role] = Role.AGENT
    user: str = AGENT_USER
    stop_timeout_s: int = SAVE_BUDGET_S
    allow_ptrace: bool = False

    @property
    def seccomp(self) -> str:
        return "ptrace" if self.allow_ptrace else "agent"

    def joined_to(self, holder_id: str) -> SandboxSpec:
        """The same container in the namespace of the holder that now exists."""
        return replace(self, network=JoinContainer(holder_id))


class HolderSpec(ContainerSpec, frozen=True, kw_only=True):
    """Owner of the network namespace: sets the guard as root, then drops root and all four capabilities."""

    role: ClassVar[Role] = Role.HOLDER
    capabilities: ClassVar[tuple[str, ...]] = ("NET_ADMIN", "SETUID", "SETGID", "SETPCAP")
    user: str = ROOT_USER

    @property
    def seccomp(self) -> str:
        return "holder"


class HelperSpec(ContainerSpec, frozen=True, kw_only=True):
    """A one-shot container of ours without network: salvage, or the never started filler of a volume."""

    role: ClassVar[Role] = Role.HELPER
    user: str = AGENT_USER


HOLDER_LIMITS = Limits(
    memory_bytes=256 * MIB, pids=64, shm_bytes=MIB, tmp_bytes=16 * MIB, var_tmp_bytes=16 * MIB
)
PROXY_LIMITS = replace(HOLDER_LIMITS, memory_bytes=512 * MIB, pids=128)
SALVAGE_LIMITS = Limits(pids=512, tmp_bytes=6 * GIB, var_tmp_bytes=GIB)  # /tmp holds a whole repository
