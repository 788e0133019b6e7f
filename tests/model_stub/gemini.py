"""Just enough of Gemini's generateContent API for an agent's conversation, streaming and not."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from model_stub.question import Event, Question, Said, count_turns, text_of


def parse_question(body: Mapping[str, Any], path: str) -> Question:
    """Read a request's body; its model and whether it wants a stream stand in the path."""
    contents = body.get("contents", ())
    users, last = [], ""
    for part in (part for content in contents for part in _user_parts(content)):
        if "functionResponse" in part:
            last = json.dumps(part["functionResponse"].get("response"))
        else:
            users.append(text_of(part))
    config = body.get("generationConfig") or {}
    declared = [one for tool in body.get("tools") or () for one in tool.get("functionDeclarations", ())]
    return Question(
        model=path.rpartition("/models/")[2].partition(":")[0],
        tools={
            one["name"]: one.get("parametersJsonSchema") or one.get("parameters") or {} for one in declared
        },
        stream=":stream" in path,
        assistant_turns=count_turns(content.get("role") == "model" for content in contents),
        user_text="\n".join(users),
        last_result=last,
        schema=config.get("responseJsonSchema") or config.get("responseSchema"),
    )


def answer(question: Question, said: Said) -> dict[str, Any]:
    """The response in one piece."""
    text = [{"text": said.text}] if said.text or not said.calls else []
    used = [
        {"functionCall": {"id": f"fc_{uuid.uuid4().hex[:20]}", "name": call.tool, "args": call.input}}
        for call in said.calls
    ]
    content = {"role": "model", "parts": [*text, *used]}
    return {
        "candidates": [{"index": 0, "content": content, "finishReason": "STOP"}],
        "modelVersion": question.model,
        "usageMetadata": {
            "promptTokenCount": said.usage[0],
            "candidatesTokenCount": said.usage[1],
            "totalTokenCount": sum(said.usage),
        },
    }


def events(response: Mapping[str, Any]) -> Iterator[Event]:
    """The same response as a stream, which is of one piece."""
    yield Event("", response)


def _user_parts(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [] if content.get("role") == "model" else content.get("parts", [])
