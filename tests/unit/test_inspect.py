"""What real engines said (tests/support/capture_engine_data.py) as our types, and drift from the spec."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coding_agents.engine.api import ContainerState, Mounted
from coding_agents.engine.drift import drift, has_profiles
from coding_agents.engine.inspect import (
    image_digest,
    parse_container,
    parse_docker_info,
    parse_image,
    parse_json,
    parse_podman_info,
    parse_version,
)
from coding_agents.errors import EngineError
from coding_agents.sandbox.apparmor import profile_name
from coding_agents.sandbox.seccomp import profile
from coding_agents.sandbox.spec import ContainerSpec, Network
from support.capture_engine_data import profile_put_back
from support.specs import holder, sandbox

_DATA = Path(__file__).parent / "data" / "engine"
_ENGINES = ("docker", "podman")


def _golden(name: str) -> dict[str, Any]:
    document = json.loads((_DATA / f"{name}.json").read_text())
    assert isinstance(document, dict)
    host = document.get("HostConfig", {})
    host["SecurityOpt"] = [profile_put_back(option) for option in host.get("SecurityOpt", [])]
    return document


def _spec(kind: str, document: dict[str, Any]) -> ContainerSpec:
    """The spec from which the golden container was made."""
    image = image_digest(document["Image"])
    if kind == "holder":
        return holder(image=image)
    if kind == "restricted":
        return sandbox(mode=Network.RESTRICTED, image=image, name="demo-shop-session-1-alone")
    return sandbox(image=image).joined_to(document["HostConfig"]["NetworkMode"].removeprefix("container:"))


@pytest.mark.parametrize("which", _ENGINES)
@pytest.mark.parametrize("kind", ["sandbox", "restricted", "holder"])
def test_a_created_container_is_what_was_asked(which: str, kind: str) -> None:
    document = _golden(f"{which}-{kind}")
    state = parse_container(document)
    assert drift(_spec(kind, document), state) == []
    assert (state.status, state.running, state.started_at, state.pid) == ("created", False, "", 0)
    assert state.labels["coding-agents.session"] == "0123456789ab"


@pytest.mark.parametrize("which", _ENGINES)
def test_engines_agree(which: str) -> None:
    config = parse_container(_golden(f"{which}-sandbox")).config
    assert Mounted("volume", "demo-shop-session-1-workspace", "/workspace", True) in config.mounts
    assert config.capabilities == frozenset()
    assert parse_container(_golden(f"{which}-holder")).config.capabilities == frozenset(
        {"NET_ADMIN", "SETUID", "SETGID", "SETPCAP"}
    )
    assert parse_container(_golden(f"{which}-holder")).config.network == "demo-shop-session-1-net"


Edit = Callable[[dict[str, Any]], None]


def _host(key: str, value: object) -> Edit:
    return lambda document: document["HostConfig"].__setitem__(key, value)


def _config(key: str, value: object) -> Edit:
    return lambda document: document["Config"].__setitem__(key, value)


def _mount(kind: str, source: str, path: str) -> Edit:
    entry = {"Type": kind, "Name": source, "Source": source, "Destination": path, "RW": True}
    return lambda document: document["Mounts"].append(entry)


_AGENT = profile("agent").option
_DRIFTS: dict[str, tuple[Edit, str]] = {
    "writable root": (_host("ReadonlyRootfs", False), "root file system is writable"),
    "privileged": (_host("Privileged", True), "privileged"),
    "device": (_host("Devices", [{"PathOnHost": "/dev/kvm"}]), "1 devices"),
    "privileges": (_host("SecurityOpt", [_AGENT]), "new privileges"),
    "seccomp off": (
        _host("SecurityOpt", ["no-new-privileges", "seccomp=unconfined"]),
        "seccomp profile is not that of this version",
    ),
    "unmasked": (
        _host("SecurityOpt", ["no-new-privileges", "systempaths=unconfined", _AGENT]),
        "security options were added",
    ),
    "another profile": (
        _host("SecurityOpt", ["no-new-privileges", profile("ptrace").option]),
        "seccomp profile is not that of this version",
    ),
    "no profile": (_host("SecurityOpt", ["no-new-privileges"]), "seccomp profile is not that"),
    "two profiles": (
        _host("SecurityOpt", ["no-new-privileges", _AGENT, "seccomp=unconfined"]),
        "seccomp profile is not that",
    ),
    "apparmor off": (
        _host("SecurityOpt", ["no-new-privileges", _AGENT, "apparmor=unconfined"]),
        "AppArmor profile: planned none, asked unconfined",
    ),
    "apparmor of another version": (
        _host("SecurityOpt", ["no-new-privileges", _AGENT, "apparmor=coding-agents-agent-0123456789ab"]),
        "AppArmor profile: planned none, asked coding-agents-agent-0123456789ab",
    ),
    "host pid": (_host("PidMode", "host"), "pid namespace is shared"),
    "host ipc": (_host("IpcMode", "host"), "ipc namespace is shared"),
    "host uts": (_host("UTSMode", "host"), "uts namespace is shared"),
    "host users": (_host("UsernsMode", "host"), "user namespace is shared"),
    "memory": (_host("Memory", 0), "memory: asked 8589934592"),
    "swap": (_host("MemorySwap", -1), "memory and swap"),
    "cpus": (_host("NanoCpus", 0), "CPUs: asked 2"),
    "processes": (_host("PidsLimit", 0), "processes: asked 4096"),
    "shm": (_host("ShmSize", 1), "shared memory"),
    "network": (_host("NetworkMode", "host"), "network: asked container:"),
    "restart": (_host("RestartPolicy", {"Name": "always"}), "restarts it"),
    "auto remove": (_host("AutoRemove", True), "removes it"),
    "user": (_config("User", "root"), "user: asked 1000:1000, the engine made root"),
    "workdir": (_config("WorkingDir", "/"), "working directory"),
    "stop timeout": (_config("StopTimeout", 10), "stop timeout"),
    "bind mount": (_mount("bind", "/", "/host"), "a mount was not asked for: bind / at /host"),
    "anonymous volume": (_mount("volume", "f" * 64, "/data"), "a mount was not asked for: volume"),
    "lost mount": (lambda document: document["Mounts"].pop(), "a mount is missing"),
    "tmpfs lost": (lambda document: document["HostConfig"]["Tmpfs"].pop("/run"), "tmpfs differ: /run"),
    "tmpfs executable": (
        lambda document: document["HostConfig"]["Tmpfs"].__setitem__("/run", "rw,nosuid,nodev,size=16777216"),
        "tmpfs /run lacks noexec",
    ),
    "token added": (_config("Env", ["HOME=/home/agentuser", "LANG=C.UTF-8", "GH_TOKEN=x1"]), "GH_TOKEN"),
    "env lost": (_config("Env", ["HOME=/root", "LANG=C.UTF-8"]), "variable HOME differs"),
    "label lost": (_config("Labels", {}), "labels"),
    "command": (lambda document: document.__setitem__("Args", ["-c", "x"]), "command: asked"),
    "image": (lambda document: document.__setitem__("Image", "sha256:" + "9" * 64), "image: asked"),
    "name": (lambda document: document.__setitem__("Name", "other"), "name: asked"),
}


@pytest.mark.parametrize("which", _ENGINES)
@pytest.mark.parametrize("name", _DRIFTS)
def test_each_drift_is_seen(which: str, name: str) -> None:
    edit, expected = _DRIFTS[name]
    document = _golden(f"{which}-sandbox")
    spec = _spec("sandbox", document)
    changed = copy.deepcopy(document)
    edit(changed)
    problems = drift(spec, parse_container(changed))
    assert len(problems) == 1, problems
    assert expected in problems[0]


def test_capabilities_that_were_kept_are_seen() -> None:
    document = _golden("docker-sandbox")
    document["HostConfig"]["CapDrop"] = None
    state = parse_container(document)
    assert state.config.capabilities is None
    assert drift(_spec("sandbox", document), state) == ["capabilities: asked none, the engine made unknown"]
    document = _golden("podman-sandbox")
    document["BoundingCaps"] = ["CAP_SYS_ADMIN"]
    assert drift(_spec("sandbox", document), parse_container(document)) == [
        "capabilities: asked none, the engine made SYS_ADMIN"
    ]


def test_a_limit_that_an_engine_is_known_to_ignore_is_left_to_the_measurement() -> None:
    """As rootless Podman on cgroup v1 drops them all; nothing else is let pass for it."""
    document = _golden("podman-sandbox")
    for key in ("Memory", "MemorySwap", "NanoCpus", "PidsLimit"):
        document["HostConfig"][key] = 0
    spec, state = _spec("sandbox", document), parse_container(document)
    named = ("memory", "memory and swap", "CPUs", "processes")
    assert [line.partition(":")[0] for line in drift(spec, state)] == list(named)
    assert drift(spec, state, ignored=("memory", "swap", "cpus", "pids")) == []
    assert [line.partition(":")[0] for line in drift(spec, state, ignored=("memory",))] == list(named[1:])
    document["HostConfig"]["ShmSize"] = 0
    (left,) = drift(spec, parse_container(document), ignored=("memory", "swap", "cpus", "pids"))
    assert left.startswith("shared memory")


@pytest.mark.parametrize("which", _ENGINES)
def test_another_runtime_than_asked_is_seen(which: str) -> None:
    document = _golden(f"{which}-sandbox")
    document["OCIRuntime"] = "/usr/sbin/runc" if which == "podman" else None
    spec = _spec("sandbox", document)
    assert drift(replace(spec, runtime="runc"), parse_container(document)) == []
    (line,) = drift(replace(spec, runtime="runsc"), parse_container(document))
    assert line == "runtime: asked runsc, the engine made runc"
    document["HostConfig"]["Runtime"] = document["OCIRuntime"] = "runsc"
    (line,) = drift(spec, parse_container(document))
    assert line == "runtime: asked of the engine, the engine made runsc"


@pytest.mark.parametrize("which", _ENGINES)
@pytest.mark.parametrize(
    "key", ["ReadonlyRootfs", "Privileged", "SecurityOpt", "PidMode", "NetworkMode", "AutoRemove"]
)
def test_an_engine_that_no_longer_says_is_an_error(which: str, key: str) -> None:
    document = _golden(f"{which}-sandbox")
    del document["HostConfig"][key]
    with pytest.raises(EngineError, match="in a way that we do not know"):
        parse_container(document)


@pytest.mark.parametrize(
    "document", [{}, {"State": None}, {"State": {}, "Config": {}}, {"State": [], "Config": 1}]
)
def test_nonsense_is_an_engine_error(document: dict[str, Any]) -> None:
    for parse in (parse_container, parse_image, parse_docker_info, parse_podman_info):
        with pytest.raises(EngineError):
            parse(document)


def test_docker_info() -> None:
    info = parse_docker_info(_golden("docker-info"))
    assert (info.name, info.version, info.cgroup_version, info.rootless) == (
        "docker",
        "20.10.24+dfsg1",
        1,
        False,
    )
    assert info.seccomp
    assert not info.apparmor
    assert info.ignored_limits == ()
    assert "runc" in info.runtimes
    assert info.cpus == 2


def test_docker_says_which_limits_the_kernel_does_not_give_it() -> None:
    document = _golden("docker-info")
    document["SwapLimit"] = False
    assert parse_docker_info(document).ignored_limits == ("swap",)


def test_docker_info_of_a_rootless_daemon_with_apparmor() -> None:
    document = _golden("docker-info")
    document["SecurityOptions"] = [
        "name=apparmor",
        "name=seccomp,profile=builtin",
        "name=rootless",
        "name=cgroupns",
    ]
    info = parse_docker_info(document)
    assert info.rootless
    assert info.apparmor
    assert info.seccomp
    assert info.user_namespace


def test_podman_info() -> None:
    info = parse_podman_info(_golden("podman-info"))
    assert (info.name, info.version, info.cgroup_version, info.rootless) == ("podman", "4.3.1", 1, False)
    assert info.seccomp
    assert not info.apparmor
    assert info.ignored_limits == ()


def test_rootless_podman_on_cgroup_v1_ignores_limits() -> None:
    document = _golden("podman-info")
    document["host"]["security"]["rootless"] = True
    assert parse_podman_info(document).ignored_limits == ("memory", "swap", "cpus", "pids")
    document["host"]["cgroupVersion"] = "v2"
    assert parse_podman_info(document).ignored_limits == ()


@pytest.mark.parametrize("which", _ENGINES)
def test_images(which: str) -> None:
    image = parse_image(_golden(f"{which}-image"))
    assert image.id.startswith("sha256:")
    assert len(image.id) == 71
    assert image.size_bytes > 0
    assert any("coding-agents-base" in tag for tag in image.tags)


@pytest.mark.parametrize(
    ("text", "version"), [("20.10.24+dfsg1", (20, 10)), ("4.3.1", (4, 3)), ("5.0.0-rc1", (5, 0))]
)
def test_versions(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "4", "dev", "a.b"])
def test_unreadable_versions(text: str) -> None:
    with pytest.raises(EngineError):
        parse_version(text)


def test_not_json() -> None:
    with pytest.raises(EngineError, match="not JSON"):
        parse_json(b"Error: x")


def test_a_running_container() -> None:
    document = _golden("docker-sandbox")
    document["State"] |= {
        "Status": "running",
        "Running": True,
        "Pid": 7,
        "StartedAt": "2026-11-24T03:42:09.37Z",
    }
    state: ContainerState = parse_container(document)
    assert state.running
    assert state.pid == 7
    assert state.started_at == "2026-11-24T03:42:09.37Z"
    assert drift(_spec("sandbox", document), replace(state, exit_code=1)) == []


@pytest.mark.parametrize(
    ("options", "applied", "same", "told"),
    [
        (["apparmor=@"], "@", True, []),
        (["apparmor=@"], "", True, ["planned @, asked @, applied none"]),
        (["apparmor=@"], "docker-default", True, ["planned @, asked @, applied docker-default"]),
        ([], "docker-default", False, ["planned @, asked none, applied docker-default"]),
        (["apparmor=unconfined"], "unconfined", False, ["planned @, asked unconfined, applied unconfined"]),
        (["apparmor=@", "apparmor=unconfined"], "@", False, ["planned @, asked @, unconfined, applied @"]),
    ],
)
def test_an_engine_that_does_not_apply_our_apparmor_profile_is_found_out(
    options: list[str], applied: str, same: bool, told: list[str]
) -> None:
    """Docker on a kernel without AppArmor takes any name, and says that it applies none."""
    name = profile_name("agent")
    document = _golden("docker-sandbox")
    document["HostConfig"]["SecurityOpt"] += [option.replace("@", name) for option in options]
    document["AppArmorProfile"] = applied.replace("@", name)
    state = parse_container(document)
    spec = replace(_spec("sandbox", document), apparmor=name)
    assert has_profiles(spec, state.config) is same
    assert drift(spec, state) == [f"AppArmor profile: {line.replace('@', name)}" for line in told]
