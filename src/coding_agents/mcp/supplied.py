"""What a repository brings for agents by itself: lists of servers, hooks and plugins in the CLIs' own files. Pure.

They are read to be shown, and so that a person can trust a server among them. Nothing here is started by reading.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from coding_agents.mcp.schema import MAX_SERVERS, check_server
from coding_agents.model.mcp import McpFormat, McpServer

Kind = Literal["server", "hooks", "plugin", "unreadable"]


class Place(msgspec.Struct, frozen=True):
    """A file that some CLI or editor reads: the table of servers in it, in whose spelling, and tables of hooks."""

    path: str
    servers: str = ""
    format: McpFormat = "claude"
    hooks: tuple[str, ...] = ()


class Supplied(msgspec.Struct, frozen=True):
    """One thing that a file of the repository would start. `server` is None where it is not ours to express."""

    file: str
    kind: Kind
    name: str
    server: McpServer | None = None
    problem: str = ""


PLACES = (
    Place(".mcp.json", "mcpServers"),
    Place(".claude/settings.json", "mcpServers", hooks=("hooks",)),
    Place(".claude/settings.local.json", "mcpServers", hooks=("hooks",)),
    Place(".codex/config.toml", "mcp_servers", "codex", ("hooks", "notify")),
    Place(".codex/hooks.json", hooks=("hooks",)),
    Place(".gemini/settings.json", "mcpServers", "gemini", ("hooks",)),
    Place("opencode.json", "mcp", "opencode", ("plugin",)),
    Place("opencode.jsonc", "mcp", "opencode", ("plugin",)),
    Place(".opencode/opencode.json", "mcp", "opencode", ("plugin",)),
    Place(".opencode/opencode.jsonc", "mcp", "opencode", ("plugin",)),
    Place(".vscode/mcp.json", "servers"),
    Place(".github/mcp.json", "mcpServers", "copilot"),
    Place(".copilot/mcp-config.json", "mcpServers", "copilot"),
    Place(".cursor/mcp.json", "mcpServers"),
    Place(".cursor/hooks.json", hooks=("hooks",)),
)
DIRECTORIES: Mapping[str, Kind] = {
    ".opencode/plugin": "plugin",
    ".opencode/plugins": "plugin",
    ".github/hooks": "hooks",
}
"""Directories whose files are code or hooks by being there."""

# Strings first, so that what looks like a comment in one stays; each alternative matches to its end in one pass.
_COMMENT = re.compile(r'("(?:\\.|[^"\\]++)*"?)|//[^\n]*|/\*(?s:.*?)(?:\*/|\Z)')
_TRAILING = re.compile(r'("(?:\\.|[^"\\]++)*"?)|,(?=\s{0,100}[}\]])')
_TRANSPORTS = ("stdio", "local", "http", "remote", "streamable-http")
# They change how long a CLI waits or what it asks, not what runs.
_HARMLESS = (
    "tools", "timeout", "trust", "description", "alwaysAllow", "autoApprove", "required", "startup_timeout_sec",
    "startup_timeout_ms", "tool_timeout_sec",
)  # fmt: skip


def supplied_in(place: Place, data: bytes) -> Iterator[Supplied]:
    """What the file at `place` with the content `data` would start. Never raises."""
    document, problem = _document(place.path, data)
    if problem:
        yield Supplied(place.path, "unreadable", "", problem=problem)
        return
    for key in place.hooks:
        if document.get(key):
            yield Supplied(place.path, "hooks", key)
    tables = document.get(place.servers, {}) if place.servers else {}
    if not isinstance(tables, dict):
        yield Supplied(place.path, "unreadable", place.servers, problem="is not a table of servers")
        return
    if len(tables) > MAX_SERVERS:
        problem = f"holds {len(tables)} servers, more than {MAX_SERVERS}"
        yield Supplied(place.path, "unreadable", place.servers, problem=problem)
        return
    for name, table in tables.items():
        server, problems = check_server(name, _ours(table))
        why = "; ".join(f"{one.key}: {one.text}" if one.key else one.text for one in problems)
        yield Supplied(place.path, "server", name[:64], server, why)


def _document(path: str, data: bytes) -> tuple[dict[str, object], str]:
    try:
        text = data.decode("utf-8")
        document = tomllib.loads(text) if path.endswith(".toml") else _json(text)
    except (ValueError, RecursionError) as error:
        return {}, f"cannot be read: {str(error)[:200] or 'it is nested too deeply'}"
    return (document, "") if isinstance(document, dict) else ({}, "is not a table")


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        plain = _COMMENT.sub(lambda match: match[1] or " ", text)
        return json.loads(_TRAILING.sub(lambda match: match[1] or "", plain))


def _ours(table: object) -> object:
    """A CLI's table of one server with our keys; what has no key of ours stays, and is then an unknown one."""
    if not isinstance(table, dict):
        return table
    plain = {str(key): value for key, value in table.items() if key not in _HARMLESS}
    if plain.get("type") in _TRANSPORTS:
        del plain["type"]
    for theirs, ours in (("httpUrl", "url"), ("http_headers", "headers"), ("environment", "env")):
        if theirs in plain and ours not in plain:
            plain[ours] = plain.pop(theirs)
    if isinstance(plain.get("disabled"), bool):
        plain["enabled"] = not plain.pop("disabled")
    words = plain.get("command")
    if isinstance(words, list) and words and "args" not in plain:
        plain["command"], plain["args"] = words[0], words[1:]
    return plain
