"""What the scripted model says, read from `scenarios/*.json`.

A scenario is `{"turns": [TURN, ...]}`. A turn has any of `text` (what the model says), `shell` (a command that it
runs through the agent's own shell tool), `mcp` (`server/tool` of an MCP server, called with `input`) and `expect` (a
regular expression that the last tool result must match).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_DIRECTORY = Path(__file__).parent / "scenarios"
# In this order of preference; what the agent offers decides.
_SHELL_TOOLS = ("Bash", "bash", "shell")


class ScriptError(Exception):
    """The agent did not do what the scenario expects of it."""


@dataclass(frozen=True)
class Call:
    """One use of a tool."""

    tool: str
    input: Mapping[str, Any]


@dataclass(frozen=True)
class Turn:
    """One answer of the model."""

    text: str = ""
    shell: str = ""
    mcp: str = ""
    input: Mapping[str, Any] = field(default_factory=dict)
    expect: str = ""

    def calls(self, tools: Mapping[str, Any]) -> tuple[Call, ...]:
        """The turn's command as a call of one of `tools` (name -> JSON schema). Raises ScriptError."""
        if self.mcp:
            server, _, tool = self.mcp.partition("/")
            return (Call(f"mcp__{server}__{tool}", self.input),)  # it need not be offered: it may be deferred
        if not self.shell:
            return ()
        name = next((name for name in _SHELL_TOOLS if name in tools), None)
        if name is None:
            raise ScriptError(f"no shell tool among {sorted(tools)}")
        filled = {key: "scripted" for key in tools[name].get("required", ())}
        return (Call(name, {**filled, "command": self.shell}),)

    def require(self, last_result: str) -> None:
        """Raises ScriptError when the last tool result is not what this turn expects."""
        if not re.search(self.expect, last_result, re.DOTALL):
            raise ScriptError(f"expected /{self.expect}/ in the last tool result")


@dataclass(frozen=True)
class Scenario:
    """One conversation.

    Turn N answers the request whose history holds N assistant turns already: the server keeps no state, so that
    agents may run in parallel, retry and resume.
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
