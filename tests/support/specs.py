"""Valid inputs for sandbox and engine tests, each part replaceable by keyword."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from coding_agents.model.limits import MIB, Limits
from coding_agents.sandbox.plan import Identity, PlanInput, SessionPlan, plan_session
from coding_agents.sandbox.spec import (
    HelperSpec,
    HolderSpec,
    Network,
    SandboxSpec,
    scratch,
)

IMAGE = "sha256:" + "1" * 64
BASE_IMAGE = "sha256:" + "2" * 64
ENGINE_ID = "a" * 64
GUEST_VOLUME = "coding-agents-guest-0123456789ab"
GUEST_DIGEST = "0123456789ab" + "0" * 52


def identity(**changes: Any) -> Identity:
    base = Identity(
        session="0123456789ab",
        nonce="0f" * 16,
        name="demo-shop-session-1",
        agent="demo",
        repo="shop",
        repo_path="/home/ann/shop",
        branch="demo/session-1",
        network=Network.ALLOW_ALL,
        version="0.1.0",
    )
    return replace(base, **changes)


def plan_input(*, network: Network = Network.ALLOW_ALL, **changes: Any) -> PlanInput:
    base = PlanInput(
        identity=identity(network=network),
        image=IMAGE,
        base_image=BASE_IMAGE,
        guest_volume=GUEST_VOLUME,
        guest_digest=GUEST_DIGEST,
        limits=Limits(),
        host_cpus=2,
        resolvers=("192.0.2.53",),
        holder_options=("--dns", "192.0.2.53", "--allow", "10.1.2.3:443"),
    )
    return replace(base, **changes)


def session_plan(*, network: Network = Network.ALLOW_ALL, **changes: Any) -> SessionPlan:
    return plan_session(plan_input(network=network, **changes))


def sandbox(*, mode: Network = Network.ALLOW_ALL, **changes: Any) -> SandboxSpec:
    """The agent's container as it is created: in the holder's namespace by id, or without a network."""
    spec = session_plan(network=mode).sandbox
    joined = spec.joined_to(ENGINE_ID) if mode is Network.ALLOW_ALL else spec
    return replace(joined, **changes)


def holder(**changes: Any) -> HolderSpec:
    spec = session_plan().holder
    assert spec is not None
    return replace(spec, **changes)


def helper(*, name: str, image: str, argv: tuple[str, ...], **changes: Any) -> HelperSpec:
    """A small container that runs `argv` as uid 1000 with all walls, for tests of an engine."""
    base = HelperSpec(
        name=name,
        image=image,
        argv=argv,
        labels=(("coding-agents.type", "helper"),),
        tmpfs=scratch(tmp_bytes=16 * MIB, var_tmp_bytes=16 * MIB),
        limits=Limits(memory_bytes=256 * MIB, pids=64, shm_bytes=MIB, cpus=Limits().cpus / 4),
    )
    return replace(base, **changes)
