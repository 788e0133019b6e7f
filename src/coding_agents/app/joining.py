"""A launch that means a session that is there already: whether it may be joined, and what does not apply to it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from coding_agents.app.launch_request import LaunchRequest
from coding_agents.errors import SessionExistsError
from coding_agents.model.limits import (
    NO_DISK,
    NO_IO,
    NO_RATE,
    NO_TIME,
    cpus_text,
    duration_text,
    rate_text,
    size_text,
)
from coding_agents.model.refs import Branch
from coding_agents.model.session import SessionRecord
from coding_agents.model.settings import BY_KEY
from coding_agents.model.spending import NONE


def require_joinable(request: LaunchRequest, existing: SessionRecord) -> None:
    """Raise SessionExistsError when joining would run no task, or lack the network wall that was asked for."""
    if request.task:
        raise SessionExistsError(
            f"session {existing.name} is already there",
            hint=f"Choose another -b or --name, or use `coding-agents exec {existing.name} -- …`.",
        )
    asked = request.options.network or existing.network
    if asked != existing.network and BY_KEY["network.mode"].is_tighter(asked, existing.network):
        raise SessionExistsError(
            f"session {existing.name} is already there with network {existing.network}: "
            f"joining it would not give you --network-proxy {asked}",
            hint=f"Choose another -b or --name for a session with network {asked}.",
        )


def unapplied(request: LaunchRequest, existing: SessionRecord) -> str:
    """Say which flags of this launch do not apply to `existing`, and what it has instead; "" when all do.

    Settings are not named: they say how new sessions are to be.
    """
    differences = list(_differences(request, existing))
    if not differences:
        return ""
    *first, last = (flag for flag, _ in differences)
    listed = f"{', '.join(first)} and {last} do not" if first else f"{last} does not"
    has = ", ".join(value for _, value in differences if value)
    return f"{listed} apply" + (f" (it has {has})" if has else "")


def _differences(request: LaunchRequest, existing: SessionRecord) -> Iterator[tuple[str, str]]:
    """Flags that were given and differ, each with the session's own value ("" where the flag has none)."""
    options, limits = request.options, existing.limits
    branch = Branch.parse(options.branch, agent=existing.agent).short if options.branch is not None else ""
    engine = existing.engine if request.settings.engine == "auto" else request.settings.engine
    message = request.settings.git_message
    for flag, given, wanted, has in (
        ("-b", options.branch, branch, existing.branch),
        ("--network-proxy", options.network, request.network.value, existing.network),
        ("--cpu", options.cpu, cpus_text(request.limits.cpus), cpus_text(Decimal(limits["cpus"]))),
        ("--memory", options.memory, size_text(request.limits.memory_bytes), size_text(int(limits["memory_bytes"]))),
        ("--pids", options.pids, str(request.limits.pids), limits["pids"]),
        ("--disk", options.disk, _bytes(request.limits.disk_bytes), _bytes(int(limits.get("disk", NO_DISK)))),
        ("--disk-read", options.disk_read, _bytes(request.limits.disk_read),
         _bytes(int(limits.get("disk_read", NO_IO)))),
        ("--disk-write", options.disk_write, _bytes(request.limits.disk_write),
         _bytes(int(limits.get("disk_write", NO_IO)))),
        ("--bandwidth", options.bandwidth, rate_text(request.settings.limits_bandwidth),
         rate_text(int(limits.get("bandwidth", NO_RATE)))),
        ("--time-limit", options.time_limit, duration_text(request.settings.limits_time),
         duration_text(int(limits.get("time_s", NO_TIME)))),
        ("--engine", options.engine, engine, existing.engine),
        ("--message", options.message, f'"{message}"', f'"{existing.message}"'),
    ):  # fmt: skip
        if given is not None and wanted != has:
            yield f"{flag} {wanted}", has
    for flag, differs in (
        ("--no-push", options.no_push and existing.push),
        ("--allow-ptrace", options.allow_ptrace and not existing.allow_ptrace),
        ("--as-agent", options.as_agent and existing.committer_name.startswith(f"{existing.author_name} (")),
        ("--allow-origin-push", options.allow_origin_push and not existing.origin_push),
        ("--best-effort", not set(options.best_effort) <= {*existing.best_effort}),
        ("--rm", options.rm and not existing.rm),
        ("--clean", options.clean),  # the copy is made, and what it left out or took in is not recorded
        ("--include", bool(options.include)),
        ("--allow", bool(options.allow)),  # `allowlist add --session` does
        ("--dotnet-preview", options.dotnet_preview is not None),
    ):
        if differs:
            yield flag, ""


def _bytes(size: int) -> str:
    return NONE if size >= min(NO_DISK, NO_IO) else size_text(size)
