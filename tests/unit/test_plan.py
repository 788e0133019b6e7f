"""Plans: what a session consists of in each network mode, and that any input gives a safe one."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from coding_agents.engine.argv import RlimitCeiling, create_argv
from coding_agents.engine.features import ENGINES
from coding_agents.errors import NotBuiltError, UsageError
from coding_agents.model.limits import Limits
from coding_agents.sandbox.apparmor import profile_name
from coding_agents.sandbox.guest import CONFIG_DIRECTORY, DOOR_DIRECTORY, GUEST_DIRECTORY
from coding_agents.sandbox.invariants import argv_violations, spec_violations
from coding_agents.sandbox.plan import (
    GVISOR_PIDS,
    Identity,
    PlanInput,
    describe,
    fit_to_host,
    plan_filler,
    plan_salvage,
    plan_session,
    to_json,
)
from coding_agents.sandbox.spec import (
    BridgeNetwork,
    ContainerSpec,
    JoinContainer,
    Network,
    NoNetwork,
    SandboxSpec,
    VolumeMount,
)
from support.specs import ENGINE_ID, GUEST_DIGEST, GUEST_VOLUME, IMAGE, identity, plan_input, session_plan

PROXY_IMAGE = "sha256:" + "3" * 64
_NAMES = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,61}[a-z0-9]", fullmatch=True)
_IMAGES = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
_ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
_LIMITS = st.builds(
    Limits,
    cpus=st.decimals(min_value=Decimal("0.1"), max_value=4096, places=2),
    memory_bytes=st.integers(min_value=1 << 28, max_value=1 << 46),
    pids=st.integers(min_value=64, max_value=1 << 22),
)


@st.composite
def plan_inputs(draw: st.DrawFn) -> PlanInput:
    """Any input that the rest of the program may hand over: hostile texts, any limits, any addresses."""
    limits = draw(_LIMITS)
    who = identity(
        name=draw(_NAMES),
        agent=draw(st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)),
        repo=draw(st.text(max_size=60)),
        repo_path=draw(st.text(max_size=200)),
        branch=draw(st.text(max_size=200)),
        network=draw(st.sampled_from(Network)),
    )
    dns = draw(st.lists(_ADDRESSES, max_size=3))
    return PlanInput(
        identity=who,
        image=draw(_IMAGES),
        base_image=draw(_IMAGES),
        proxy_image=draw(_IMAGES),
        guest_volume=draw(_NAMES),
        guest_digest=draw(st.from_regex(r"[0-9a-f]{64}", fullmatch=True)),
        limits=limits,
        host_cpus=draw(st.none() | st.integers(min_value=1, max_value=256)),
        resolvers=tuple(dns),
        holder_options=(
            *(("--uid", "1002") if who.network is Network.SQUID else ()),
            *(word for address in dns for word in ("--dns", address)),
        ),
        config=draw(st.booleans()),
        apparmor=draw(st.booleans()),
        runtime=draw(st.sampled_from(["", "runc", "crun", *_gvisor_where_it_may_be(who, limits)])),
    )


def _gvisor_where_it_may_be(who: Identity, limits: Limits) -> tuple[str, ...]:
    return ("runsc",) if who.network is Network.RESTRICTED and limits.pids >= GVISOR_PIDS else ()


@given(plan_inputs(), st.sampled_from(sorted(ENGINES)), st.sampled_from([None, 4096, 1 << 20]))
def test_every_plan_passes_both_gates(facts: PlanInput, engine: str, hard: int | None) -> None:
    plan = plan_session(facts)
    sandbox = plan.placed(ENGINE_ID if plan.holder is not None else "")
    specs: list[ContainerSpec] = [*plan.containers, sandbox, plan_salvage(facts), *_fillers()]
    for spec in specs:
        assert spec_violations(spec) == []
        if spec.network == JoinContainer(f"{facts.identity.name}-holder"):
            continue  # is created only after `joined_to`
        argv = create_argv(spec, ENGINES[engine], ceiling=RlimitCeiling(hard, hard))
        assert argv_violations(argv, role=spec.role) == []


def test_allow_all_has_a_holder_and_no_interface_of_its_own() -> None:
    plan = session_plan(network=Network.ALLOW_ALL)
    assert plan.holder is not None
    assert plan.network is not None
    assert plan.holder.network == BridgeNetwork("demo-shop-session-1-net")
    assert plan.sandbox.network == JoinContainer("demo-shop-session-1-holder")
    assert plan.sandbox.joined_to(ENGINE_ID).network == JoinContainer(ENGINE_ID)
    assert plan.holder.argv[6:] == ("holder", "--dns", "192.0.2.53", "--allow", "10.1.2.3:443")
    assert plan.holder.volumes == (VolumeMount(GUEST_VOLUME, "/opt/coding-agents"),)


def test_restricted_has_neither_holder_nor_network() -> None:
    plan = session_plan(network=Network.RESTRICTED)
    assert (plan.holder, plan.network, plan.sandbox.network) == (None, None, NoNetwork())


def test_where_the_kernel_knows_our_profiles_each_container_that_runs_has_its_own() -> None:
    facts = plan_input(apparmor=True)
    specs = (*plan_session(facts).containers, plan_salvage(facts))
    assert [spec.apparmor for spec in specs] == [profile_name(kind) for kind in ("holder", "agent", "agent")]
    assert {spec.apparmor for spec in session_plan().containers} == {""}


def test_gvisor_has_no_network_and_enough_threads() -> None:
    with pytest.raises(NotBuiltError, match="gVisor's own network stack"):
        session_plan(runtime="runsc")
    few = Limits(pids=GVISOR_PIDS - 1)
    with pytest.raises(UsageError, match="too few for the runtime runsc"):
        session_plan(network=Network.RESTRICTED, runtime="runsc", limits=few)
    session_plan(network=Network.RESTRICTED, runtime="crun", limits=few)


def test_our_own_programs_run_where_the_guard_and_the_profiles_bind() -> None:
    """Beside gVisor on the host's kernel; with another runtime in that one, whatever the engine's own is."""
    facts = plan_input(network=Network.RESTRICTED, runtime="runsc", apparmor=True)
    assert [(spec.runtime, spec.apparmor) for spec in (plan_session(facts).sandbox, plan_salvage(facts))] == [
        ("runsc", ""),
        ("", profile_name("agent")),
    ]
    facts = plan_input(runtime="crun")
    assert {spec.runtime for spec in (*plan_session(facts).containers, plan_salvage(facts))} == {"crun"}


def test_squid_gives_the_agent_no_interface_and_its_proxy_what_a_guard_lets_through() -> None:
    plan = session_plan(network=Network.SQUID, proxy_image=PROXY_IMAGE)
    assert plan.holder is not None
    assert plan.network is not None
    assert plan.door is not None
    assert plan.sandbox.network == plan.placed(ENGINE_ID).network == NoNetwork()
    assert plan.sandbox.hostname
    assert (plan.holder.image, plan.sandbox.image) == (PROXY_IMAGE, IMAGE)
    assert plan.holder.network == BridgeNetwork("demo-shop-session-1-net")
    assert plan.holder.argv[6:] == ("proxy", "--dns", "192.0.2.53", "--allow", "10.1.2.3:443")
    assert VolumeMount(plan.door.name, DOOR_DIRECTORY, writable=True) in plan.holder.volumes
    assert VolumeMount(plan.door.name, DOOR_DIRECTORY) in plan.sandbox.volumes
    assert plan.own_volumes == (plan.workspace, plan.home, plan.door)
    assert dict(plan.sandbox.env)["https_proxy"] == "http://127.0.0.1:3128"
    assert "proxy in demo-shop-session-1-holder" in str(describe(plan))


@pytest.mark.parametrize("network", [Network.ALLOW_ALL, Network.RESTRICTED])
def test_no_other_mode_has_a_proxy(network: Network) -> None:
    plan = session_plan(network=network, proxy_image=PROXY_IMAGE)
    assert plan.door is None
    assert not [
        spec for spec in plan.containers if spec.image == PROXY_IMAGE or "proxy" in str(spec.env).lower()
    ]


def test_squid_needs_a_runtime_whose_sockets_are_the_kernels() -> None:
    """gVisor's own network stack gives no socket to another container."""
    with pytest.raises(UsageError, match="squid"):
        session_plan(network=Network.SQUID, proxy_image=PROXY_IMAGE, runtime="runsc")


