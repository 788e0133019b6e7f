"""What the scripted model says, read from `scenarios/*.json`.

A scenario is `{"turns": [TURN, ...]}`. A turn has any of

- `text`: what the model says;
- `shell`: a command that it runs through the agent's own shell tool;
- `mcp`: `{"tool": "SERVER/TOOL", "input": {...}}`, a tool of an MCP server, however the agent spells it;
- `expect`: a regular expression that the last tool result must match;
- `troubles`: what comes first, each once and in this order: `{"status": 429, "retry-after": 1}`, an HTTP error, or
  `{"cut": 3}`, a stream that breaks off after so many events;
- `delay`: seconds before the answer; `pace`: seconds before each event of its stream;
- `usage`: `[input tokens, output tokens]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_stub.question import CODE_MODE, Call, Said, ToolName, smallest

_DIRECTORY = Path(__file__).parent / "scenarios"
# In this order of preference; what the agent offers decides.
_SHELL_TOOLS = ("Bash", "exec_command", "shell_command", "shell", "bash", "run_shell_command")


class ScriptError(Exception):
    """The agent did not do what the scenario expects of it."""


@dataclass(frozen=True)
class Turn:
    """One answer of the model."""

    text: str = ""
    shell: str = ""
    mcp: Mapping[str, Any] = field(default_factory=dict)
    expect: str = ""
    troubles: Sequence[Mapping[str, int]] = ()
    delay: float = 0
    pace: float = 0
    usage: tuple[int, int] = (100, 20)

    def said(self, tools: Mapping[ToolName, Any]) -> Said:
        """The answer to an agent with these tools (name -> JSON schema). Raises ScriptError."""
        return Said(self.text, self._calls(tools), (self.usage[0], self.usage[1]))

    def require(self, last_result: str) -> None:
        """Raises ScriptError when the last tool result is not what this turn expects."""
        if not re.search(self.expect, last_result, re.DOTALL):
            raise ScriptError(f"expected /{self.expect}/ in the last tool result, got {last_result[-300:]!r}")

    def _calls(self, tools: Mapping[ToolName, Any]) -> tuple[Call, ...]:
        if not self.shell and not self.mcp:
            return ()
        code = next((name for name, schema in tools.items() if schema is CODE_MODE), None)
        if code is not None:
            return (Call(code, self._javascript()),)
        return (_shell_call(self.shell, tools) if self.shell else _mcp_call(self.mcp, tools),)

    def _javascript(self) -> str:
        """The call as Codex's code mode makes it."""
        if self.shell:
            function, argument = "exec_command", {"cmd": self.shell}
        else:
            function = "mcp__" + re.sub(r"\W", "_", self.mcp["tool"].replace("/", "__"))
            argument = self.mcp.get("input", {})
        return f"text(JSON.stringify(await tools.{function}({json.dumps(argument)})))"


@dataclass(frozen=True)
class Scenario:
    """One conversation.

    Turn N answers the request whose history holds N assistant turns already: the server keeps no state but the
    number of troubles given, so that agents may run in parallel, retry and resume.
    """

    turns: tuple[Turn, ...]

    @classmethod
    def load(cls, name: str) -> Scenario:
        """The scenario in `scenarios/NAME.json`."""
        document = json.loads((_DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))
        return cls(tuple(Turn(**turn) for turn in document["turns"]))

    def turn(self, number: int) -> Turn:
        """The turn that is due. Raises ScriptError after the last one."""
        if number >= len(self.turns):
            raise ScriptError("the scenario has no more turns")
        return self.turns[number]


def _shell_call(command: str, tools: Mapping[ToolName, Any]) -> Call:
    name = next((name for name in _SHELL_TOOLS if name in tools), None)
    if name is None:
        raise ScriptError(f"no shell tool among {sorted(map(str, tools))}")
    properties = tools[name].get("properties", {})
    filled = {key: smallest(properties.get(key)) for key in tools[name].get("required", ())}
    key = "cmd" if "cmd" in properties else "command"
    wants_list = properties.get(key, {}).get("type") == "array"
    return Call(name, {**filled, key: ["bash", "-c", command] if wants_list else command})


def _mcp_call(wanted: Mapping[str, Any], tools: Mapping[ToolName, Any]) -> Call:
    """Agents spell it mcp__S__T, mcp_S_T, S-T, S_T or as T in the namespace mcp__S."""
    plain = _letters(wanted["tool"])
    for name in tools:
        if _letters("".join(name)) in (plain, "mcp" + plain):
            return Call(name, wanted.get("input", {}))
    if "ToolSearch" in tools:  # Claude Code shows tools of MCP servers late, and runs them all the same
        return Call("mcp__" + wanted["tool"].replace("/", "__"), wanted.get("input", {}))
    raise ScriptError(f"no MCP tool {wanted['tool']} among {sorted(map(str, tools))}")


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
