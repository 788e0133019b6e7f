"""Just enough of the OpenAI Chat Completions API for an agent's conversation (Copilot with a provider of one's own)."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from model_stub.question import Event, Question, Said, count_turns, text_of


def parse_question(body: Mapping[str, Any], path: str) -> Question:
    """Read a request's body."""
    messages = body.get("messages", ())
    results = [message.get("content") for message in messages if message["role"] == "tool"]
    users = [text_of(message.get("content")) for message in messages if message["role"] == "user"]
    functions = [tool["function"] for tool in body.get("tools") or () if tool.get("type") == "function"]
    return Question(
        model=str(body.get("model")),
        tools={function["name"]: function.get("parameters", {}) for function in functions},
        stream=bool(body.get("stream")),
        assistant_turns=count_turns(message["role"] == "assistant" for message in messages),
        user_text="\n".join(users),
        last_result=text_of(results[-1]) if results else "",
        schema=((body.get("response_format") or {}).get("json_schema") or {}).get("schema"),
    )


def answer(question: Question, said: Said) -> dict[str, Any]:
    """The completion in one piece."""
    message: dict[str, Any] = {"role": "assistant", "content": said.text}
    if said.calls:
        message["tool_calls"] = [
            {
                "index": index,
                "id": _fresh("call_"),
                "type": "function",
                "function": {"name": call.tool, "arguments": json.dumps(call.input)},
            }
            for index, call in enumerate(said.calls)
        ]
    stop = "tool_calls" if said.calls else "stop"
    return {
        "id": _fresh("chatcmpl-"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": question.model,
        "choices": [{"index": 0, "message": message, "finish_reason": stop}],
        "usage": {
            "prompt_tokens": said.usage[0],
            "completion_tokens": said.usage[1],
            "total_tokens": sum(said.usage),
        },
    }


def events(completion: Mapping[str, Any]) -> Iterator[Event]:
    """The same completion as a stream."""
    choice = completion["choices"][0]
    chunk = {**completion, "object": "chat.completion.chunk"}
    usage = chunk.pop("usage")
    said = {"index": 0, "delta": choice["message"], "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    yield Event("", {**chunk, "choices": [said]})
    yield Event("", {**chunk, "choices": [end]})
    yield Event("", {**chunk, "choices": [], "usage": usage})
    yield Event("", "[DONE]")


def _fresh(prefix: str) -> str:
    return prefix + uuid.uuid4().hex[:20]
