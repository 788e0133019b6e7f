"""The gates refuse each single weakening of a spec and of a command line, and any flag they do not know."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from coding_agents.engine.argv import create_argv
from coding_agents.engine.features import DOCKER, ENGINES, PODMAN
from coding_agents.errors import InvariantError
from coding_agents.model.limits import Limits
from coding_agents.sandbox.apparmor import profile_name
from coding_agents.sandbox.invariants import (
    argv_violations,
    check_argv,
    check_spec,
    check_volume,
    spec_violations,
)
from coding_agents.sandbox.plan import plan_filler, plan_salvage
from coding_agents.sandbox.spec import (
    BridgeNetwork,
    ContainerSpec,
    JoinContainer,
    Network,
    NoNetwork,
    Role,
    Tmpfs,
    VolumeMount,
)
from support.specs import ENGINE_ID, GUEST_DIGEST, IMAGE, holder, plan_input, sandbox

_TOKEN = "ghp_" + "a" * 36


def _with_limits(**changes: Any) -> ContainerSpec:
    return sandbox(limits=replace(Limits(), **changes))


def _with_tmpfs(*tmpfs: Tmpfs) -> ContainerSpec:
    return sandbox(tmpfs=(*sandbox().tmpfs, *tmpfs))


def _changed(argv: tuple[str, ...], index: int, word: str) -> tuple[str, ...]:
    return (*argv[:index], word, *argv[index + 1 :])


_BAD_SPECS: dict[str, ContainerSpec] = {
    "host path": sandbox(volumes=(VolumeMount("/etc", "/workspace", writable=True),)),
    "relative host path": sandbox(volumes=(VolumeMount("./src", "/workspace", writable=True),)),
    "engine socket": sandbox(volumes=(VolumeMount("docker.sock", "/var/run/docker.sock"),)),
    "mount over the system": sandbox(volumes=(VolumeMount("vol", "/etc"),)),
    "writable guest": sandbox(volumes=(VolumeMount("vol", "/opt/coding-agents", writable=True),)),
    "writable configuration": sandbox(
        volumes=(VolumeMount("vol", "/opt/coding-agents-config", writable=True),)),
    "holder with a configuration": holder(volumes=(VolumeMount("vol", "/opt/coding-agents-config"),)),
    "mounted twice": sandbox(volumes=(VolumeMount("a", "/workspace"), VolumeMount("b", "/workspace"))),
    "root": sandbox(user="0:0"),
    "root group": sandbox(user="1000:0"),
    "no user": sandbox(user=""),
    "another user": sandbox(user="1002:1002"),
    "image by name": sandbox(image="coding-agents-demo:local"),
    "no image": sandbox(image=""),
    "other command": sandbox(argv=("/bin/sh",)),
    "other loader": sandbox(argv=_changed(sandbox().argv, 3, "import coding_agents_guest")),
    "other program": sandbox(argv=_changed(sandbox().argv, 4, "/workspace/guest.pyz")),
    "no digest": sandbox(argv=_changed(sandbox().argv, 5, "")),
    "other guest command": sandbox(argv=(*sandbox().argv[:6], "holder")),
    "more words": sandbox(argv=(*sandbox().argv, "-h")),
    "host network": sandbox(network=BridgeNetwork("host")),
    "own bridge": sandbox(network=BridgeNetwork("net")),
    "join of something odd": sandbox(network=JoinContainer("a b")),
    "agent with resolvers": sandbox(dns=("192.0.2.1",)),
    "token in env": sandbox(env=(("X", _TOKEN),)),
    "secret name in env": sandbox(env=(("API_KEY", "swordfish"),)),
    "malformed env name": sandbox(env=(("A B", "c"),)),
    "token in label": sandbox(labels=(*sandbox().labels, ("x", _TOKEN))),
    "newline in label": sandbox(labels=(*sandbox().labels, ("x", "a\nb"))),
    "malformed label": sandbox(labels=(*sandbox().labels, ("X=y", "z"))),
    "wrong role in label": sandbox(labels=(("coding-agents.type", "holder"),)),
    "no label": sandbox(labels=()),
    "no memory limit": _with_limits(memory_bytes=0),
    "no process limit": _with_limits(pids=0),
    "unlimited processes": _with_limits(pids=-1),
    "no cpu limit": _with_limits(cpus=Decimal(0)),
    "small shm": _with_limits(shm_bytes=1 << 20),
    "no log limit": _with_limits(log_bytes=0),
    "no file limit": _with_limits(nofile_soft=0),
    "hard below soft": _with_limits(nofile_hard=1),
    "unsized tmpfs": sandbox(tmpfs=(*sandbox().tmpfs[1:], Tmpfs("/run", 0))),
    "missing tmpfs": sandbox(tmpfs=sandbox().tmpfs[1:]),
    "tmpfs elsewhere": _with_tmpfs(Tmpfs("/etc", 1)),
    "tmpfs twice": _with_tmpfs(Tmpfs("/tmp", 1)),
    "programs in /run": sandbox(tmpfs=(*sandbox().tmpfs[1:], Tmpfs("/run", 1, executable=True))),
    "odd mode": sandbox(tmpfs=(*sandbox().tmpfs[1:], Tmpfs("/run", 1, mode="4777"))),
    "bad name": sandbox(name="-rm"),
    "bad host name": sandbox(hostname="a b"),
    "unconfined": sandbox(apparmor="unconfined"),
    "AppArmor profile of the engine": sandbox(apparmor="docker-default"),
    "AppArmor profile of another version": sandbox(apparmor="coding-agents-agent-0123456789ab"),
    "AppArmor profile of the holder": sandbox(apparmor=profile_name("holder")),
    "holder with the agent's AppArmor profile": holder(apparmor=profile_name("agent")),
    "runtime as path": sandbox(runtime="/tmp/runc"),
    "relative workdir": sandbox(workdir="tmp"),
    "no stop timeout": sandbox(stop_timeout_s=0),
    "holder with workspace": holder(volumes=(VolumeMount("vol", "/workspace"),)),
    "holder without network": holder(network=NoNetwork()),
    "holder joins": holder(network=JoinContainer(ENGINE_ID)),
    "holder on the default bridge": holder(network=BridgeNetwork("bridge")),
    "holder on the host": holder(network=BridgeNetwork("host")),
    "holder runs another program": holder(argv=("/bin/sh", "-c", "id")),
    "holder runs another command": holder(argv=(*holder().argv[:6], "entrypoint")),
    "holder with an option": holder(argv=(*holder().argv[:7], "--file", "/etc/shadow")),
    "holder with half an option": holder(argv=(*holder().argv[:7], "--dns")),
    "holder with an odd resolver": holder(argv=(*holder().argv[:7], "--dns", "example.org")),
    "holder with an open port range": holder(argv=(*holder().argv[:7], "--allow", "10.0.0.1:0")),
    "holder with an odd dns": holder(dns=("1.2.3.4; id",)),
    "holder as the agent": holder(user="1000:1000"),
    "salvage writes": replace(plan_salvage(plan_input()), volumes=(
        VolumeMount("vol", "/workspace", writable=True), VolumeMount("g", "/opt/coding-agents"))),
    "salvage on a network": replace(plan_salvage(plan_input()), network=BridgeNetwork("net")),
    "salvage joins": replace(plan_salvage(plan_input()), network=JoinContainer(ENGINE_ID)),
    "salvage as root": replace(plan_salvage(plan_input()), user="0:0"),
    "helper without command": replace(plan_salvage(plan_input()), argv=()),
    "filler of a configuration that mounts more": replace(
        plan_salvage(plan_input()), volumes=(
            VolumeMount("c", "/opt/coding-agents-config", writable=True), VolumeMount("w", "/workspace"))),
    "filler that mounts more": replace(
        plan_filler(volume="g", guest_digest=GUEST_DIGEST, image=IMAGE, suffix="x", version="1"),
        volumes=(VolumeMount("g", "/opt/coding-agents", writable=True), VolumeMount("w", "/workspace"))),
}  # fmt: skip


@pytest.mark.parametrize("name", _BAD_SPECS)
def test_each_weakened_spec_is_refused(name: str) -> None:
    assert spec_violations(_BAD_SPECS[name])
    with pytest.raises(InvariantError):
        check_spec(_BAD_SPECS[name])


def test_every_violation_is_named() -> None:
    spec = sandbox(user="0:0", image="x", volumes=(VolumeMount("/", "/workspace", writable=True),))
    with pytest.raises(InvariantError) as caught:
        check_spec(spec)
    for part in ("user is '0:0'", "image is not given by id", "host path"):
        assert part in caught.value.details


Edit = Callable[[list[str]], list[str]]


def _add(*words: str) -> Edit:
    return lambda argv: [argv[0], *words, *argv[1:]]


def _drop(flag: str) -> Edit:
    return lambda argv: [word for word in argv if word.partition("=")[0] != flag]


def _swap(flag: str, value: str) -> Edit:
    return lambda argv: [f"{flag}={value}" if word.partition("=")[0] == flag else word for word in argv]


def _replace(old: str, new: str) -> Edit:
    return lambda argv: [word.replace(old, new) for word in argv]


_ALWAYS_REFUSED: dict[str, Edit] = {
    "-v": _add("-v=/:/host"),
    "-v in two words": _add("-v", "/:/host"),
    "-v glued": _add("-v/:/host"),
    "--volume": _add("--volume=/:/host"),
    "--volume of a volume": _add("--volume=vol:/x"),
    "--volumes-from": _add("--volumes-from=other"),
    "bind mount": _add("--mount=type=bind,source=/,target=/workspace"),
    "bind mount, src": _add("--mount=type=bind,src=/,dst=/workspace"),
    "bind mount in another order": _add("--mount=source=/,target=/workspace,type=bind"),
    "volume with bind options": _add("--mount=type=volume,source=v,target=/workspace,volume-opt=o=bind"),
    "writable configuration": _add("--mount=type=volume,source=v,target=/opt/coding-agents-config"),
    "volume of a path": _add("--mount=type=volume,source=/etc,target=/workspace"),
    "anonymous volume": _add("--mount=type=volume,target=/workspace"),
    "engine socket": _add("--mount=type=bind,source=/var/run/docker.sock,target=/var/run/docker.sock"),
    "api socket": _add("--use-api-socket"),
    "image mount": _add("--mount=type=image,source=x,target=/workspace"),
    "mount elsewhere": _add("--mount=type=volume,source=v,target=/etc"),
    "tmpfs mount": _add("--mount=type=tmpfs,target=/etc"),
    "device": _add("--device=/dev/kvm"),
    "device rule": _add("--device-cgroup-rule=c 1:1 rwm"),
    "gpus": _add("--gpus=all"),
    "privileged": _add("--privileged"),
    "privileged=true": _add("--privileged=true"),
    "capability": _add("--cap-add=SYS_ADMIN"),
    "all capabilities": _add("--cap-add=ALL"),
    "capability, other spelling": _add("--cap-add=CAP_SYS_PTRACE"),
    "seccomp off": _add("--security-opt=seccomp=unconfined"),
    "apparmor off": _add("--security-opt=apparmor=unconfined"),
    "apparmor of another": _add("--security-opt=apparmor=docker-default"),
    "apparmor of another version": _add("--security-opt=apparmor=coding-agents-agent-0123456789ab"),
    "apparmor twice": _add(*2 * [f"--security-opt=apparmor={profile_name('agent')}"]),
    "apparmor in the place of seccomp": _swap("--security-opt", f"apparmor={profile_name('agent')}"),
    "privileges": _swap("--security-opt", "no-new-privileges=false"),
    "unmasked /proc": _add("--security-opt=systempaths=unconfined"),
    "host network": _swap("--network", "host"),
    "second network": _add("--network=bridge"),
    "net alias": _add("--net=host"),
    "path namespace": _swap("--network", "ns:/proc/1/ns/net"),
    "host pid": _add("--pid=host"),
    "other's pid": _add("--pid=container:x"),
    "host ipc": _swap("--ipc", "host"),
    "host uts": _add("--uts=host"),
    "host userns": _add("--userns=host"),
    "host cgroupns": _swap("--cgroupns", "host"),
    "cgroup parent": _add("--cgroup-parent=/"),
    "writable root": _drop("--read-only"),
    "writable root by value": _replace("--read-only", "--read-only=false"),
    "some capabilities kept": _swap("--cap-drop", "NET_RAW"),
    "healthcheck": _drop("--no-healthcheck"),
    "health command": _add("--health-cmd=id"),
    "pulls": _swap("--pull", "always"),
    "restarts": _swap("--restart", "always"),
    "removes itself": _add("--rm"),
    "publishes": _add("--publish=80:80"),
    "env from the host": _add("--env=HOME"),
    "env file": _add("--env-file=/etc/environment"),
    "token in env": _add(f"--env=X={_TOKEN}"),
    "secret name in env": _add("--env=DB_PASSWORD=swordfish"),
    "token in label": _add(f"--label=x={_TOKEN}"),
    "token in command": lambda argv: [*argv, _TOKEN],
    "swap": _swap("--memory-swap", "-1"),
    "more swap": _swap("--memory-swap", str(1 << 50)),
    "unlimited processes": _swap("--pids-limit", "-1"),
    "no cpus": _swap("--cpus", "0"),
    "cpus nan": _swap("--cpus", "nan"),
    "unlimited log": lambda argv: [word for word in argv if not word.startswith("--log-opt=max-size")],
    "log elsewhere": _swap("--log-driver", "syslog"),
    "oom immunity": _add("--oom-score-adj=-1000"),
    "oom off": _add("--oom-kill-disable"),
    "sysctl": _add("--sysctl=kernel.core_pattern=x"),
    "supplementary group": _add("--group-add=0"),
    "image by name": _replace("sha256:", "busybox@sha256:"),
    "exec in /run": _replace("/run:rw,nosuid,nodev,noexec", "/run:rw,nosuid,nodev,exec"),
    "tmpfs with setuid": _replace("/tmp:rw,nosuid", "/tmp:rw,suid"),
    "tmpfs without size": lambda argv: [word.partition(",size=")[0] for word in argv],
    "runtime as path": _add("--runtime=/tmp/evil"),
    "no rlimits": lambda argv: [word for word in argv if not word.startswith("--ulimit=nofile")],
    "files of any size": lambda argv: [word for word in argv if not word.startswith("--ulimit=fsize")],
    "not create": lambda argv: ["run", *argv[1:]],
    "user by name": _swap("--user", "root"),
    "user twice": _add("--user=0:0"),
    "entry point twice": _add("--entrypoint=/bin/sh"),
    "host proxies": _add("--http-proxy=true"),
    "systemd": _add("--systemd=always"),
    "host users": _add("--hostuser=root"),
    "secret": _add("--secret=x"),
    "rootfs": _add("--rootfs"),
    "init binary": _add("--init-path=/tmp/x"),
    "nothing": lambda argv: [],
}  # fmt: skip


@pytest.mark.parametrize("features", [DOCKER, PODMAN], ids=lambda features: features.name)
@pytest.mark.parametrize(
    "spec",
    [sandbox(), sandbox(mode=Network.RESTRICTED), holder(), plan_salvage(plan_input())],
    ids=["agent", "restricted", "holder", "salvage"],
)
def test_each_weakened_command_line_is_refused(spec: ContainerSpec, features: Any) -> None:
    argv = list(create_argv(spec, features))
    assert argv_violations(argv, role=spec.role) == []
    missed = []
    for name, edit in _ALWAYS_REFUSED.items():
        weakened = edit(argv)
        assert weakened != argv, name
        if not argv_violations(weakened, role=spec.role):
            missed.append(name)
    assert missed == []


@pytest.mark.parametrize(
    ("spec", "other"), [(sandbox(), "holder"), (holder(), "agent"), (plan_salvage(plan_input()), "holder")]
)
def test_an_apparmor_profile_is_for_one_kind_of_container(spec: ContainerSpec, other: str) -> None:
    words = list(create_argv(replace(spec, apparmor=profile_name(other)), DOCKER))
    assert len(argv_violations(words, role=spec.role)) == 1
    own = replace(spec, apparmor=profile_name("agent" if other == "holder" else "holder"))
    assert argv_violations(create_argv(own, DOCKER), role=spec.role) == []


@pytest.mark.parametrize("which", sorted(ENGINES))
def test_no_single_flag_can_be_left_out(which: str) -> None:
    """Every wall and limit is required: dropping any flag but these harmless ones is refused."""
    optional = {
        "--env",
        "--label",
        "--hostname",
        "--workdir",
        "--http-proxy",
        "--systemd",
        "--mount",
        "--interactive",
    }
    for spec in (sandbox(), sandbox(mode=Network.RESTRICTED), plan_salvage(plan_input())):
        argv = list(create_argv(spec, ENGINES[which]))
        for flag in {word.partition("=")[0] for word in argv if word.startswith("--")} - optional:
            assert argv_violations(_drop(flag)(argv), role=spec.role), flag


def test_roles_are_not_interchangeable() -> None:
    for spec in (sandbox(), holder(), plan_salvage(plan_input())):
        for role in set(Role) - {spec.role}:
            weaker_or_other = argv_violations(create_argv(spec, DOCKER), role=role)
            assert weaker_or_other or (spec.role is Role.HELPER and role is Role.AGENT)


def test_the_agent_joins_by_engine_id_only() -> None:
    argv = list(create_argv(sandbox(), DOCKER))
    for other in ("container:demo-holder", f"container:{'a' * 63}", "container:", ENGINE_ID):
        assert argv_violations(_swap("--network", other)(argv), role=Role.AGENT)


def test_check_argv_raises() -> None:
    with pytest.raises(InvariantError, match="unknown flag --privileged"):
        check_argv([*create_argv(sandbox(), DOCKER)[:2], "--privileged", *create_argv(sandbox(), DOCKER)[2:]],
                   role=Role.AGENT)  # fmt: skip


@given(st.from_regex(r"--?[a-z][a-z-]{0,20}(=.{0,20})?", fullmatch=True))
def test_a_flag_of_any_other_name_is_refused(flag: str) -> None:
    argv = list(create_argv(sandbox(), DOCKER))
    known = {word.partition("=")[0] for word in argv} | {"--interactive", "--runtime", "--cap-add", "--dns"}
    known |= {"--http-proxy", "--systemd", "--hostname"}
    if flag.partition("=")[0] not in known:
        assert argv_violations(_add(flag)(argv), role=Role.AGENT)


_SESSION = "/home/ann/.local/state/coding-agents/sessions/0123456789ab"


def test_a_volume_is_the_engines_own_or_a_directory_of_a_sessions_file_system() -> None:
    for place in (
        "",
        f"{_SESSION}/disk/workspace",
        f"{_SESSION}/disk/home",
        "/a b/coding-agents/sessions/" + "0" * 12 + "/disk/home",
    ):
        check_volume("shop-workspace", place)


@pytest.mark.parametrize(
    "place",
    [
        "/", "/etc", "/home/ann", "workspace", "./disk/workspace", "/var/run/docker.sock",
        _SESSION, f"{_SESSION}/disk", f"{_SESSION}/relay.git", f"{_SESSION}/disk/config", f"{_SESSION}/disk/home/",
        f"{_SESSION}/disk/home/../../relay.git", f"{_SESSION}/disk/home\n", f"{_SESSION}/disk/home,rw",
        f"/x/../{_SESSION}/disk/home", f"{_SESSION[:-1]}/disk/home",
        "/a\n/coding-agents/sessions/0123456789ab/disk/home",
    ],
)  # fmt: skip
def test_no_other_directory_of_the_host_is_a_volume(place: str) -> None:
    with pytest.raises(InvariantError, match="no directory of a session's own file system"):
        check_volume("shop-workspace", place)
