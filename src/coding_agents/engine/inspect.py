"""From `inspect` and `info` JSON of both engines to our frozen types. Pure; tested on captured output.

A missing key is an error, not a default, where safety depends on it: an engine that no longer says
whether the root is read-only must not look as if it did.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from coding_agents.engine.api import ContainerConfig, ContainerState, EngineInfo, ImageState, Mounted
from coding_agents.engine.features import DOCKER, PODMAN
from coding_agents.errors import EngineError

Json = Mapping[str, Any]
_NEVER = "0001-01-01T00:00:00Z"
_DOCKER_LIMITS = (
    ("memory", "MemoryLimit"),
    ("swap", "SwapLimit"),
    ("cpus", "CpuCfsQuota"),
    ("pids", "PidsLimit"),
)
_MALFORMED = (
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    ArithmeticError,
)  # what reading a wrong shape raises


def parse_json(text: str | bytes) -> Any:
    """JSON from an engine. Raises EngineError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise EngineError("the engine's answer is not JSON", details=str(error)) from error


def parse_container(document: Json) -> ContainerState:
    """One element of `ENGINE container inspect`. Raises EngineError when a part we rely on is missing."""
    try:
        return _container(document)
    except _MALFORMED as error:
        raise EngineError(
            "the engine describes a container in a way that we do not know", details=repr(error)
        ) from error


def parse_image(document: Json) -> ImageState:
    """One element of `ENGINE image inspect`. Raises EngineError."""
    try:
        return ImageState(
            id=image_digest(document["Id"]),
            tags=tuple(document.get("RepoTags") or ()),
            size_bytes=int(document["Size"]),
            created=str(document.get("Created", "")),
            labels=dict((document.get("Config") or {}).get("Labels") or document.get("Labels") or {}),
        )
    except _MALFORMED as error:
        raise EngineError(
            "the engine describes an image in a way that we do not know", details=repr(error)
        ) from error


def parse_docker_info(document: Json) -> EngineInfo:
    """`docker info --format '{{json .}}'` of a daemon that answered. Raises EngineError."""
    try:
        # name=seccomp,profile=default · name=rootless · name=cgroupns
        options = [option.partition("name=")[2].split(",")[0] for option in document["SecurityOptions"] or ()]
        cgroup = str(document.get("CgroupVersion", "1"))
        rootless = "rootless" in options
        return EngineInfo(
            name=DOCKER.name,
            title=DOCKER.title,
            version=document["ServerVersion"],
            rootless=rootless,
            cgroup_version=int(cgroup) if cgroup.isdigit() else 0,
            security_options=tuple(options),
            runtimes=tuple(sorted(document.get("Runtimes") or ())),
            default_runtime=document.get("DefaultRuntime", ""),
            data_root=document["DockerRootDir"],
            os=document["OSType"],
            arch=document["Architecture"],
            cpus=int(document.get("NCPU", 0)),
            memory_bytes=int(document.get("MemTotal", 0)),
            ignored_limits=tuple(name for name, key in _DOCKER_LIMITS if not document.get(key)),
            identity=f"{document.get('ID', '')} {document['DockerRootDir']}",
            machine=(str(document.get("Name", "")), str(document.get("KernelVersion", ""))),
            context=(document.get("ClientInfo") or {}).get("Context", ""),
        )
    except _MALFORMED as error:
        raise EngineError(
            "Docker describes itself in a way that we do not know", details=repr(error)
        ) from error


def parse_podman_info(document: Json) -> EngineInfo:
    """`podman info --format json`. Raises EngineError."""
    try:
        host, store = document["host"], document["store"]
        security = host["security"]
        version = str(host.get("cgroupVersion", "")).removeprefix("v")
        rootless = bool(security["rootless"])
        on = {"seccomp": "seccompEnabled", "apparmor": "apparmorEnabled", "selinux": "selinuxEnabled"}
        return EngineInfo(
            name=PODMAN.name,
            title=PODMAN.title,
            version=document["version"]["Version"],
            rootless=rootless,
            cgroup_version=int(version) if version.isdigit() else 0,
            security_options=tuple(name for name, key in on.items() if security.get(key)),
            runtimes=(host["ociRuntime"]["name"],),
            default_runtime=host["ociRuntime"]["name"],
            data_root=store["graphRoot"],
            os=host["os"],
            arch=host["arch"],
            cpus=int(host.get("cpus", 0)),
            memory_bytes=int(host.get("memTotal", 0)),
            ignored_limits=tuple(name for name, _ in _DOCKER_LIMITS) if rootless and version == "1" else (),
            identity=store["graphRoot"],
            machine=(str(host.get("hostname", "")), str(host.get("kernel", ""))),
            gives_volumes=PODMAN.gives_volumes,
        )
    except _MALFORMED as error:
        raise EngineError(
            "Podman describes itself in a way that we do not know", details=repr(error)
        ) from error


