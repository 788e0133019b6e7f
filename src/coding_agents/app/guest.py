"""What the guest is told when its gate opens: the agent's command, its environment, branch and identity."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence

from coding_agents.app.launch_request import LaunchRequest
from coding_agents.model.manifest import AgentManifest, with_args
from coding_agents.model.registry import environment
from coding_agents.model.repo import RepoFacts
from coding_agents.sandbox.guest import CONFIG_DIRECTORY
from coding_agents.sandbox.proxied import PROXY_ENVIRONMENT
from coding_agents.sandbox.spec import Network
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.credentials_kept import agent_environment
from coding_agents.supervisor.guest_config import identity_of_author, launch_tree, message_of
from coding_agents.supervisor.registry_kept import read_given
from coding_agents.workspace.deny import load_deny_list
from coding_agents_guest.events import GuestConfig
from coding_agents_guest.paths import REGISTRY_PORT


def guest_config(
    session: SessionContext,
    manifest: AgentManifest,
    repo: RepoFacts,
    request: LaunchRequest,
    servers: Sequence[str],
) -> GuestConfig:
    """The configuration of a session's first start; `servers` are the names of its MCP servers."""
    return _config(
        session,
        manifest,
        servers,
        origin=repo.origin_url,
        first_start=True,
        dotnet_channel=request.options.dotnet_preview or "",
    )


def restart_config(session: SessionContext, manifest: AgentManifest, servers: Sequence[str]) -> GuestConfig:
    """The configuration of a later start, in the workspace as it was left; the record says in which mode."""
    return _config(
        session, manifest, servers, origin=session.record.repo.url, first_start=False, dotnet_channel=""
    )


def _config(
    session: SessionContext,
    manifest: AgentManifest,
    servers: Sequence[str],
    *,
    origin: str,
    first_start: bool,
    dotnet_channel: str,
) -> GuestConfig:
    record = session.record
    args, env = _place(session, manifest, servers)
    return GuestConfig(
        session=record.id,
        branch=record.branch,
        identity=identity_of_author(record),
        base=record.base,
        launch_tree=launch_tree(session),
        first_start=first_start,
        mode=record.mode,
        command=_argv(session, manifest, args, first_start=first_start),
        env=_environment(session, manifest, env),
        message=message_of(record),
        push=record.push,
        origin=origin,
        deny=load_deny_list().patterns,
        dotnet_channel=dotnet_channel,
    )


def _argv(
    session: SessionContext, manifest: AgentManifest, args: tuple[str, ...], *, first_start: bool
) -> tuple[str, ...]:
    record = session.record
    if record.command:
        return record.command
    if record.prompt and record.mode == "command":
        return with_args(manifest.headless_argv(record.prompt), args)
    return with_args(manifest.interactive_argv(), args) if first_start else manifest.resume_argv(args)


def _environment(session: SessionContext, manifest: AgentManifest, mcp: dict[str, str]) -> dict[str, str]:
    """The agent's own variables; those of the model's endpoint lead to the host's broker."""
    proxied = session.record.network == Network.SQUID.value
    return {
        "CODING_AGENTS_SESSION": session.record.name,
        **(dict(PROXY_ENVIRONMENT) if proxied else {}),
        **environment(read_given(session.directory), REGISTRY_PORT),
        **agent_environment(session.directory),
        **manifest.env,
        **mcp,
        **_endpoint(session, manifest),
    }


def _endpoint(session: SessionContext, manifest: AgentManifest) -> Mapping[str, str]:
    """Those of the account that the session's requests are from now; at a later start it may be another kind."""
    if not any(login.endpoint for login in manifest.login):
        return manifest.endpoint
    from coding_agents.credentials.standing import login_in_use

    return manifest.endpoint_of(login_in_use(manifest, session.env, now_ms=time.time_ns() // 1_000_000))


def _place(
    session: SessionContext, manifest: AgentManifest, servers: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """How the agent is given its list of MCP servers: words and variables."""
    if manifest.mcp is None:
        return (), {}
    file = f"{CONFIG_DIRECTORY}/{manifest.mcp.file}" if session.record.volumes.config else ""
    return manifest.mcp.as_given(file, servers, nobody=f"no-server-{secrets.token_hex(16)}")
