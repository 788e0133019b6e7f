"""Just enough of the OpenAI Responses API for an agent's conversation: Codex, in each of its tool styles."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from model_stub.question import CODE_MODE, Call, Event, Question, Said, ToolName, count_turns, text_of

_OURS = ("function_call", "custom_tool_call", "local_shell_call", "reasoning")


def parse_question(body: Mapping[str, Any], path: str) -> Question:
    """Read a request's body."""
    given = body.get("input", [])
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    results = [item.get("output") for item in items if item.get("type", "").endswith("_output")]
    return Question(
        model=str(body.get("model")),
        tools=_tools(body, items),
        stream=bool(body.get("stream")),
        assistant_turns=count_turns(
            item.get("type") in _OURS or item.get("role") == "assistant" for item in items
        ),
        user_text="\n".join(text_of(item.get("content")) for item in items if item.get("role") == "user"),
        last_result=text_of(results[-1]) if results else "",
        schema=((body.get("text") or {}).get("format") or {}).get("schema"),
    )


def answer(question: Question, said: Said) -> dict[str, Any]:
    """The response in one piece."""
    text = [_message(said.text)] if said.text or not said.calls else []
    return {
        "id": _fresh("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "model": question.model,
        "output": [*text, *map(_call, said.calls)],
        "usage": {
            "input_tokens": said.usage[0],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": said.usage[1],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sum(said.usage),
        },
        "error": None,
    }


def events(response: Mapping[str, Any]) -> Iterator[Event]:
    """The same response as a stream."""
    for number, (name, data) in enumerate(_stream(response)):
        yield Event(name, {"type": name, "sequence_number": number, **data})


def _stream(response: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    empty = {**response, "status": "in_progress", "output": [], "usage": None}
    yield "response.created", {"response": empty}
    for index, item in enumerate(response["output"]):
        started = {**item, "status": "in_progress"}
        yield "response.output_item.added", {"output_index": index, "item": started}
        yield from _deltas({"item_id": item["id"], "output_index": index}, item)
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield "response.completed", {"response": response}


def _deltas(where: dict[str, Any], item: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if item["type"] == "message":
        part, place = item["content"][0], {**where, "content_index": 0}
        yield "response.content_part.added", {**place, "part": {**part, "text": ""}}
        yield "response.output_text.delta", {**place, "delta": part["text"]}
        yield "response.output_text.done", {**place, "text": part["text"]}
        yield "response.content_part.done", {**place, "part": part}
    elif "arguments" in item:
        yield "response.function_call_arguments.delta", {**where, "delta": item["arguments"]}
        yield "response.function_call_arguments.done", {**where, "arguments": item["arguments"]}


def _tools(body: Mapping[str, Any], items: list[Mapping[str, Any]]) -> dict[ToolName, Any]:
    """Also those that stand among the input, and those in a namespace."""
    offered = list(body.get("tools") or ())
    for item in items:
        offered += item.get("tools", ()) if item.get("type") == "additional_tools" else ()
    tools: dict[ToolName, Any] = {}
    for tool in offered:
        if tool.get("type") == "namespace":
            tools |= {(tool["name"], one["name"]): _schema(one) for one in tool["tools"]}
        else:
            tools[tool.get("name") or tool["type"]] = _schema(tool)
    return tools


def _schema(tool: Mapping[str, Any]) -> Any:
    code = tool.get("type") == "custom" and tool.get("name") == "exec"
    return CODE_MODE if code else tool.get("parameters", {})


def _message(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {
        "type": "message",
        "id": _fresh("msg_"),
        "role": "assistant",
        "status": "completed",
        "content": content,
    }


def _call(call: Call) -> dict[str, Any]:
    space, name = call.tool if isinstance(call.tool, tuple) else ("", call.tool)
    item = {"call_id": _fresh("call_"), "status": "completed", "name": name}
    item |= {"namespace": space} if space else {}
    if isinstance(call.input, str):
        return {**item, "type": "custom_tool_call", "id": _fresh("ctc_"), "input": call.input}
    return {**item, "type": "function_call", "id": _fresh("fc_"), "arguments": json.dumps(call.input)}


def _fresh(prefix: str) -> str:
    return prefix + uuid.uuid4().hex[:20]
