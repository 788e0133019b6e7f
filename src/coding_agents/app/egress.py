"""A session's way out in network mode `squid`: the rules that it begins with."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from coding_agents.config.environ import HostEnvironment
from coding_agents.model.limits import NO_TRAFFIC
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.settings import Settings
from coding_agents.network.allowlist import FILE, Egress, builtin_rules, effective, parse_line, read_rules
from coding_agents.network.guard import endpoint_text
from coding_agents.network.host_proxy import find_host_proxy
from coding_agents.supervisor.registry_kept import settings_registries
from coding_agents_guest.egress.rules import Rules
from coding_agents_guest.guard import Endpoint

_LIST = "network.allow"


def require_rules(env: HostEnvironment, egress: Egress) -> Rules:
    """All rules of a session with the user's own, before anything is made of it. Raises ConfigError."""
    return effective(egress, read_rules(env.config_dir / FILE, "user"))


def host_proxy_place(environ: Mapping[str, str]) -> str:
    """ADDRESS:PORT of the host's own proxy, "" for none. Raises ConfigError."""
    found = find_host_proxy(environ)
    return "" if found is None else endpoint_text(Endpoint(ipaddress.ip_address(found.address), found.port))


def session_egress(
    settings: Settings, manifest: AgentManifest, registries: Sequence[str] = (), *, host_proxy: str = ""
) -> Egress:
    """The rules of a session by its settings and its agent, each from its source. Raises UsageError, ConfigError.

    `registries` are rules for those of its package managers (`app.registries`). Indexes that the host reads for the
    session need no way out of its own.
    The agent's model is reached through the host's broker alone: its hosts are closed unless settings name them.
    """
    named = [entry.split("=") for entry in settings.network_private if "=" in entry]
    private = [(name, Endpoint.parse(place)) for name, place in named]
    return Egress(
        opened={
            "builtin": tuple(rule.text for rule in builtin_rules()),
            "registry": _unserved(registries, settings),
            "agent": tuple(parse_line(host, "agent").text for host in manifest.domains),
            "private": tuple(f"{name}:{place.port}" for name, place in private),
            "settings": tuple(parse_line(text, "settings").text for text in settings.network_allow),
        },
        closed={
            "settings": tuple(parse_line(text, "settings").text for text in settings.network_deny),
            "model": tuple(host for host in manifest.model_hosts if host not in settings.network_allow),
        },
        upload=_budget(settings.network_upload),
        download=_budget(settings.network_download),
        request_upload=_budget(settings.network_request_upload),
        request_download=_budget(settings.network_request_download),
        allow_ech=settings.network_allow_ech,
        managed=list_is_managed(settings),
        host_proxy=host_proxy,
        names={name: str(place.address) for name, place in private},
    )


def list_is_managed(settings: Settings) -> bool:
    """Whether an organisation manages which hosts sessions reach."""
    return _LIST in settings.managed


def renewed_egress(egress: Egress, settings: Settings) -> Egress:
    """The rules at a further start: what settings close by now is closed too, and an organisation has its list back."""
    by_now = tuple(parse_line(text, "settings").text for text in settings.network_deny)
    closed = tuple(dict.fromkeys((*egress.closed.get("settings", ()), *by_now)))
    return replace(egress, closed={**egress.closed, "settings": closed}, managed=list_is_managed(settings))


def _budget(limit: int) -> int:
    return 0 if limit == NO_TRAFFIC else limit


def _unserved(registries: Sequence[str], settings: Settings) -> tuple[str, ...]:
    served = {
        "/".join(url.split("/")[:3])
        for entry in settings_registries(settings)
        for url in (entry.index, *entry.files)
    }
    return tuple(rule for rule in registries if rule not in served)
