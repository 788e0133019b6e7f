"""What a container engine can do for us, in our words, and what it says about itself and its objects."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from coding_agents.proc.runner import Command, Outcome
from coding_agents.sandbox.spec import ContainerSpec

OnLine = Callable[[str], None]

MAX_COPY_OUT = 64 << 20  # bytes of one `copy_out`: what comes out of a container has no size of its own


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that answers. `cgroup_version` is 1, 2 or 0 (unknown); unknown numbers are 0.

    `ignored_limits` are the protections (`memory`, …) that the engine is known to accept limits for and to ignore
    (rootless on cgroup v1). `data_root` is a path on the engine's own machine, which may be a remote one. `identity`
    tells it from other engines, its own id where it has one; `context` is the Docker context that led to it, "" where
    there is none.
    `machine` are the name and the kernel of the machine that it runs on, as uname(2) has them there. `gives_volumes`
    is that of its features.
    """

    name: str
    title: str
    version: str
    rootless: bool
    cgroup_version: int
    security_options: tuple[str, ...]
    runtimes: tuple[str, ...]
    default_runtime: str
    data_root: str
    os: str
    arch: str
    cpus: int
    memory_bytes: int
    ignored_limits: tuple[str, ...] = ()
    identity: str = ""
    context: str = ""
    machine: tuple[str, str] = ("", "")
    gives_volumes: bool = False

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine: not elsewhere, nor in a virtual machine of Docker Desktop or Podman."""
        here = os.uname()
        return self.machine == (here.nodename, here.release)

    @property
    def apparmor(self) -> bool:
        return "apparmor" in self.security_options

    @property
    def seccomp(self) -> bool:
        return "seccomp" in self.security_options

    @property
    def user_namespace(self) -> bool:
        """Whether root in a container is an ordinary user outside."""
        return self.rootless or "userns" in self.security_options


class Mounted(msgspec.Struct, frozen=True):
    """A mount as the engine lists it: `kind` volume, bind, …; `name` the volume's name or the host path."""

    kind: str
    name: str
    path: str
    writable: bool


class ContainerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the engine says that it made a container. `capabilities` is None when it does not say."""

    argv: tuple[str, ...]
    user: str
    env: Mapping[str, str]
    workdir: str
    mounts: frozenset[Mounted]
    tmpfs: Mapping[str, frozenset[str]]
    network: str
    dns: tuple[str, ...]
    capabilities: frozenset[str] | None
    read_only: bool
    privileged: bool
    security_options: frozenset[str]
    devices: int
    namespaces: Mapping[str, str]
    memory_bytes: int
    memory_swap_bytes: int
    cpus: Decimal
    pids: int
    shm_bytes: int
    restart: str
    auto_remove: bool
    stop_timeout_s: int
    apparmor: str
    runtime: str


class ContainerState(msgspec.Struct, frozen=True, kw_only=True):
    """A container as the engine sees it now. `started_at` is the engine's own text, empty if never started.

    `oom_killed` is only a hint: Docker reports False when the first process itself was killed.
    """

    id: str
    name: str
    image: str
    labels: Mapping[str, str]
    status: str
    running: bool
    paused: bool
    started_at: str
    pid: int
    exit_code: int
    oom_killed: bool
    error: str
    config: ContainerConfig


class ImageState(msgspec.Struct, frozen=True):
    """A local image: `id` with `sha256:`, `tags` as the engine spells them, `created` its own text."""

    id: str
    tags: tuple[str, ...]
    size_bytes: int
    created: str
    labels: Mapping[str, str]


class Engine(Protocol):
    """Docker or Podman. Every call has a time limit; failures are CodingAgentsError, mostly EngineError.

    Removing, stopping or killing what is not there is no failure: the wish is fulfilled. Everything that
    looks something up gives None (or False, or nothing) when it is missing.
    """

    @property
    def info(self) -> EngineInfo: ...

    # containers
    def create(self, spec: ContainerSpec) -> str: ...
    def start(self, container: str) -> None: ...
    def stop(self, container: str, *, timeout_s: int) -> None: ...
    def kill(self, container: str) -> None: ...
    def remove(self, container: str, *, force: bool = False) -> None: ...
    def inspect(self, container: str) -> ContainerState | None: ...
    def find(self, labels: Mapping[str, str]) -> tuple[ContainerState, ...]: ...
    def copy_in(
        self, container: str, path: str, write: Callable[[BinaryIO], None], *, timeout_s: float = 600.0
    ) -> None: ...
    def feed(
        self,
        container: str,
        argv: Sequence[str],
        write: Callable[[BinaryIO], None],
        *,
        user: str,
        timeout_s: float = 600.0,
    ) -> None: ...
    def copy_out(self, container: str, path: str, *, max_bytes: int = MAX_COPY_OUT) -> bytes: ...
    def read_file(self, container: str, path: str, *, max_bytes: int = MAX_COPY_OUT) -> bytes: ...
    def logs(self, container: str, *, tail: int | None = None) -> bytes: ...
    def exec(
        self, container: str, argv: Sequence[str], *, user: str, timeout_s: float = 60.0, stdin: bytes = b""
    ) -> Outcome: ...

    # commands that the caller runs itself: on a terminal, as a channel, or to follow
    def exec_command(
        self,
        container: str,
        argv: Sequence[str],
        *,
        user: str,
        interactive: bool = False,
        tty: bool = False,
        workdir: str = "",
        env: Sequence[tuple[str, str]] = (),
    ) -> Command: ...
    def start_attached_command(self, container: str) -> Command: ...
    def wait_command(self, container: str) -> Command: ...
    def logs_command(self, container: str, *, follow: bool, tail: int | None = None) -> Command: ...

    # volumes and networks
    def create_volume(self, name: str, *, labels: Mapping[str, str], place: str = "") -> None: ...
    def remove_volume(self, name: str) -> None: ...
    def list_volumes(self, labels: Mapping[str, str]) -> tuple[str, ...]: ...
    def volume_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]: ...
    def volume_exists(self, name: str) -> bool: ...
    def create_network(self, name: str, *, labels: Mapping[str, str]) -> None: ...
    def remove_network(self, name: str) -> None: ...
    def list_networks(self, labels: Mapping[str, str]) -> tuple[str, ...]: ...
    def network_subnets(self, name: str) -> tuple[str, ...]: ...

    # images
    def image_id(self, ref: str) -> str | None: ...
    def find_image(self, ref: str) -> ImageState | None: ...
    def find_images(self, refs: Sequence[str]) -> tuple[ImageState | None, ...]: ...
    def list_images(self, label: str) -> tuple[ImageState, ...]: ...
    def tag(self, image: str, ref: str) -> None: ...
    def remove_image(self, ref: str) -> None: ...
    def build(
        self,
        context: Path,
        *,
        tag: str,
        dockerfile: str = "Dockerfile",
        build_args: Mapping[str, str] = {},
        labels: Mapping[str, str] = {},
        on_line: OnLine,
    ) -> str: ...
    def import_image(self, tar: Path, *, tag: str, changes: Sequence[str] = ()) -> str: ...
    def pull(self, ref: str, *, on_line: OnLine) -> bool: ...