def test_a_configuration_volume_is_the_agents_alone_and_read_only() -> None:
    plan = session_plan(config=True)
    assert plan.config is not None
    mount = VolumeMount(plan.config.name, "/opt/coding-agents-config", writable=False)
    assert mount in plan.sandbox.volumes
    assert plan.holder is not None
    assert {volume.path for volume in plan.holder.volumes} == {"/opt/coding-agents"}
    assert plan.own_volumes == (plan.workspace, plan.home, plan.config)
    assert session_plan().own_volumes == (plan.workspace, plan.home)


def test_labels_identify_the_session_and_the_kind() -> None:
    plan = session_plan()
    labels = dict(plan.sandbox.labels)
    assert labels == {
        "coding-agents.type": "agent",
        "coding-agents.session": "0123456789ab",
        "coding-agents.agent": "demo",
        "coding-agents.repo": "shop",
        "coding-agents.repo-path": "/home/ann/shop",
        "coding-agents.branch": "demo/session-1",
        "coding-agents.network-policy": "allow-all",
        "coding-agents.version": "0.1.0",
        "coding-agents.nonce": "0f" * 16,
    }
    assert plan.holder is not None
    assert dict(plan.holder.labels)["coding-agents.type"] == "holder"
    assert dict(plan.workspace.labels)["coding-agents.type"] == "volume"


