"""Servers in the words of each agent's CLI. Pure; what each reads was measured with the real CLIs.

Values are whole: no secret and no reference is in them. A CLI that would expand something in a value by itself, or
that has no words for a server, is told apart by `inexpressible`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import assert_never

from coding_agents.model.mcp import McpFormat, McpServer

# What a CLI replaces in args and env by a variable of its own environment.
_EXPANDED: Mapping[McpFormat, tuple[re.Pattern[str], str]] = {
    "claude": (re.compile(r"\$\{"), "${…}"),
    "copilot": (re.compile(r"\$\{|\$[A-Za-z_]"), "$NAME"),
    "gemini": (re.compile(r"\$\{|\$[A-Za-z_]"), "$NAME"),
    "opencode": (re.compile(r"\{(?:env|file):"), "{env:…} and {file:…}"),
}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def inexpressible(server: McpServer, format: McpFormat) -> str:
    """Why the CLI of `format` would run something else than `server` says; "" when it would not."""
    texts = (server.command, *server.args, *server.env.values(), server.url, *server.headers.values())
    if format in _EXPANDED:
        pattern, shown = _EXPANDED[format]
        if any(pattern.search(text) for text in texts):
            return f"{format} replaces {shown} in values by variables of its own"
    return ""


def convert(servers: Sequence[McpServer], format: McpFormat) -> bytes:
    """The list of `servers` as the CLI of `format` reads it."""
    match format:
        case "codex":
            return _codex(servers)
        case "claude" | "generic":
            return _json({"mcpServers": {server.name: _claude(server) for server in servers}})
        case "copilot":
            return _json({"mcpServers": {server.name: _copilot(server) for server in servers}})
        case "gemini":
            # An empty list would allow all of them, where it counts.
            allowed = {"allowed": [server.name for server in servers]} if servers else {}
            named = {server.name: _gemini(server) for server in servers}
            return _json({**_GEMINI, "mcp": {**allowed, "serverCommand": ""}, "mcpServers": named})
        case "opencode":
            return _json({"mcp": {server.name: _opencode(server) for server in servers}})
        case _:
            assert_never(format)


def requirements(servers: Sequence[McpServer], format: McpFormat) -> bytes:
    """What forbids the CLI of `format` all servers but these, and hooks; empty for a CLI without LIMITS.

    Copilot compares names, and puts ours in the place of a repository's. Codex compares name and command or address, so
    the name of one of ours must not be in the repository's own file, see OVERRIDING.
    """
    if format == "copilot":
        allowed = [{"serverName": server.name} for server in servers]
        # The second lets none start but those of plugins, so not ours either.
        strict = {"allowManagedHooksOnly": True, **({} if servers else {"allowManagedMcpServersOnly": True})}
        return _json({**strict, "allowedMcpServers": allowed})
    if format != "codex":
        return b""
    lines = ["allow_managed_hooks_only = true", "" if servers else "mcp_servers = {}", ""]
    for server in servers:
        key, value = ("url", server.url) if server.url else ("command", server.command)
        lines += [f"[mcp_servers.{_toml_key(server.name)}.identity]", f"{key} = {_toml_text(value)}", ""]
    return "\n".join(lines).encode("utf-8")


LIMITS: Mapping[McpFormat, str] = {"codex": "requirements.toml", "copilot": "managed-settings.json"}
"""The name of the file for what forbids others, in the configuration volume."""

TOOL_HOOK = "/usr/lib/coding-agents/tool-hook || :"
"""The command of root's hooks: what a tool call is comes to the host's audit log, and its failure stops no agent."""


def hooks(format: McpFormat) -> Mapping[str, bytes]:
    """Root's hooks by path in the configuration volume, for a CLI that looks for them there."""
    if format != "copilot":
        return {}
    hook = {"type": "command", "bash": TOOL_HOOK, "timeoutSec": 2}
    return {"policy.d/tool-hook.json": _json({"version": 1, "hooks": {"preToolUse": [hook]}})}


# Gemini reads one file of the system's: what keeps the rest of a repository from starting is in it, too.
_GEMINI: Mapping[str, object] = {
    "general": {"enableAutoUpdate": False},
    "privacy": {"usageStatisticsEnabled": False},
    "security": {"auth": {"selectedType": "gemini-api-key"}},
    "tools": {"discoveryCommand": "", "callCommand": ""},
    "hooksConfig": {"enabled": False, "notifications": False},
}

OVERRIDING: Mapping[McpFormat, str] = {"codex": ".codex/config.toml"}
"""The file of a repository whose keys a CLI puts in place of the same ones of our list."""


def _claude(server: McpServer) -> dict[str, object]:
    if server.url:
        return {"type": "http", "url": server.url, "headers": dict(server.headers)}
    return {"type": "stdio", **_program(server)}


def _copilot(server: McpServer) -> dict[str, object]:
    if server.url:
        return {"type": "http", "url": server.url, "headers": dict(server.headers), "tools": ["*"]}
    return {"type": "local", **_program(server), "tools": ["*"]}


def _gemini(server: McpServer) -> dict[str, object]:
    return {"httpUrl": server.url, "headers": dict(server.headers)} if server.url else _program(server)


def _opencode(server: McpServer) -> dict[str, object]:
    if server.url:
        return {"type": "remote", "url": server.url, "headers": dict(server.headers), "enabled": True}
    command = [server.command, *server.args]
    return {"type": "local", "command": command, "environment": dict(server.env), "enabled": True}


def _program(server: McpServer) -> dict[str, object]:
    return {"command": server.command, "args": list(server.args), "env": dict(server.env)}


def _codex(servers: Sequence[McpServer]) -> bytes:
    """Codex's TOML. `required`: it waits for the server before its first request to the model."""
    lines = []
    for server in servers:
        lines += [f"[mcp_servers.{_toml_key(server.name)}]"]
        if server.url:
            lines += [f"url = {_toml_text(server.url)}"]
            lines += [f"http_headers = {_toml_table(server.headers)}"] if server.headers else []
        else:
            words = ", ".join(map(_toml_text, server.args))
            lines += [f"command = {_toml_text(server.command)}", f"args = [{words}]"]
            lines += [f"env = {_toml_table(server.env)}"] if server.env else []
        lines += ["required = true", ""]
    return "\n".join(lines).encode("utf-8")


def _toml_table(table: Mapping[str, str]) -> str:
    inner = ", ".join(f"{_toml_key(name)} = {_toml_text(value)}" for name, value in table.items())
    return f"{{ {inner} }}"


def _toml_key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _toml_text(name)


def _toml_text(text: str) -> str:
    """A basic string on one line: JSON's escapes are TOML's, but for U+007F, which JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=True).encode("ascii") + b"\n"
