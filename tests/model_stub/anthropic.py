"""Just enough of the Anthropic Messages API for an agent's conversation, streaming and not."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_stub.scenario import Call


@dataclass(frozen=True)
class Question:
    """What matters of one request. `tools` maps names to JSON schemas of their input."""

    model: str
    tools: Mapping[str, Any]
    stream: bool
    assistant_turns: int
    user_text: str
    last_result: str


def parse_question(body: Mapping[str, Any]) -> Question:
    """Read a request's body."""
    users: list[str] = []
    turns, last, previous = 0, "", ""
    for message in body.get("messages", ()):
        if message["role"] == "assistant":
            turns += previous != "assistant"
        for part in _parts(message["content"]):
            if part.get("type") == "tool_result":
                last = _text(part.get("content"))
            elif message["role"] == "user":
                users.append(_text(part))
        previous = message["role"]
    return Question(
        model=str(body.get("model")),
        tools={
            tool["name"]: tool.get("input_schema", {}) for tool in body.get("tools", ()) if "name" in tool
        },
        stream=bool(body.get("stream")),
        assistant_turns=turns,
        user_text="\n".join(users),
        last_result=last,
    )


def answer(question: Question, text: str, calls: Sequence[Call]) -> dict[str, Any]:
    """The message that answers a request in one piece."""
    said = [{"type": "text", "text": text}] if text or not calls else []
    used = [
        {"type": "tool_use", "id": _fresh("toolu_"), "name": call.tool, "input": dict(call.input)}
        for call in calls
    ]
    return {
        "id": _fresh("msg_"),
        "type": "message",
        "role": "assistant",
        "model": question.model,
        "content": [*said, *used],
        "stop_reason": "tool_use" if calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 100, "output_tokens": 20},
    }


def events(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The same message as the events of a stream, each with its `type`."""
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
    yield {"type": "message_delta", "delta": ending, "usage": {"output_tokens": 20}}
    yield {"type": "message_stop"}


def _parts(content: Any) -> list[dict[str, Any]]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(map(_text, content))
    if isinstance(content, Mapping):
        return str(content.get("text", ""))
    return str(content or "")


def _fresh(prefix: str) -> str:
    return prefix + uuid.uuid4().hex[:20]
