"""What a request to a model may ask for, by what the real agents send and by what an attacker would.

The bodies in data/model are what the agents' programs sent to a scripted model, with texts and schemas cut short.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.brokers.model import anthropic, copilot, gemini, openai
from coding_agents.brokers.model.apis import PROTOCOLS, passing, upstream_headers
from coding_agents.brokers.model.body import MalformedBodyError, findings, read_body, write_body
from coding_agents.brokers.model.shapes import MAX_NODES, Kind
from coding_agents.policy.matrix import Operation

DATA = Path(__file__).parent / "data" / "model"
SHAPES: dict[str, tuple[str, Kind]] = {
    "claude": ("anthropic", anthropic.REQUEST),
    "codex": ("openai", openai.RESPONSES),
    "codex-code-mode": ("openai", openai.RESPONSES),
    "copilot": ("openai", openai.CHAT),
    "copilot-github-chat": ("copilot", copilot.CHAT),
    "copilot-github-messages": ("copilot", copilot.MESSAGES),
    "copilot-github-responses": ("copilot", copilot.RESPONSES),
    "opencode": ("openai", openai.CHAT),
    "gemini": ("gemini", gemini.REQUEST),
}
TOOL, REFERENCE, UNKNOWN = Operation.MODEL_SERVER_TOOL, Operation.MODEL_REFERENCE, Operation.MODEL_UNKNOWN
URL = "https://collector.example/?q=secret"


def sent_by(agent: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((DATA / f"{agent}.json").read_text("utf-8"))
    return body


def found(
    agent: str, body: dict[str, Any], allowed: tuple[str, ...] = ()
) -> list[tuple[Operation, str, str]]:
    api, shape = SHAPES[agent]
    return [
        (one.operation, one.what, one.where)
        for one in findings(body, shape, PROTOCOLS[api], allowed=allowed)  # type: ignore[index]
    ]


@pytest.mark.parametrize("agent", SHAPES)
def test_what_the_real_agents_send_is_let_through(agent: str) -> None:
    expected = ["web_search"] if agent == "codex" else []  # which our settings for it leave out
    assert [what for _, what, _ in found(agent, sent_by(agent))] == expected
    assert found(agent, sent_by(agent), allowed=("web_search",)) == []


@pytest.mark.parametrize(
    ("agent", "more", "operation"),
    [
        ("claude", {"tools": [{"type": "web_fetch_20250910", "name": "x"}]}, TOOL),
        ("claude", {"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}, TOOL),
        ("claude", {"tools": [{"type": "tomorrows_tool_20270101"}]}, TOOL),
        ("claude", {"tools": [{"type": ["custom"]}]}, TOOL),
        ("claude", {"tools": [{"type": "text_editor_9", "file_url": URL}]}, REFERENCE),
        ("claude", {"mcp_servers": [{"type": "url", "url": URL}]}, TOOL),
        ("claude", {"container": {"skills": []}}, TOOL),
        ("claude", {"Model": "x"}, UNKNOWN),
        ("claude", {"system": [{"type": "image", "source": {"type": "url", "url": URL}}]}, REFERENCE),
        ("claude", {"system": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]}, REFERENCE),
        ("claude", {"system": [{"type": "container_upload", "file_id": "f"}]}, UNKNOWN),
        (
            "claude",
            {"system": [{"type": "text", "text": "", "fetch": {"deep": [{"source_url": URL}]}}]},
            REFERENCE,
        ),
        ("claude", {"system": [{"type": "text", "text": "", "file_ids": ["f"]}]}, REFERENCE),
        ("codex", {"tools": [{"type": "mcp", "server_url": URL}]}, TOOL),
        ("codex", {"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, TOOL),
        ("codex", {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, TOOL),
        ("codex", {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}]}, TOOL),
        ("codex", {"tools": [{"name": "a function of the older form"}]}, TOOL),
        ("codex", {"input": [{"type": "additional_tools", "tools": [{"type": "web_search"}]}]}, TOOL),
        ("codex", {"input": [{"type": "configuration_update", "tools": [{"type": "web_search"}]}]}, TOOL),
        ("codex", {"input": [{"type": "configuration_update", "webhook": "x"}]}, UNKNOWN),
        ("codex", {"input": [{"type": "tool_search_output", "tools": [{"type": "mcp"}]}]}, TOOL),
        ("codex", {"input": [{"type": "item_reference", "id": "x"}]}, UNKNOWN),
        (
            "codex",
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": URL}]}]},
            REFERENCE,
        ),
        (
            "codex",
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            REFERENCE,
        ),
        (
            "codex",
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": URL}]}]},
            REFERENCE,
        ),
        (
            "codex",
            {
                "input": [
                    {"type": "function_call_output", "output": [{"type": "input_file", "file_url": URL}]}
                ]
            },
            REFERENCE,
        ),
        ("codex", {"previous_response_id": "resp_1"}, REFERENCE),
        ("codex", {"conversation": "conv_1"}, REFERENCE),
        ("codex", {"prompt": {"id": "pmpt_1"}}, REFERENCE),
        ("codex", {"background": True}, REFERENCE),
        ("codex", {"webhook": URL}, UNKNOWN),
        ("copilot", {"web_search_options": {}}, TOOL),
        ("copilot", {"tools": [{"type": "web_search"}]}, TOOL),
        (
            "copilot",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL}}]}]},
            REFERENCE,
        ),
        (
            "copilot",
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
            REFERENCE,
        ),
        ("copilot-github-chat", {"tools": [{"type": "web_search"}]}, TOOL),
        ("copilot-github-messages", {"tools": [{"type": "web_fetch_20250910", "name": "x"}]}, TOOL),
        ("copilot-github-messages", {"mcp_servers": [{"type": "url", "url": URL}]}, TOOL),
        (
            "copilot-github-messages",
            {"system": [{"type": "image", "source": {"type": "url", "url": URL}}]},
            REFERENCE,
        ),
        ("copilot-github-responses", {"previous_response_id": "resp_1"}, REFERENCE),
        ("copilot-github-responses", {"copilot_skills": ["x"]}, UNKNOWN),
        ("gemini", {"tools": [{"googleSearch": {}}]}, TOOL),
        ("gemini", {"tools": [{"urlContext": {}}]}, TOOL),
        ("gemini", {"tools": [{"url_context": {}}]}, TOOL),
        ("gemini", {"tools": [{"functionDeclarations": [], "codeExecution": {}}]}, TOOL),
        ("gemini", {"contents": [{"parts": [{"fileData": {"fileUri": URL}}]}]}, REFERENCE),
        ("gemini", {"contents": [{"parts": [{"file_data": {"file_uri": URL}}]}]}, REFERENCE),
        ("gemini", {"system_instruction": {"parts": []}}, UNKNOWN),
        ("gemini", {"cachedContent": "cachedContents/1"}, REFERENCE),
        (
            "gemini",
            {"contents": [{"parts": [{"functionResponse": {"name": "n", "parts": [{"fileData": {}}]}}]}]},
            REFERENCE,
        ),
        ("gemini", {"generateContentRequest": {"tools": [{"googleSearch": {}}]}}, TOOL),
    ],
)
def test_what_would_reach_beyond_the_answer_is_found(
    agent: str, more: dict[str, Any], operation: Operation
) -> None:
    body = {**sent_by("codex-code-mode" if agent == "codex" else agent), **more}
    assert {one for one, _, _ in found(agent, body)} == {operation}


def test_embedded_content_and_the_clients_own_words_are_no_references() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = sent_by("copilot") | {
        "messages": [{"role": "user", "content": [image, {"type": "text", "text": URL}]}]
    }
    assert found("copilot", body) == []
    block = {"type": "tool_use", "id": "1", "name": "n", "input": {"type": "url", "url": URL, "file_id": "f"}}
    body = sent_by("claude") | {"messages": [{"role": "assistant", "content": [block]}]}
    assert found("claude", body) == []
    body = sent_by("claude") | {
        "tools": [{"name": "n", "input_schema": {"properties": {"url": {"type": "string"}}}}]
    }
    assert found("claude", body) == []


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Each list of objects in a body that the provider reads as content, items or tools."""
    lists = []
    if isinstance(value, dict):
        lists = [place for key, one in value.items() for place in _places(one, (*path, key))]
    elif isinstance(value, list):
        lists = [place for number, one in enumerate(value) for place in _places(one, (*path, number))]
        if value and all(isinstance(one, dict) for one in value):
            lists.append(path)
    return lists


