"""Start a stopped session again: the same container, or one like it, measured anew, with a gate for this start."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from msgspec.structs import replace

from coding_agents.app.bring_up import Guarding, bring_up
from coding_agents.app.config_volume import fill_config
from coding_agents.app.credentials import renewed_files
from coding_agents.app.demands import demands_at_start, require_enforceable
from coding_agents.app.egress import renewed_egress, require_rules
from coding_agents.app.failed_start import enforcement_failures_recorded
from coding_agents.app.guest import restart_config
from coding_agents.app.holder import require_holder, times_ready
from coding_agents.app.launch_plan import proxy_uid, with_device
from coding_agents.app.mcp_session import session_servers
from coding_agents.app.renew import make_anew, take_this_versions_guest
from coding_agents.app.steps import Trace, Undo
from coding_agents.app.stop import SETTLE_S, stop_at_gate
from coding_agents.config.load import load_settings
from coding_agents.engine.apparmor import profiles_loaded
from coding_agents.engine.drift import has_profiles
from coding_agents.engine.failures import is_stale
from coding_agents.errors import EngineError, SessionStateError, SupervisorGoneError
from coding_agents.images.manifests import load_manifest
from coding_agents.images.recipes import PROXY_REF
from coding_agents.mcp.apart import write_given
from coding_agents.model.limits import NO_RATE
from coding_agents.model.manifest import AgentManifest
from coding_agents.network.dns import read_resolvers
from coding_agents.network.guard import guard_rate
from coding_agents.sandbox.plan import SessionPlan, plan_session
from coding_agents.sandbox.protections import Enforced
from coding_agents.sandbox.spec import Network
from coding_agents.supervisor.context import (
    BASE_IMAGE,
    SessionContext,
    facts_of,
    plan_input_of,
    session_settings,
)
from coding_agents.supervisor.credentials_kept import read_given as read_credentials
from coding_agents.supervisor.credentials_kept import write_given as write_credentials
from coding_agents.supervisor.disk import disk_opened
from coding_agents.supervisor.egress_kept import read_egress, write_egress
from coding_agents.supervisor.guest_program import is_this_versions
from coding_agents.supervisor.origin_kept import give_origins, read_origins
from coding_agents.supervisor.protocol import Op
from coding_agents.supervisor.registry_kept import settings_registries
from coding_agents.supervisor.registry_kept import write_given as write_registries


def start(session: SessionContext, trace: Trace) -> Enforced | None:
    """Bring a session up again; None when it runs already behind an open gate.

    Raises SessionStateError when its container is gone, EnforcementError when the walls do not stand; then
    the container is stopped again.
    """
    record, engine = session.reload(), session.engine
    with session.store.lock(record.id), enforcement_failures_recorded(session):
        state = session.container_state()
        if state is None:
            raise SessionStateError(
                f"the container of session {record.name} is gone",
                hint=f"Run `coding-agents recover {record.name}`: it brings back what the volume holds.",
            )
        if state.running:
            if record.started_at == state.started_at and record.phase == "running":
                return None
            # Its gate is closed (restarted by others, or we died before it opened): begin from a stop.
            engine.stop(record.container_id, timeout_s=10)
        _await_settled(session)
        demands = demands_at_start(session)
        require_enforceable(engine.info, demands, record.runtime)
        if record.network == Network.SQUID.value:
            _renew_rules(session)
        rate = guard_rate(int(record.limits.get("bandwidth", NO_RATE))) if record.holder_id else 0
        uid = proxy_uid(Network(record.network))
        guarding = Guarding(_holder_dns(session), record.private, rate=rate, uid=uid)
        plan = _plan(session, guarding)
        manifest = load_manifest(record.agent, session.env.config_dir / "agents")
        with Undo() as undo:
            undo.add("start", lambda: stop_at_gate(session))
            with disk_opened(session):
                with trace.step("config"):
                    servers = _renew_config(session, plan, manifest)
                # They are another version's, or it was made before they were loaded.
                if not has_profiles(plan.sandbox, state.config):
                    with trace.step("renew"):
                        take_this_versions_guest(session)
                        plan = _plan(session, guarding)
                        make_anew(session, plan)
                _give_registries(session)
                _give_origins(session)
                with trace.step("holder"):
                    earlier = _restart_holder(session, plan)
                # A COMMAND runs again. The task of -p does not: it would cost its money twice, unasked.
                mode = record.mode if record.command else "tmux"
                session.update(phase="starting", started_at="", mode=mode)
                with trace.step("start"):
                    engine.start(session.record.container_id)
            return bring_up(
                session,
                plan,
                restart_config(session, manifest, servers),
                trace,
                guarding=replace(guarding, earlier=earlier),
                demands=demands,
                undo=undo,
            )


def _give_registries(session: SessionContext) -> None:
    """Write down anew which package indexes the session has. The bridge of an older guest does not know of any."""
    given = settings_registries(session_settings(session))
    if given and not is_this_versions(session.env.data_dir, session.record.guest_digest):
        given = ()
    write_registries(session.directory, given)


def _give_origins(session: SessionContext) -> None:
    """Resolve anew what the session calls origin; an older guest is told nothing that it does not know."""
    known = is_this_versions(session.env.data_dir, session.record.guest_digest)
    if known or read_origins(session.directory):
        give_origins(session, session_settings(session))


def _await_settled(session: SessionContext) -> None:
    """The supervisor of an earlier start may still save what that one left; then it stops the holder."""
    with suppress(SupervisorGoneError):
        session.supervisor().call(Op.WAIT, timeout_s=SETTLE_S)
    session.reload()


def _plan(session: SessionContext, guarding: Guarding) -> SessionPlan:
    """The plan of the launch again: the container must still be what it was."""
    record = session.record
    base = session.engine.image_id(BASE_IMAGE) or record.image_id
    facts = plan_input_of(
        record,
        base_image=base,
        proxy_image=_proxy_image(session),
        host_cpus=session.engine.info.cpus or None,
        apparmor=profiles_loaded(session.engine.info),
        resolvers=guarding.dns,
        options=guarding.options,
    )
    return plan_session(
        replace(facts, limits=with_device(facts.limits, session.engine.info, session.env.state_dir))
    )


def _renew_rules(session: SessionContext) -> None:
    """Close for the proxy what settings close by now. Raises ConfigError, UsageError, EngineError, StoreError."""
    egress = renewed_egress(read_egress(session.directory), load_settings(session.env))
    require_rules(session.env, egress)
    write_egress(session.directory, egress)


def _proxy_image(session: SessionContext) -> str:
    """The proxy's image by id, "" for a session without one. Raises EngineError."""
    if session.record.network != Network.SQUID.value:
        return ""
    found = session.engine.image_id(PROXY_REF)
    if found is None:
        raise EngineError(
            f"the image {PROXY_REF} is gone", hint="Make it again: coding-agents images build proxy."
        )
    return found


