"""Which protections a session must have because somebody asked for them, and which of these may be missing."""

from __future__ import annotations

from pathlib import Path

import msgspec

from coding_agents.config.load import ORGANISATION_FILE, load_settings
from coding_agents.engine.api import EngineInfo
from coding_agents.engine.apparmor import can_confine, profiles_loaded
from coding_agents.errors import EnforcementError, NotBuiltError, SessionStateError, UsageError
from coding_agents.model.limits import NO_DISK, NO_IO, NO_RATE, NO_TIME
from coding_agents.model.runtimes import AUTO, is_gvisor
from coding_agents.model.settings import Settings, Source
from coding_agents.model.spending import NO_COST, NO_TOKENS, NONE
from coding_agents.network.allowlist import Egress
from coding_agents.sandbox.spec import Network
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.egress_kept import read_egress

# The settings by which a user asks for a limit, and the protections that must then be in force.
_ASKED_BY = {
    "limits.memory": ("memory", "swap"),
    "limits.cpu": ("cpus",),
    "limits.pids": ("pids",),
    "limits.disk": ("disk",),
    "limits.disk_read": ("disk-read",),
    "limits.disk_write": ("disk-write",),
}

# Settings that may be without a limit: under which name a record has them, and what stands there then.
_BUDGETS = {
    "limits.time": ("time_s", NO_TIME),
    "limits.bandwidth": ("bandwidth", NO_RATE),
    "limits.disk": ("disk", NO_DISK),
    "limits.disk_read": ("disk_read", NO_IO),
    "limits.disk_write": ("disk_write", NO_IO),
    "model.max_tokens": ("tokens", NO_TOKENS),
    "model.max_cost": ("cost", NO_COST),
}


class Demands(msgspec.Struct, frozen=True):
    """`asked` are the protections that the user or the organisation named, `best_effort` those that may be missing."""

    asked: frozenset[str] = frozenset()
    best_effort: frozenset[str] = frozenset()

    @property
    def needed(self) -> frozenset[str]:
        return self.asked - self.best_effort


def demands_of(settings: Settings) -> Demands:
    """Those of a launch. That nobody does without what the organisation requires was seen to by `load_settings`."""
    limits = [
        layer
        for key, layers in _ASKED_BY.items()
        if settings.origins[key].source is not Source.DEFAULT
        for layer in layers
    ]
    return Demands(frozenset((*limits, *settings.require)), frozenset(settings.best_effort))


def demands_at_start(session: SessionContext, *, organisation_file: Path = ORGANISATION_FILE) -> Demands:
    """Those of the launch, and what the organisation requires now.

    Raises SessionStateError for a session that has what the organisation no longer allows, ConfigError.
    """
    record = session.record
    settings = load_settings(session.env, organisation_file=organisation_file)
    engine = record.engine if settings.engine != "auto" else None
    flags = {**_as_flags(session), "engine": engine, "runtime": record.runtime or AUTO}
    try:
        load_settings(session.env, flags=flags, organisation_file=organisation_file)
    except UsageError as error:
        raise SessionStateError(
            f"session {record.name} was launched with what your organisation does not allow any more",
            details=f"{error.message}\n{error.details}".strip(),
            hint=f"`coding-agents recover {record.name}` brings its work home; then launch anew.",
        ) from error
    demanded = settings.demanded
    return Demands(demanded.union(record.asked), frozenset(record.best_effort) - demanded)


def require_enforceable(info: EngineInfo, demands: Demands, runtime: str) -> None:
    """Raise when something is needed that this engine, or `runtime`, is known not to give.

    EnforcementError for a protection, NotBuiltError for gVisor where it cannot put itself under any limit.
    """
    if is_gvisor(runtime) and info.rootless:
        raise NotBuiltError(
            f"the runtime runsc does not work with {info.title} without root: it may not make its control group",
            hint="Take an engine that runs as root, or another --runtime.",
        )
    _require_limits(info, demands)
    _require_apparmor(info, demands, runtime)


def _require_limits(info: EngineInfo, demands: Demands) -> None:
    refused = [name for name in info.ignored_limits if name in demands.needed]
    if not refused:
        return
    raise EnforcementError(
        f"{info.title} takes a limit on {', '.join(refused)} here and ignores it"
        f"{' (rootless, cgroup v1)' if info.rootless and info.cgroup_version == 1 else ''}",
        hint="Use cgroup v2 or an engine that runs as root, or go without: "
        f"{' '.join(f'--best-effort {name}' for name in refused)}.",
    )


def _require_apparmor(info: EngineInfo, demands: Demands, runtime: str) -> None:
    if "apparmor" not in demands.needed:
        return
    if is_gvisor(runtime):
        raise EnforcementError(
            "apparmor is required, and a container in gVisor (runtime runsc) has none",
            hint="Take another --runtime, or do not require it.",
        )
    if profiles_loaded(info):
        return
    if not can_confine(info):
        raise EnforcementError(
            f"apparmor is required, and {info.title}{' without root' if info.rootless else ''} has no AppArmor",
            hint="Launch on a machine whose kernel has AppArmor and whose engine runs as root, or do not require it.",
        )
    where = "" if info.is_local else f" on {info.machine[0] or 'the machine of the engine'}"
    raise EnforcementError(
        f"apparmor is required, and our profile is not loaded{where}",
        hint=f"Run `coding-agents doctor --fix`{where}: it loads the profile as root.",
    )


_WITHOUT_BRACKETS = str.maketrans("", "", "[]")  # as `Egress.names` has addresses


def _as_flags(session: SessionContext) -> dict[str, object]:
    """What the session was launched with, where an organisation may bind it, as if it were asked for now."""
    record = session.record
    limits = record.limits
    budgets = {
        key: NONE if limits.get(name) == str(none) else limits.get(name)
        for key, (name, none) in _BUDGETS.items()
    }
    return {
        **budgets,
        "network.mode": record.network,
        "limits.cpu": limits.get("cpus"),
        "limits.memory": limits.get("memory_bytes"),
        "limits.pids": limits.get("pids"),
        "limits.file": limits.get("file_bytes"),
        "sandbox.allow_ptrace": record.allow_ptrace,
        **_of_proxy(session),
    }


def _of_proxy(session: SessionContext) -> dict[str, object]:
    """The same of what its proxy lets out; None where it has no say."""
    proxied = session.record.network == Network.SQUID.value
    egress = read_egress(session.directory) if proxied else None
    return {
        "network.private": _private(session.record.private, egress) or None,
        "network.allow": list(egress.opened.get("settings", ())) or None if egress else None,
        "network.allow_ech": egress.allow_ech if egress else None,
        "network.upload": (egress.upload or NONE) if egress else None,
        "network.download": (egress.download or NONE) if egress else None,
        "network.request_upload": (egress.request_upload or NONE) if egress else None,
        "network.request_download": (egress.request_download or NONE) if egress else None,
    }


def _private(opened: tuple[str, ...], egress: Egress | None) -> list[str]:
    """The private places as settings write them: the host's own proxy is none of theirs, and some have a name."""
    if egress is None:
        return list(opened)
    rules = [rule.rpartition(":") for rule in egress.opened.get("private", ())]
    names = {f"{egress.names[name]}:{port}": name for name, _, port in rules if name in egress.names}
    plain = [one for one in opened if one != egress.host_proxy]
    named = [(names.get(one.translate(_WITHOUT_BRACKETS), ""), one) for one in plain]
    return [f"{name}={one}" if name else one for name, one in named]