def test_labels_hold_no_control_characters_and_no_keys() -> None:
    who = identity(repo_path="/home/a\n\udc80b", branch="demo/ghp_" + "a" * 36)
    labels = dict(who.labels("agent"))
    assert labels["coding-agents.repo-path"] == "/home/a??b"
    assert labels["coding-agents.branch"] == "(GitHub token)"


def test_limits_fit_the_machine() -> None:
    assert fit_to_host(Limits(), host_cpus=2).cpus == 2
    assert fit_to_host(Limits(), host_cpus=64) == Limits()
    assert fit_to_host(Limits(), host_cpus=None) == Limits()
    assert fit_to_host(Limits(), host_cpus=0) == Limits()


def test_salvage_cannot_write_the_workspace_and_has_no_network() -> None:
    spec = plan_salvage(plan_input())
    assert VolumeMount("demo-shop-session-1-workspace", "/workspace", writable=False) in spec.volumes
    assert spec.network == NoNetwork()
    assert spec.interactive
    assert spec.argv[-1] == "salvage"
    assert spec.image != IMAGE


def test_the_plan_is_shown_whole() -> None:
    shown = "\n".join(describe(session_plan()))
    for part in (
        "demo-shop-session-1-holder",
        IMAGE,
        "1000:1000",
        "2 CPUs, 8g memory, 4096 processes",
        "/workspace",
    ):
        assert part in shown
    assert "no interface but loopback" in "\n".join(describe(session_plan(network=Network.RESTRICTED)))


def test_the_plan_as_json() -> None:
    plan = to_json(session_plan())
    assert json.loads(json.dumps(plan)) == plan
    assert plan["network_name"] == "demo-shop-session-1-net"
    assert [one["role"] for one in plan["containers"]] == ["holder", "agent"]  # type: ignore[attr-defined]


def test_specs_are_frozen() -> None:
    spec: SandboxSpec = session_plan().sandbox
    with pytest.raises(AttributeError):
        spec.user = "0:0"  # type: ignore[misc]
    assert replace(spec, user="0:0") != spec


def _fillers() -> list[ContainerSpec]:
    return [
        plan_filler(
            volume=GUEST_VOLUME,
            path=path,
            guest_digest=GUEST_DIGEST,
            image=IMAGE,
            suffix="fill-01",
            version="0.1.0",
        )
        for path in (GUEST_DIRECTORY, CONFIG_DIRECTORY)
    ]