def _renew_config(session: SessionContext, plan: SessionPlan, manifest: AgentManifest) -> tuple[str, ...]:
    """Write the list of MCP servers anew, and name them: what is trusted may have changed since the last start."""
    if plan.config is None:
        _renew_credentials(session)
        return ()
    record = session.record
    facts = facts_of(record)
    servers = session_servers(session.env, facts, manifest.mcp, record.packages, runtime=record.runtime)
    always = replace(manifest.mcp, always=True) if manifest.mcp is not None else None
    fill_config(session.engine, plan, {**servers.volume(always), **_renew_credentials(session)})
    write_given(session.directory, servers.apart)
    return tuple(servers.started)


def _renew_credentials(session: SessionContext) -> Mapping[str, tuple[bytes, bool]]:
    """Write down anew what of the user's credentials the session has; the files that hold some, as they are now."""
    given, files = renewed_files(session.env, session_settings(session), read_credentials(session.directory))
    write_credentials(session.directory, given)
    return files


def _holder_dns(session: SessionContext) -> tuple[str, ...]:
    """The resolvers that the session's holder was made with."""
    if not session.record.holder_id:
        return ()
    state = session.engine.inspect(session.record.holder_id)
    return state.config.dns if state is not None else read_resolvers()


def _restart_holder(session: SessionContext, plan: SessionPlan) -> int:
    """Start the holder, if there is one; how often it had reported its guard before."""
    if plan.holder is None:
        return 0
    engine, holder = session.engine, session.record.holder_id
    state = engine.inspect(holder)
    if state is None:
        raise EngineError(
            f"the session's network holder {plan.holder.name} is gone",
            hint=f"Run `coding-agents recover {session.record.name}`, then launch a new session.",
        )
    # Always from a stop: the rules are set before anything else at its start, and nothing of an earlier one stays.
    engine.stop(holder, timeout_s=5)
    earlier = times_ready(engine.logs(holder))
    try:
        engine.start(holder)
    except EngineError as error:
        if not is_stale(error):
            raise
        make_anew(session, plan)
        engine.start(session.record.holder_id)
        require_holder(engine, session.record.holder_id, plan)
        return 0
    return earlier
