"""Looking at and changing what sessions of network mode `squid` may reach: the user's file, and single sessions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from msgspec.structs import replace

from coding_agents.app.egress import list_is_managed, require_rules, session_egress
from coding_agents.app.registries import known_registries
from coding_agents.config.environ import HostEnvironment
from coding_agents.config.load import find_project, load_settings
from coding_agents.errors import SessionStateError, UsageError
from coding_agents.images.manifests import load_manifest
from coding_agents.model.audit import AuditRecord
from coding_agents.network.allowlist import FILE, parse_line, read_rules
from coding_agents.network.suggest import Proposal, suggest
from coding_agents.sandbox.spec import Network
from coding_agents.store.files import locked, make_dir, write_atomic
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.egress_kept import read_egress, write_egress
from coding_agents_guest.egress.explain import Explained, explain
from coding_agents_guest.egress.rules import Rules

_LOCK_S = 10.0
_HEAD = "# What sessions of network mode `squid` may reach besides the built-in rules. One rule a line; see\n"
_HEAD += "# `coding-agents allowlist --help`. Sessions that run follow changes of this file.\n"


def rules_of(env: HostEnvironment, session: SessionContext | None) -> Rules:
    """The rules of a session as they are now, or those that one launched from here would begin with.

    Raises ConfigError, UsageError, SessionStateError.
    """
    if session is not None:
        return require_rules(env, read_egress(_proxied(session).directory))
    settings = load_settings(env, project=find_project(env.cwd))
    manifest = load_manifest(settings.agent, env.agents_dir)
    registries = known_registries(env, settings.agent, managed=list_is_managed(settings)).rules
    return require_rules(env, session_egress(settings, manifest, registries))


def add(env: HostEnvironment, session: SessionContext | None, texts: Sequence[str]) -> list[str]:
    """Allow what the rules say, all or none, in every session or in one; returns those that are new.

    Raises UsageError for what is no rule, ConfigError, StoreError, SessionStateError.
    """
    asked = list(dict.fromkeys(parse_line(text, "user").text for text in texts))
    _require_own_list(env)
    if session is not None:
        with _changing(_proxied(session).directory / "egress.json"):
            egress = read_egress(session.directory)
            new = [text for text in asked if text not in egress.added]
            write_egress(session.directory, replace(egress, added=(*egress.added, *new)))
        return new
    path = env.config_dir / FILE
    make_dir(path.parent)
    with _changing(path):
        there = {rule.text for rule in read_rules(path, "user")}
        new = [text for text in asked if text not in there]
        old = path.read_text(encoding="utf-8") if path.exists() else _HEAD
        old += "" if old.endswith("\n") or not old else "\n"
        if new:
            write_atomic(path, (old + "".join(f"{text}\n" for text in new)).encode())
    return new


def remove(env: HostEnvironment, session: SessionContext | None, texts: Sequence[str]) -> list[str]:
    """Take rules back that a person has added, all or none; returns their names. Comments of the file stay.

    Raises UsageError for one that is not there, and as `add`.
    """
    asked = {parse_line(text, "user").text for text in texts}
    if session is not None:
        with _changing(_proxied(session).directory / "egress.json"):
            egress = read_egress(session.directory)
            _require_there(asked, egress.added, "allowed in this session alone")
            left = tuple(text for text in egress.added if text not in asked)
            write_egress(session.directory, replace(egress, added=left))
        return sorted(asked)
    path = env.config_dir / FILE
    make_dir(path.parent)
    with _changing(path):
        _require_there(asked, [rule.text for rule in read_rules(path, "user")], f"in {path}")
        lines = path.read_text(encoding="utf-8").split("\n")
        kept = [line for line in lines if _rule_of(line) not in asked]
        write_atomic(path, "\n".join(kept).encode())
    return sorted(asked)


def explained(rules: Rules, url: str) -> Explained:
    """What the proxy would decide about `url`, by the code that it decides with. Raises UsageError."""
    try:
        return explain(rules, url)
    except ValueError as error:
        raise UsageError(
            f"not a URL: {url[:80]!a}", details=str(error), hint="Write it like https://api.example.org."
        ) from error


def proposal_of(records: Iterable[AuditRecord], rules: Rules) -> list[Proposal]:
    """Rules that would have allowed what was refused for want of one, and are not in force by now."""
    return [one for one in suggest(records) if not rules.decide(one.request).allowed]


def _require_own_list(env: HostEnvironment) -> None:
    if "network.allow" in load_settings(env).managed:
        raise UsageError(
            "your organisation manages network.allow: what sessions may reach is its to say",
            hint="Ask whoever looks after /etc/coding-agents/config.toml.",
        )


def _proxied(session: SessionContext) -> SessionContext:
    if session.record.network != Network.SQUID.value:
        raise SessionStateError(
            f"session {session.record.name} has network mode {session.record.network}, which keeps no such list",
            hint="Launch with --network-proxy squid for a list of hosts.",
        )
    return session


def _rule_of(line: str) -> str:
    words = line.partition("#")[0].strip()
    return parse_line(words, "user").text if words else ""


def _require_there(asked: Iterable[str], there: Iterable[str], where: str) -> None:
    missing = sorted(set(asked) - set(there))
    if missing:
        raise UsageError(
            f"not {where}: {', '.join(missing)}",
            hint="See `coding-agents allowlist show`; what others allow is closed by the setting network.deny.",
        )


def _changing(path: Path) -> AbstractContextManager[object]:
    return locked(path.with_suffix(".lock"), timeout_s=_LOCK_S)
