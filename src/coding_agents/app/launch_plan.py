"""What a launch is to make, from request, facts and name: the plan for the engine, and the record for the host."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from coding_agents import __version__
from coding_agents.app.bring_up import Guarding
from coding_agents.app.egress import host_proxy_place
from coding_agents.app.gather import Gathered
from coding_agents.app.launch_images import LaunchImages
from coding_agents.app.launch_request import LaunchRequest
from coding_agents.app.naming import Naming
from coding_agents.app.signing import people_of
from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import EngineInfo
from coding_agents.engine.apparmor import profiles_loaded
from coding_agents.engine.blockdev import data_device, device_below
from coding_agents.images.api import ImageRef
from coding_agents.model.limits import NO_DISK, NO_IO, Limits
from coding_agents.model.runtimes import AUTO, is_gvisor
from coding_agents.model.session import SessionRecord, Volumes
from coding_agents.network.dns import read_resolvers
from coding_agents.network.guard import guard_rate, parse_private
from coding_agents.quota.image import Image
from coding_agents.sandbox.plan import Identity, PlanInput, SessionPlan, plan_session
from coding_agents.sandbox.spec import BRIDGE_UID, Network
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import engine_choice, repo_ref
from coding_agents.supervisor.guest_program import GuestProgram


def launch_guarding(request: LaunchRequest, environ: Mapping[str, str]) -> Guarding:
    """What the network guard of the session must allow. Raises ConfigError for a proxy of the host's without use."""
    private = tuple(parse_private(text) for text in request.settings.network_private)
    if request.network is Network.RESTRICTED:
        return Guarding((), private)
    rate = guard_rate(request.settings.limits_bandwidth)
    if request.network is Network.SQUID and (place := host_proxy_place(environ)):
        private = tuple(dict.fromkeys((*private, place)))
    return Guarding(read_resolvers(), private, rate=rate, uid=proxy_uid(request.network))


def proxy_uid(network: Network) -> int:
    """Who alone may open connections in the network of a session's holder; 0 for whoever is there."""
    return BRIDGE_UID if network is Network.SQUID else 0


def launch_runtime(request: LaunchRequest, info: EngineInfo) -> str:
    """The runtime that the session is planned for; "" for the engine's own, where that is not gVisor."""
    asked = request.settings.runtime
    if asked != AUTO:
        return asked
    return info.default_runtime if is_gvisor(info.default_runtime) else ""


def with_device(limits: Limits, info: EngineInfo, state_dir: Path) -> Limits:
    """The same limits with the disk that holds what the session writes, where its use is limited."""
    if min(limits.disk_read, limits.disk_write) >= NO_IO:
        return limits
    has_quota = limits.disk_bytes < NO_DISK
    return replace(limits, disk_device=device_below(state_dir) if has_quota else data_device(info))


def launch_plan(
    request: LaunchRequest,
    facts: Gathered,
    naming: Naming,
    program: GuestProgram,
    guarding: Guarding,
    images: LaunchImages,
    *,
    state_dir: Path,
    config: bool,
    disk_bytes: int,
) -> SessionPlan:
    """The plan of a new session.

    `config` tells whether it has a configuration volume, `disk_bytes` how large its own file system is, NO_DISK when it
    has none.
    """
    info = facts.engine.info
    disk = SessionStore(state_dir).directory(facts.session_id)
    limits = replace(request.limits, disk_bytes=disk_bytes)
    return plan_session(
        PlanInput(
            identity=Identity(
                session=facts.session_id,
                nonce=os.urandom(16).hex(),
                name=naming.name,
                agent=facts.manifest.name,
                repo=facts.repo.name,
                repo_path=str(facts.repo.work_tree or facts.repo.common_dir),
                branch=naming.branch.short,
                network=request.network,
                version=__version__,
            ),
            image=images.image.id,
            base_image=images.base.id,
            proxy_image=images.proxy,
            guest_volume=program.volume,
            guest_digest=program.digest,
            config=config,
            limits=with_device(limits, info, state_dir),
            host_cpus=info.cpus or None,
            runtime=launch_runtime(request, info),
            allow_ptrace=request.settings.sandbox_allow_ptrace,
            apparmor=profiles_loaded(info),
            resolvers=guarding.dns,
            holder_options=guarding.options,
            disk=os.fspath(Image(disk).mount_point) if disk_bytes < NO_DISK else "",
        )
    )


def launch_record(
    request: LaunchRequest,
    env: HostEnvironment,
    facts: Gathered,
    naming: Naming,
    plan: SessionPlan,
    program: GuestProgram,
    guarding: Guarding,
    image: ImageRef,
    packages: tuple[str, ...],
) -> SessionRecord:
    """The first record of a new session; `packages` are the digests of the MCP servers' packages in its image."""
    repo, settings = facts.repo, request.settings
    people = people_of(settings, facts.manifest, repo.identity, facts.session_id)
    return SessionRecord(
        id=facts.session_id,
        nonce=plan.identity.nonce,
        name=naming.name,
        agent=facts.manifest.name,
        repo=repo_ref(repo),
        branch=naming.branch.short,
        base=str(repo.head or ""),
        base_branch=repo.branch or "",
        network=request.network.value,
        engine="docker" if facts.engine.info.name == "docker" else "podman",
        engine_env=engine_choice(env.environ, facts.engine.info),
        engine_id=facts.engine.info.identity,
        runtime=plan.sandbox.runtime,
        image_ref=image.ref,
        image_id=image.id,
        packages=packages,
        network_name=plan.network.name if plan.network is not None else "",
        volumes=Volumes(
            workspace=plan.workspace.name,
            home=plan.home.name,
            config=plan.config.name if plan.config is not None else "",
            door=plan.door.name if plan.door is not None else "",
        ),
        guest_volume=program.volume,
        guest_digest=program.digest,
        mode="command" if request.task else "tmux",
        command=request.options.command,
        prompt=request.options.prompt or "",
        message=settings.git_message,
        push=settings.git_push,
        rm=request.options.rm,
        author_name=people.author.name,
        author_email=people.author.email,
        committer_name=people.committer.name,
        committer_email=people.committer.email,
        trailers=people.trailers,
        signing=facts.signing.mode,
        signing_format=facts.signing.format,
        signing_key=facts.signing.key,
        private=guarding.private,
        allow_ptrace=request.settings.sandbox_allow_ptrace,
        origin_push=request.options.allow_origin_push,
        quota=plan.sandbox.limits.disk_bytes < NO_DISK,
        asked=tuple(sorted(request.demands.asked)),
        best_effort=tuple(sorted(request.demands.best_effort)),
        limits={
            "cpus": str(request.limits.cpus),
            "memory_bytes": str(request.limits.memory_bytes),
            "pids": str(request.limits.pids),
            "file_bytes": str(request.limits.file_bytes),
            "disk": str(request.limits.disk_bytes),
            "disk_read": str(request.limits.disk_read),
            "disk_write": str(request.limits.disk_write),
            "bandwidth": str(settings.limits_bandwidth),
            "time_s": str(settings.limits_time),
            "disk_reserve": str(settings.limits_disk_reserve),
            "tokens": str(settings.model_max_tokens),
            "cost": str(settings.model_max_cost),
        },
        version=__version__,
        host_uid=env.uid,
        created_ms=time.time_ns() // 1_000_000,
    )
