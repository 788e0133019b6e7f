"""What an agent says of the tools that it calls: lines from the hooks in its image, for the audit log and nothing else.

Everything in the container can write them, so nobody believes them: a record says that the guest said so. They have a
budget of their own, so that no flood of them hides anything else, and beyond it they are read slowly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coding_agents.supervisor.guest_link import GUEST_UID, lines
from coding_agents_guest.mux import Stream
from coding_agents_guest.records import dataclass
from coding_agents_guest.toolhook import MAX_ABOUT, MAX_TOOL
from coding_agents_guest.wire import WireError, load_json

MAX_LINE = 4096
_MAX_MS = 2**53
# What is beyond the budget is read at 2000 lines a second, so that it costs the host little.
_DROPPED_AT_ONCE = 20
_PAUSE_S = 0.01


@dataclass(frozen=True)
class ToolCall:
    """One call, as the guest tells it: the tool, what it is about, and when (ms since the epoch, its own clock)."""

    tool: str
    about: str
    ms: int


def parse_tool_call(line: bytes) -> ToolCall:
    """The call that `line` tells of. Raises WireError."""
    if len(line) > MAX_LINE:
        raise WireError("a tool call too long")
    said = load_json(line)
    if set(said) != {"tool", "about", "ms"}:
        raise WireError("a tool call with other fields")
    tool, about, ms = said["tool"], said["about"], said["ms"]
    if not isinstance(tool, str) or not isinstance(about, str) or type(ms) is not int:
        raise WireError("a tool call with other types")
    if not 0 < len(tool) <= MAX_TOOL or len(about) > MAX_ABOUT or not 0 <= ms < _MAX_MS:
        raise WireError("a tool call beyond its bounds")
    return ToolCall(tool, about, ms)


class ToolCalls:
    """Serves the streams of one session's hooks; `record` writes a call down, and says whether it had room."""

    def __init__(self, record: Callable[[ToolCall], bool]) -> None:
        self._record = record
        self._one = asyncio.Lock()
        self._dropped = 0

    async def serve(self, stream: Stream) -> None:
        """Take what one hook says, to the end of its stream."""
        if stream.peer_uid != GUEST_UID:
            stream.reset("tool calls are the agent's")
            return
        try:
            async for line in lines(stream, MAX_LINE):
                await self._take(parse_tool_call(line))
        except WireError:
            stream.reset("malformed tool call")

    async def _take(self, call: ToolCall) -> None:
        async with self._one:
            if not await asyncio.to_thread(self._record, call):
                self._dropped += 1
                if self._dropped % _DROPPED_AT_ONCE == 0:
                    await asyncio.sleep(_PAUSE_S)
