"""OpenAI's Responses and Chat Completions APIs: what a request may hold, and how an answer tells its usage.

Names are those of the APIs' reference, checked against what Codex 0.169.0, Copilot CLI 1.0.102 and OpenCode 1.18.33
send. A stored prompt, conversation or response of the account is nothing that a session may name.
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

_ELSEWHERE = {
    name: (_REFERENCE, name) for name in ("previous_response_id", "conversation", "prompt", "background")
}
_COMMON = frozenset(
    {
        "model", "stream", "stream_options", "temperature", "top_p", "tool_choice", "parallel_tool_calls", "store",
        "service_tier", "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    }
)  # fmt: skip

RESPONSES = Kind(
    opaque=_COMMON
    | {"instructions", "reasoning", "include", "text", "max_output_tokens", "truncation", "client_metadata"}
    | {"max_tool_calls", "top_logprobs"},
    inside={"input": "item", "tools": "tool"},
    refused=_ELSEWHERE,
    closed=_UNKNOWN,
)

CHAT = Kind(
    opaque=_COMMON
    | {
        "max_tokens",
        "max_completion_tokens",
        "n",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
    }
    | {"logprobs", "top_logprobs", "response_format", "seed", "reasoning_effort", "verbosity", "prediction"},
    inside={"messages": "chat-message", "tools": "tool"},
    refused={"web_search_options": (_SERVER, "web_search")},
    closed=_UNKNOWN,
)

_ITEM = frozenset({"type", "id", "status", "role", "call_id", "name", "namespace", "phase"})
_CALL = Kind(_ITEM | {"arguments", "input", "action", "execution"})
_RESULT = Kind(_ITEM | {"execution"}, {"output": "part", "tools": "tool"})
_MESSAGE = Kind(_ITEM, {"content": "part"})
_TOOL = Kind(frozenset({"name", "description", "strict", "parameters", "format", "defer_loading"}))

FAMILIES: Mapping[str, Family] = {
    "item": Family(
        {
            "message": _MESSAGE,
            "agent_message": _MESSAGE,
            "reasoning": Kind(_ITEM | {"summary", "content", "encrypted_content"}),
            "compaction": Kind(_ITEM | {"encrypted_content"}),
            "compaction_summary": Kind(_ITEM | {"encrypted_content"}),
            "compaction_trigger": Kind(_ITEM),
            "additional_tools": Kind(_ITEM, {"tools": "tool"}),
            "configuration_update": Kind(_ITEM | {"reasoning"}, {"tools": "tool"}, closed=_UNKNOWN),
            "function_call": _CALL,
            "custom_tool_call": _CALL,
            "local_shell_call": _CALL,
            "shell_call": _CALL,
            "apply_patch_call": _CALL,
            "tool_search_call": _CALL,
            "function_call_output": _RESULT,
            "custom_tool_call_output": _RESULT,
            "local_shell_call_output": _RESULT,
            "shell_call_output": _RESULT,
            "apply_patch_call_output": _RESULT,
            "tool_search_output": _RESULT,
        },
        otherwise=_UNKNOWN,
        default="message",
    ),
    "part": Family(
        {
            "input_text": Kind(frozenset({"text"})),
            "output_text": Kind(frozenset({"text", "annotations", "logprobs"})),
            "text": Kind(frozenset({"text"})),
            "summary_text": Kind(frozenset({"text"})),
            "reasoning_text": Kind(frozenset({"text"})),
            "encrypted_content": Kind(frozenset({"encrypted_content"})),
            "refusal": Kind(frozenset({"refusal"})),
            "input_image": Kind(frozenset({"detail"})),
            "input_file": Kind(frozenset({"file_data", "filename"})),
        },
        otherwise=_UNKNOWN,
    ),
    "chat-message": Family(
        {
            "": Kind(
                frozenset({"role", "name", "tool_calls", "function_call", "tool_call_id", "refusal"})
                | {"reasoning_content", "reasoning", "reasoning_text", "reasoning_opaque"},
                {"content": "chat-part"},
                closed=_UNKNOWN,
            )
        },
        tag="",
    ),
    "chat-part": Family(
        {
            "text": Kind(frozenset({"text", "cache_control"})),
            "refusal": Kind(frozenset({"refusal"})),
            "image_url": Kind(),
            "input_audio": Kind(frozenset({"input_audio"})),
            "file": Kind(),
        },
        otherwise=_UNKNOWN,
    ),
    "tool": Family(
        {
            "function": Kind(_TOOL.opaque | {"function"}),
            "custom": Kind(_TOOL.opaque | {"custom"}),
            "namespace": Kind(_TOOL.opaque, {"tools": "tool"}),
            # Run by the client, on the client's side.
            "local_shell": Kind(),
            "apply_patch": Kind(),
            # Looks among the tools of the request itself.
            "tool_search": _TOOL,
        },
        otherwise=_SERVER,
    ),
}


def usage_of(event: Mapping[str, Any]) -> Usage | None:
    """What an event of a stream, or a whole answer, says of the tokens so far."""
    response = event.get("response")
    found = event.get("usage") or (response.get("usage") if isinstance(response, dict) else None)
    if not isinstance(found, dict):
        return None
    details = found.get("input_tokens_details") or found.get("prompt_tokens_details")
    cached = whole(details.get("cached_tokens")) if isinstance(details, dict) else 0
    read = whole(found.get("input_tokens")) + whole(found.get("prompt_tokens"))
    return Usage(read, cached, whole(found.get("output_tokens")) + whole(found.get("completion_tokens")))


def error_body(status: int, message: str) -> dict[str, Any]:
    """An error as the APIs write it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": "refused_by_coding_agents"}}


def personalise(body: dict[str, Any], session: str) -> None:
    """Put the session in the place of whoever the request says that it is from; ask a stream for its usage."""
    for name in ("user", "safety_identifier", "prompt_cache_key"):
        if name in body:
            body[name] = session
    if body.get("stream") is True and "messages" in body:
        options = body.get("stream_options")
        body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