_OPAQUE = {"input_schema", "arguments", "edits", "internal_chat_message_metadata_passthrough", "tool_calls"}


@given(st.data())
def test_a_hostile_object_is_found_wherever_it_is_put(data: st.DataObject) -> None:
    agent = data.draw(st.sampled_from(sorted(set(SHAPES) - {"codex", "gemini"})))
    body = copy.deepcopy(sent_by(agent))
    places = [place for place in _places(body) if not _OPAQUE & set(map(str, place))]
    place = data.draw(st.sampled_from(places))
    target = body
    for step in place:
        target = target[step]
    hostile = data.draw(
        st.sampled_from(
            [
                {"type": "web_search", "name": "w"},
                {"type": "image", "source": {"type": "url", "url": URL}},
                {"type": "input_image", "image_url": URL},
                {"type": "mcp", "server_url": URL},
            ]
        )
    )
    target.insert(data.draw(st.integers(0, len(target))), hostile)  # type: ignore[attr-defined]
    assert found(agent, body) != []


def test_a_body_is_bounded_in_values_and_depth() -> None:
    body = {"messages": [{"role": "user", "content": "x"}] * (MAX_NODES + 1)}
    with pytest.raises(MalformedBodyError, match="more values"):
        found("claude", body)
    with pytest.raises(MalformedBodyError):
        read_body(b'{"a":' * 100_000)
    deep: Any = {}
    for _ in range(50_000):
        deep = {"x": deep}
    with pytest.raises(MalformedBodyError):
        write_body({"messages": [deep]})


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_a_body_means_the_same_when_it_is_written_anew(value: object) -> None:
    assert read_body(write_body({"a": value})) == {"a": value}


@given(
    st.lists(
        st.tuples(st.sampled_from(["x-api-key", "accept", "x-stainless-os", "cookie"]), st.text(max_size=9))
    )
)
def test_only_listed_headers_pass_and_each_once(headers: list[tuple[str, str]]) -> None:
    for protocol in PROTOCOLS.values():
        fresh = upstream_headers(protocol, tuple(headers), {"x-api-key": "ours"})
        names = [name for name, _ in fresh]
        assert len(names) == len(set(names))
        assert dict(fresh)["x-api-key"] == "ours"
        assert "cookie" not in names
    assert passing(("x-*",), (("x-a", "1"), ("x-a", "2"), ("y", "3"))) == [("x-a", "1")]
