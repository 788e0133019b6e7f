"""Just enough of the Anthropic Messages API for an agent's conversation, streaming and not."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from model_stub.question import Event, Question, Said, count_turns, text_of


def parse_question(body: Mapping[str, Any], path: str) -> Question:
    """Read a request's body."""
    messages = body.get("messages", ())
    users, last = [], ""
    for message in messages:
        for part in _parts(message["content"]):
            if part.get("type") == "tool_result":
                last = text_of(part.get("content"))
            elif message["role"] == "user":
                users.append(text_of(part))
    wanted = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    return Question(
        model=str(body.get("model")),
        tools={
            tool["name"]: tool.get("input_schema", {}) for tool in body.get("tools", ()) if "name" in tool
        },
        stream=bool(body.get("stream")),
        assistant_turns=count_turns(message["role"] == "assistant" for message in messages),
        user_text="\n".join(users),
        last_result=last,
        schema=wanted.get("schema"),
    )


def answer(question: Question, said: Said) -> dict[str, Any]:
    """The message that answers a request in one piece."""
    text = [{"type": "text", "text": said.text}] if said.text or not said.calls else []
    used = [
        {"type": "tool_use", "id": _fresh("toolu_"), "name": call.tool, "input": call.input}
        for call in said.calls
    ]
    return {
        "id": _fresh("msg_"),
        "type": "message",
        "role": "assistant",
        "model": question.model,
        "content": [*text, *used],
        "stop_reason": "tool_use" if said.calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": said.usage[0], "output_tokens": said.usage[1]},
    }


def events(message: Mapping[str, Any]) -> Iterator[Event]:
    """The same message as a stream."""
    for data in _stream(message):
        yield Event(data["type"], data)


def _stream(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            empty, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": message["usage"]["output_tokens"]}
    yield {"type": "message_delta", "delta": ending, "usage": usage}
    yield {"type": "message_stop"}


def _parts(content: Any) -> list[dict[str, Any]]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _fresh(prefix: str) -> str:
    return prefix + uuid.uuid4().hex[:20]