def parse_version(text: str) -> tuple[int, int]:
    """`20.10.24+dfsg1` to (20, 10). Raises EngineError."""
    parts = text.split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError) as error:
        raise EngineError(f"the engine's version is unreadable: {text!r}") from error


def image_digest(image: str) -> str:
    """An image id with its algorithm: Podman leaves `sha256:` out."""
    return image if image.startswith("sha256:") else f"sha256:{image}"


def _container(document: Json) -> ContainerState:
    state, config = document["State"], document["Config"]
    started = state.get("StartedAt") or ""
    return ContainerState(
        id=document["Id"],
        name=document["Name"].removeprefix("/"),
        image=image_digest(document["Image"]),
        labels=dict(config.get("Labels") or {}),
        status=state["Status"],
        running=bool(state["Running"]),
        paused=bool(state["Paused"]),
        started_at="" if started == _NEVER else started,
        pid=int(state.get("Pid") or 0),
        exit_code=int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        error=str(state.get("Error") or ""),
        config=_config(document, config, document["HostConfig"]),
    )


def _config(document: Json, config: Json, host: Json) -> ContainerConfig:
    return ContainerConfig(
        argv=(document["Path"], *(document["Args"] or ())),
        user=config["User"],
        env=dict(_pair(item) for item in config.get("Env") or ()),
        workdir=config["WorkingDir"],
        mounts=frozenset(_mount(mount) for mount in document["Mounts"]),
        tmpfs={path: frozenset(text.split(",")) for path, text in (host.get("Tmpfs") or {}).items()},
        network=_network(document, host),
        dns=tuple(host.get("Dns") or ()),
        capabilities=_capabilities(document, host),
        read_only=bool(host["ReadonlyRootfs"]),
        privileged=bool(host["Privileged"]),
        security_options=frozenset(host["SecurityOpt"] or ()),
        devices=sum(len(host.get(key) or ()) for key in ("Devices", "DeviceRequests", "DeviceCgroupRules")),
        namespaces={
            "pid": host["PidMode"],
            "ipc": host["IpcMode"],
            "uts": host["UTSMode"],
            "user": host["UsernsMode"],
            "cgroup": host["CgroupMode"] if "CgroupMode" in host else host["CgroupnsMode"],
        },
        memory_bytes=int(host["Memory"]),
        memory_swap_bytes=int(host["MemorySwap"]),
        cpus=Decimal(host["NanoCpus"]) / 10**9,
        pids=int(host["PidsLimit"] or 0),
        shm_bytes=int(host["ShmSize"]),
        restart=(host.get("RestartPolicy") or {}).get("Name") or "no",
        auto_remove=bool(host["AutoRemove"]),
        stop_timeout_s=int(config.get("StopTimeout") or 0),
        apparmor=document.get("AppArmorProfile") or "",
        # Podman says "oci" in the place of Docker, and knows some by their paths.
        runtime=str(document.get("OCIRuntime") or host.get("Runtime") or "").rpartition("/")[2],
    )


def _capabilities(document: Json, host: Json) -> frozenset[str] | None:
    """What the first process may hold at most: Podman says it itself, for Docker it follows from `ALL`."""
    if "BoundingCaps" in document:
        named = {*(document["BoundingCaps"] or ()), *(document.get("EffectiveCaps") or ())}
    elif "ALL" in (host["CapDrop"] or ()):
        named = set(host["CapAdd"] or ())
    else:
        return None
    return frozenset(name.removeprefix("CAP_") for name in named)


def _network(document: Json, host: Json) -> str:
    mode = str(host["NetworkMode"])
    if mode == "bridge":  # Podman says only this for a network with a name
        names = list((document.get("NetworkSettings") or {}).get("Networks") or ())
        return names[0] if len(names) == 1 else mode
    return mode


def _mount(mount: Json) -> Mounted:
    kind = mount["Type"]
    name = mount["Name"] if kind == "volume" else mount.get("Source", "")
    return Mounted(kind, name, mount["Destination"], bool(mount["RW"]))


def _pair(item: str) -> tuple[str, str]:
    name, _, value = item.partition("=")
    return name, value
