"""What a request says, in the same words for every API, and reading text out of any API's content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ToolName = str | tuple[str, str]
"""A tool's name; (namespace, name) for one of a group, as Codex offers MCP tools."""

CODE_MODE: Mapping[str, Any] = {"code mode": True}
"""In the place of a schema: Codex's free-form tool that runs JavaScript, which reaches the other tools."""


@dataclass(frozen=True)
class Question:
    """What matters of one request. `tools` maps names to JSON schemas of their input.

    `user_text` is all that the user's side has said; agents put context of their own in front of the prompt.
    `schema` is that of the answer, where the request asks for JSON.
    """

    model: str
    tools: Mapping[ToolName, Any]
    stream: bool
    assistant_turns: int
    user_text: str
    last_result: str
    schema: Any = None

    @property
    def is_aside(self) -> bool:
        """The agent's own question (titles and the like): it has no tools, or wants JSON."""
        return not self.tools or self.schema is not None


@dataclass(frozen=True)
class Call:
    """One use of a tool; `input` is a text for a free-form tool."""

    tool: ToolName
    input: Mapping[str, Any] | str


@dataclass(frozen=True)
class Said:
    """One answer of the model; `usage` is (input tokens, output tokens)."""

    text: str
    calls: tuple[Call, ...] = ()
    usage: tuple[int, int] = (100, 20)


@dataclass(frozen=True)
class Event:
    """One event of a stream; `name` is empty where the API has none."""

    name: str
    data: Mapping[str, Any] | str


def count_turns(ours: Iterable[bool]) -> int:
    """How many turns of the model a history holds: runs of entries that are the model's."""
    turns, previous = 0, False
    for one in ours:
        turns += one and not previous
        previous = one
    return turns


def text_of(content: Any) -> str:
    """Any API's content value as plain text."""
    if isinstance(content, list):
        return "\n".join(filter(None, map(text_of, content)))
    if isinstance(content, Mapping):
        return text_of(content.get("text") or content.get("content") or content.get("output"))
    return str(content or "")


def smallest(schema: Any) -> Any:
    """A small JSON value that fits a JSON schema."""
    if not isinstance(schema, Mapping):
        return "stub"
    if choices := schema.get("enum"):
        return choices[0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return smallest(schema[key][0])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = str(kind[0] if isinstance(kind, list) else kind).lower()
    if kind == "object":
        properties = schema.get("properties", {})
        return {key: smallest(properties.get(key, {})) for key in schema.get("required", properties)}
    return {"array": [], "integer": 1, "number": 1, "boolean": False, "null": None}.get(kind, "stub")
