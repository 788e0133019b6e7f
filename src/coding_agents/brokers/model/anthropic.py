"""Anthropic's Messages API: what a request may hold, and how an answer tells its usage.

Names are those of the API's reference (anthropic-version 2023-06-01 and its betas), checked against what Claude Code
2.1.330 sends. A tool with another type than these runs at the provider's and is therefore a server tool.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coding_agents.brokers.model.shapes import Family, Kind
from coding_agents.brokers.model.usage import Usage, whole
from coding_agents.policy.matrix import Operation

_SERVER = Operation.MODEL_SERVER_TOOL
_REFERENCE = Operation.MODEL_REFERENCE
_UNKNOWN = Operation.MODEL_UNKNOWN

REQUEST = Kind(
    opaque=frozenset(
        {
            "model", "max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences", "tool_choice",
            "thinking", "metadata", "service_tier", "output_config", "output_format", "context_management",
            "cache_control", "speed", "inference_geo",
        }
    ),
    inside={"messages": "message", "system": "content", "tools": "tool"},
    refused={"mcp_servers": (_SERVER, "mcp_servers"), "container": (_SERVER, "code_execution")},
    closed=_UNKNOWN,
)  # fmt: skip

FAMILIES: Mapping[str, Family] = {
    "message": Family(
        {"": Kind(frozenset({"role", "output_config"}), {"content": "content"}, closed=_UNKNOWN)}, tag=""
    ),
    "content": Family(
        {
            "text": Kind(frozenset({"text", "citations", "cache_control"})),
            "image": Kind(inside={"source": "source"}),
            "document": Kind(frozenset({"title", "context", "citations"}), {"source": "source"}),
            "tool_use": Kind(frozenset({"id", "name", "input", "caller"})),
            "tool_result": Kind(frozenset({"tool_use_id", "is_error"}), {"content": "content"}),
            "thinking": Kind(frozenset({"thinking", "signature"})),
            "redacted_thinking": Kind(frozenset({"data"})),
            "search_result": Kind(frozenset({"source", "title", "citations"}), {"content": "content"}),
            # What earlier turns of the same conversation have brought; naming it again does nothing.
            "server_tool_use": Kind(frozenset({"id", "name", "input", "caller"})),
            "tool_search_tool_result": Kind(frozenset({"content", "tool_use_id"})),
            "tool_reference": Kind(frozenset({"tool_name"})),
            "compaction": Kind(frozenset({"content"})),
        },
        otherwise=_UNKNOWN,
        default="text",
    ),
    "source": Family(
        {
            "base64": Kind(frozenset({"data", "media_type"})),
            "text": Kind(frozenset({"data", "media_type"})),
            "content": Kind(inside={"content": "content"}),
        },
        otherwise=_REFERENCE,
    ),
    "tool": Family(
        {
            "custom": Kind(
                frozenset({"name", "description", "input_schema", "input_examples", "cache_control"})
            ),
            # Run by the client, on the client's side.
            "bash_*": Kind(),
            "text_editor_*": Kind(),
            "computer_*": Kind(),
            "memory_*": Kind(),
            # Looks among the tools of the request itself.
            "tool_search_tool_*": Kind(),
        },
        otherwise=_SERVER,
        default="custom",
    ),
}


def usage_of(event: Mapping[str, Any]) -> Usage | None:
    """What an event of a stream, or a whole answer, says of the tokens so far."""
    message = event.get("message")
    found = event.get("usage") or (message.get("usage") if isinstance(message, dict) else None)
    if not isinstance(found, dict):
        return None
    cached = whole(found.get("cache_read_input_tokens"))
    fresh = whole(found.get("input_tokens")) + whole(found.get("cache_creation_input_tokens"))
    return Usage(fresh + cached, cached, whole(found.get("output_tokens")))


def error_body(status: int, message: str) -> dict[str, Any]:
    """An error as the API writes it."""
    kinds = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error"}
    kinds |= {
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
    }
    return {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": message}}


def personalise(body: dict[str, Any], session: str) -> None:
    """Put the session in the place of whoever the request says that it is from."""
    body["metadata"] = {"user_id": session}
