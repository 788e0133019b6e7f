"""What the user asked of a launch, checked as far as it can be without looking at repository or engine."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from coding_agents.app.demands import Demands, demands_of
from coding_agents.config.environ import HostEnvironment
from coding_agents.config.load import find_project, load_settings
from coding_agents.errors import UsageError
from coding_agents.gitsync.discover import resolve_source
from coding_agents.gitsync.urls import GitUrl
from coding_agents.model.limits import Limits
from coding_agents.model.names import parse_name
from coding_agents.model.settings import Settings
from coding_agents.sandbox.spec import Network

_CHANNEL = re.compile(r"preview|[0-9]{1,3}\.[0-9]{1,3}")


class LaunchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The flags of `launch` as they were given; None where a setting decides."""

    source: str = "."
    command: tuple[str, ...] = ()
    agent: str | None = None
    branch: str | None = None
    name: str | None = None
    prompt: str | None = None
    detach: bool = False
    rm: bool = False
    force: bool = False
    empty: bool = False
    clean: bool = False
    include: tuple[str, ...] = ()
    network: str | None = None
    allow: tuple[str, ...] = ()
    cpu: str | None = None
    memory: str | None = None
    pids: str | None = None
    disk: str | None = None
    disk_read: str | None = None
    disk_write: str | None = None
    bandwidth: str | None = None
    time_limit: str | None = None
    allow_ptrace: bool = False
    as_agent: bool = False
    best_effort: tuple[str, ...] = ()
    max_tokens: str | None = None
    max_cost: str | None = None
    engine: str | None = None
    runtime: str | None = None
    message: str | None = None
    no_push: bool = False
    allow_origin_push: bool = False
    dotnet_preview: str | None = None
    dry_run: bool = False

    @property
    def task(self) -> bool:
        """Whether the session is to do one thing and end."""
        return bool(self.command) or self.prompt is not None


class LaunchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A launch to carry out: where the work comes from, and how the session is to be.

    `task` tells that the session is to do one thing and end (a prompt or a COMMAND).
    """

    source: Path | GitUrl | None
    options: LaunchOptions
    settings: Settings
    network: Network
    limits: Limits
    demands: Demands

    @property
    def task(self) -> bool:
        return self.options.task


def parse_request(env: HostEnvironment, options: LaunchOptions) -> LaunchRequest:
    """The request behind `options`. Raises UsageError, ConfigError, CloneError."""
    _require_consistent(options)
    source = None if options.empty else resolve_source(options.source)
    settings = load_settings(
        env,
        project=find_project((env.cwd / source).resolve()) if isinstance(source, Path) else None,
        flags={
            "engine": options.engine,
            "runtime": options.runtime,
            "agent": options.agent,
            "limits.cpu": options.cpu,
            "limits.memory": options.memory,
            "limits.pids": options.pids,
            "limits.disk": options.disk,
            "limits.disk_read": options.disk_read,
            "limits.disk_write": options.disk_write,
            "limits.bandwidth": options.bandwidth,
            "limits.time": options.time_limit,
            "sandbox.allow_ptrace": True if options.allow_ptrace else None,
            "best_effort": list(options.best_effort) or None,
            "network.mode": options.network,
            "network.allow": list(options.allow) or None,
            "model.max_tokens": options.max_tokens,
            "model.max_cost": options.max_cost,
            "workspace.include": list(options.include) or None,
            "git.message": options.message,
            "identity.as_agent": True if options.as_agent else None,
            "git.push": False if options.no_push else None,
        },
    )
    network = Network(settings.network_mode)
    if options.allow and network is not Network.SQUID:
        raise UsageError(
            f"--allow means nothing in network mode {network.value}, which keeps no list of hosts",
            hint="Add --network-proxy squid, or leave --allow out.",
        )
    if options.rm and not settings.git_push:
        raise UsageError(
            "--rm would remove the work that --no-push leaves in the volume", hint="Leave one of the two out."
        )
    return LaunchRequest(
        source=source,
        options=options,
        settings=settings,
        network=network,
        limits=Limits(
            cpus=settings.limits_cpu,
            memory_bytes=settings.limits_memory,
            pids=settings.limits_pids,
            file_bytes=settings.limits_file,
            disk_bytes=settings.limits_disk,
            disk_read=settings.limits_disk_read,
            disk_write=settings.limits_disk_write,
        ),
        demands=demands_of(settings),
    )


def _require_consistent(options: LaunchOptions) -> None:
    if options.command and options.prompt is not None:
        raise UsageError(
            "a prompt and a command exclude each other", hint="Leave out -p or the words after --."
        )
    if options.prompt is not None and not options.prompt.strip():
        raise UsageError("the prompt is empty", hint="Say what the agent is to do: -p TEXT.")
    if not options.source:
        raise UsageError(
            "SOURCE is empty", hint="Name a repository, or leave SOURCE out for the current one."
        )
    if options.empty and options.source != ".":
        raise UsageError(f"--empty takes no SOURCE, but {options.source!r} is given", hint="Leave one out.")
    if options.empty and options.clean:
        raise UsageError("--empty has nothing to be cleaned", hint="Leave out --clean.")
    channel = options.dotnet_preview
    if channel is not None and not _CHANNEL.fullmatch(channel):
        raise UsageError(f"not a .NET channel: {channel[:80]!r}", hint="Write it like 11.0, or preview.")
    if options.name is not None:
        parse_name(options.name)
