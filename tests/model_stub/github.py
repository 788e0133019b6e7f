"""What Copilot CLI asks GitHub beside a model: whose token it has, and which models there are.

The shapes are what Copilot CLI 1.0.102 reads; no account was asked.
"""

from __future__ import annotations

from typing import Any

_MODEL: dict[str, Any] = {
    "id": "gpt-5-mini",
    "name": "GPT-5 mini",
    "version": "gpt-5-mini",
    "vendor": "OpenAI",
    "object": "model",
    "model_picker_enabled": True,
    "is_chat_default": True,
    "is_chat_fallback": True,
    "policy": {"state": "enabled"},
    "supported_endpoints": ["/chat/completions"],
    "capabilities": {
        "type": "chat",
        "family": "gpt-5-mini",
        "object": "model_capabilities",
        "tokenizer": "o200k_base",
        "limits": {
            "max_context_window_tokens": 128000,
            "max_output_tokens": 16384,
            "max_prompt_tokens": 111616,
        },
        "supports": {"streaming": True, "tool_calls": True, "parallel_tool_calls": True},
    },
}

ANSWERS: dict[str, dict[str, Any]] = {
    "/copilot_internal/user": {
        "login": "somebody",
        "copilot_plan": "individual",
        "chat_enabled": True,
        "cli_enabled": True,
        "is_mcp_enabled": True,
    },
    "/copilot/mcp_registry": {"mcp_registries": []},
    "/capi/models": {"object": "list", "data": [_MODEL]},
}
"""By path."""
