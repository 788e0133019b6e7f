"""The command line of a spec, word for word, on both engines."""

from __future__ import annotations

from decimal import Decimal

from msgspec.structs import replace

from coding_agents.engine.argv import RlimitCeiling, create_argv, network_text
from coding_agents.engine.features import DOCKER, PODMAN, PROXY_VARIABLES
from coding_agents.sandbox.apparmor import profile_name
from coding_agents.sandbox.guest import guest_argv
from coding_agents.sandbox.rules import PROFILES
from coding_agents.sandbox.spec import BridgeNetwork, JoinContainer, Network, NoNetwork
from support.specs import ENGINE_ID, GUEST_DIGEST, IMAGE, holder, sandbox

_WALLS = (
    "--pull=never",
    "--no-healthcheck",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--ipc=private",
    "--cgroupns=private",
    "--restart=no",
    f"--security-opt=seccomp={PROFILES}/agent.json",
)


def test_the_agent_on_docker() -> None:
    argv = create_argv(
        replace(sandbox(mode=Network.RESTRICTED), labels=(("coding-agents.type", "agent"),)), DOCKER
    )
    assert argv == (
        "create",
        "--name=demo-shop-session-1",
        *_WALLS,
        "--user=1000:1000",
        "--workdir=/workspace",
        "--network=none",
        "--hostname=demo-012345",
        "--memory=8589934592",
        "--memory-swap=8589934592",
        "--cpus=2",
        "--pids-limit=4096",
        "--shm-size=1073741824",
        "--ulimit=nofile=8192:16384",
        "--ulimit=fsize=34359738368:34359738368",
        "--ulimit=core=0:0",
        "--log-driver=json-file",
        "--log-opt=max-size=10485760",
        "--log-opt=max-file=3",
        "--tmpfs=/run:rw,nosuid,nodev,noexec,size=16777216,mode=755",
        "--tmpfs=/run/coding-agents:rw,nosuid,nodev,noexec,size=1048576,mode=1777",
        "--tmpfs=/tmp:rw,nosuid,nodev,exec,size=2147483648,mode=1777",
        "--tmpfs=/var/tmp:rw,nosuid,nodev,exec,size=1073741824,mode=1777",
        "--mount=type=volume,source=demo-shop-session-1-workspace,target=/workspace",
        "--mount=type=volume,source=demo-shop-session-1-home,target=/home/agentuser",
        "--mount=type=volume,source=coding-agents-guest-0123456789ab,target=/opt/coding-agents,ro",
        "--env=HOME=/home/agentuser",
        "--env=LANG=C.UTF-8",
        *(f"--env={name}=" for name in PROXY_VARIABLES),
        "--label=coding-agents.type=agent",
        "--stop-timeout=120",
        "--entrypoint=/usr/bin/python3",
        IMAGE,
        *guest_argv(GUEST_DIGEST, "entrypoint")[1:],
    )


def test_what_differs_on_podman() -> None:
    docker, podman = create_argv(sandbox(), DOCKER), create_argv(sandbox(), PODMAN)
    assert set(podman) - set(docker) == {"--http-proxy=false", "--systemd=false", "--log-driver=k8s-file"}
    blanks = {f"--env={name}=" for name in PROXY_VARIABLES}
    assert set(docker) - set(podman) == {"--log-driver=json-file", "--log-opt=max-file=3", *blanks}


def test_an_apparmor_profile_is_one_more_wall() -> None:
    name = profile_name("agent")
    with_it, without = create_argv(sandbox(apparmor=name), DOCKER), create_argv(sandbox(), DOCKER)
    assert [word for word in with_it if word not in without] == [f"--security-opt=apparmor={name}"]


def test_a_joined_container_has_no_host_name_of_its_own() -> None:
    argv = create_argv(sandbox(), DOCKER)
    assert f"--network=container:{ENGINE_ID}" in argv
    assert not any(word.startswith("--hostname") for word in argv)


def test_the_holder_gets_its_four_capabilities_and_resolvers() -> None:
    argv = create_argv(holder(), DOCKER)
    assert [word for word in argv if word.startswith("--cap")] == [
        "--cap-drop=ALL",
        "--cap-add=NET_ADMIN",
        "--cap-add=SETUID",
        "--cap-add=SETGID",
        "--cap-add=SETPCAP",
    ]
    assert "--dns=192.0.2.53" in argv
    assert "--user=0:0" in argv
    assert "--network=demo-shop-session-1-net" in argv


def test_rlimits_fit_under_the_hosts_hard_ones() -> None:
    ceiling = RlimitCeiling(nofile=4096, nproc=32768)
    assert {"--ulimit=nofile=4096:4096", "--ulimit=nproc=32768:32768"} <= set(
        create_argv(sandbox(), PODMAN, ceiling=ceiling)
    )
    roomy = create_argv(sandbox(), PODMAN, ceiling=RlimitCeiling(nofile=1 << 20))
    assert "--ulimit=nofile=8192:16384" in roomy
    assert not any("nproc" in word for word in roomy)


def test_a_proxy_that_the_spec_sets_is_not_blanked() -> None:
    argv = create_argv(sandbox(env=(("HTTPS_PROXY", "http://127.0.0.1:3128"),)), DOCKER)
    assert [word for word in argv if word.startswith("--env=HTTPS_PROXY")] == [
        "--env=HTTPS_PROXY=http://127.0.0.1:3128"
    ]


def test_the_runtime_is_podmans_own_option() -> None:
    assert "--runtime=runsc" in create_argv(sandbox(runtime="runsc"), DOCKER)
    assert "--runtime=runsc" not in create_argv(sandbox(runtime="runsc"), PODMAN)


def test_fractions_of_a_cpu() -> None:
    spec = sandbox()
    half = replace(spec, limits=replace(spec.limits, cpus=Decimal("0.50")))
    assert "--cpus=0.5" in create_argv(half, DOCKER)


def test_networks() -> None:
    assert [network_text(one) for one in (NoNetwork(), BridgeNetwork("x-net"), JoinContainer("id"))] == [
        "none",
        "x-net",
        "container:id",
    ]
