"""One answer of a model that says what it is told to, in the words of each API that agents speak: pure.

It is for the check of an agent's new version, not for tests: it knows no tools and keeps no conversation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

_ID: Final = "scripted-1"
_USAGE: Final = (10, 5)  # tokens in and out
_DEEPEST = 8

Json = dict[str, Any]
Event = tuple[str, Json | str]


class Reply(msgspec.Struct, frozen=True):
    """The body of an HTTP response, and its media type."""

    media_type: str
    body: bytes


def reply_to(path: str, request: Json, text: str) -> Reply | None:
    """What answers a POST of `request` with `text`, as a stream where it asks for one; None for what is no API here.

    Where it wants JSON of some schema (titles and the like), the answer is a small value of that.
    """
    for pattern, message_of, events_of, schema_of in _APIS:
        if re.search(f"{pattern}$", path):
            wanted = schema_of(request)
            said = text if wanted is None else json.dumps(smallest(wanted))
            message = message_of(str(request.get("model", "scripted")), said)
            if request.get("stream") or ":stream" in path:
                return Reply("text/event-stream", b"".join(map(_event_bytes, events_of(message))))
            return _json(message)
    if re.search(r"count_?tokens$", path, re.IGNORECASE):
        return _json({"input_tokens": _USAGE[0], "totalTokens": _USAGE[0]})
    return None


def smallest(schema: Any, depth: int = 0) -> Any:
    """A small JSON value that fits a JSON schema, as far as one looks."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return "none"
    if choices := schema.get("enum"):
        return choices[0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return smallest(schema[key][0], depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = str(kind[0] if isinstance(kind, list) else kind).lower()
    if kind == "object":
        properties = schema.get("properties", {})
        return {key: smallest(properties.get(key), depth + 1) for key in schema.get("required", properties)}
    return {"array": [], "integer": 1, "number": 1, "boolean": False, "null": None}.get(kind, "none")


# --- the Anthropic Messages API


def _anthropic(model: str, text: str) -> Json:
    return {
        "id": f"msg_{_ID}", "type": "message", "role": "assistant", "model": model,
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": _USAGE[0], "output_tokens": _USAGE[1]},
    }  # fmt: skip


def _anthropic_events(message: Json) -> Iterator[Event]:
    block, end = message["content"][0], {"stop_reason": "end_turn", "stop_sequence": None}
    for data in (
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {**block, "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": block["text"]}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": _USAGE[1]}},
        {"type": "message_stop"},
    ):
        yield str(data["type"]), data


def _anthropic_schema(request: Json) -> Any:
    return ((request.get("output_config") or {}).get("format") or request.get("output_format") or {}).get(
        "schema"
    )


# --- OpenAI: Responses


def _responses(model: str, text: str) -> Json:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {
        "type": "message",
        "id": f"msg_{_ID}",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    return {
        "id": f"resp_{_ID}", "object": "response", "created_at": 0, "status": "completed", "model": model,
        "output": [item], "error": None,
        "usage": {
            "input_tokens": _USAGE[0], "input_tokens_details": {"cached_tokens": 0}, "output_tokens": _USAGE[1],
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": sum(_USAGE),
        },
    }  # fmt: skip


def _responses_events(response: Json) -> Iterator[Event]:
    item = response["output"][0]
    part = item["content"][0]
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    empty = {**response, "status": "in_progress", "output": [], "usage": None}
    opened = {**item, "status": "in_progress", "content": []}
    events: tuple[tuple[str, Json], ...] = (
        ("response.created", {"response": empty}),
        ("response.output_item.added", {"output_index": 0, "item": opened}),
        ("response.content_part.added", {**place, "part": {**part, "text": ""}}),
        ("response.output_text.delta", {**place, "delta": part["text"]}),
        ("response.output_text.done", {**place, "text": part["text"]}),
        ("response.content_part.done", {**place, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": item}),
        ("response.completed", {"response": response}),
    )
    for number, (name, data) in enumerate(events):
        yield name, {"type": name, "sequence_number": number, **data}


def _responses_schema(request: Json) -> Any:
    return ((request.get("text") or {}).get("format") or {}).get("schema")


# --- OpenAI: Chat Completions


def _chat(model: str, text: str) -> Json:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": _USAGE[0], "completion_tokens": _USAGE[1], "total_tokens": sum(_USAGE)}
    return {
        "id": f"chatcmpl-{_ID}", "object": "chat.completion", "created": 0, "model": model, "choices": [choice],
        "usage": usage,
    }  # fmt: skip


def _chat_events(completion: Json) -> Iterator[Event]:
    chunk = {**completion, "object": "chat.completion.chunk"}
    usage, choice = chunk.pop("usage"), completion["choices"][0]
    yield "", {**chunk, "choices": [{"index": 0, "delta": choice["message"], "finish_reason": None}]}
    yield "", {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield "", {**chunk, "choices": [], "usage": usage}
    yield "", "[DONE]"


def _chat_schema(request: Json) -> Any:
    return ((request.get("response_format") or {}).get("json_schema") or {}).get("schema")


# --- Gemini


def _gemini(model: str, text: str) -> Json:
    content = {"role": "model", "parts": [{"text": text}]}
    return {
        "candidates": [{"index": 0, "content": content, "finishReason": "STOP"}],
        "modelVersion": model,
        "usageMetadata": {
            "promptTokenCount": _USAGE[0], "candidatesTokenCount": _USAGE[1], "totalTokenCount": sum(_USAGE),
        },
    }  # fmt: skip


def _gemini_events(response: Json) -> Iterator[Event]:
    yield "", response


def _gemini_schema(request: Json) -> Any:
    config = request.get("generationConfig") or {}
    return config.get("responseJsonSchema") or config.get("responseSchema")


_APIS: Final = (
    (r"/v1/messages", _anthropic, _anthropic_events, _anthropic_schema),
    (r"/responses", _responses, _responses_events, _responses_schema),
    (r"/chat/completions", _chat, _chat_events, _chat_schema),
    (r":(stream)?[gG]enerateContent", _gemini, _gemini_events, _gemini_schema),
)


def _json(value: Json) -> Reply:
    return Reply("application/json", json.dumps(value).encode())


def _event_bytes(event: Event) -> bytes:
    name, data = event
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()
