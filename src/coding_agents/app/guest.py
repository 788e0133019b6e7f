"""What the guest is told when its gate opens: the agent's command, its environment, branch and identity."""

from __future__ import annotations

from msgspec.structs import replace

from coding_agents.app.launch_request import LaunchRequest
from coding_agents.model.manifest import AgentManifest, with_args
from coding_agents.model.mcp import FILE, McpPlace
from coding_agents.model.repo import RepoFacts
from coding_agents.sandbox.guest import CONFIG_DIRECTORY
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.guest_config import identity_of_author, launch_tree
from coding_agents.workspace.deny import load_deny_list
from coding_agents_guest.events import GuestConfig


def guest_config(
    session: SessionContext, manifest: AgentManifest, repo: RepoFacts, request: LaunchRequest
) -> GuestConfig:
    """The configuration of a session's first start."""
    return _config(
        session,
        manifest,
        origin=repo.origin_url,
        first_start=True,
        dotnet_channel=request.options.dotnet_preview or "",
    )


def restart_config(session: SessionContext, manifest: AgentManifest) -> GuestConfig:
    """The configuration of a later start, in the workspace as it was left; the record says in which mode."""
    return _config(session, manifest, origin=session.record.repo.url, first_start=False, dotnet_channel="")


def _config(
    session: SessionContext,
    manifest: AgentManifest,
    *,
    origin: str,
    first_start: bool,
    dotnet_channel: str,
) -> GuestConfig:
    record = session.record
    return GuestConfig(
        session=record.id,
        branch=record.branch,
        identity=identity_of_author(record),
        base=record.base,
        launch_tree=launch_tree(session),
        first_start=first_start,
        mode=record.mode,
        command=_argv(session, manifest, first_start=first_start),
        env=_environment(session, manifest),
        message=record.message,
        push=record.push,
        origin=origin,
        deny=load_deny_list().patterns,
        dotnet_channel=dotnet_channel,
    )


def _argv(session: SessionContext, manifest: AgentManifest, *, first_start: bool) -> tuple[str, ...]:
    record = session.record
    if record.command:
        return record.command
    args = _place(session, manifest).args
    if record.prompt and record.mode == "command":
        return with_args(manifest.headless_argv(record.prompt), args)
    return with_args(manifest.interactive_argv(), args) if first_start else manifest.resume_argv(args)


def _environment(session: SessionContext, manifest: AgentManifest) -> dict[str, str]:
    """The agent's own variables; those of the model's endpoint lead to the host's broker."""
    return {
        "CODING_AGENTS_SESSION": session.record.name,
        **manifest.env,
        **_place(session, manifest).env,
        **manifest.endpoint,
    }


def _place(session: SessionContext, manifest: AgentManifest) -> McpPlace:
    """How the agent is given its list of MCP servers, with the list's path; nothing without the volume it is in."""
    place = manifest.mcp
    if place is None or not session.record.volumes.config:
        return McpPlace(file="", format="generic")
    path = f"{CONFIG_DIRECTORY}/{place.file}"
    return replace(
        place,
        args=tuple(word.replace(FILE, path) for word in place.args),
        env={name: value.replace(FILE, path) for name, value in place.env.items()},
    )
