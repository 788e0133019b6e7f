"""`tool-hook`: what an agent's hook runs before a tool is called. It tells the host which one, in a line.

It starts anew with every call, and the agent waits for it: so it does with what `socket` and `json` are made of, as
they take longer to load than Python to start. It never waits for an answer, prints nothing and never fails: an agent
must work as well without it. What it says is the agent's own word, and believed for nothing.
"""

from __future__ import annotations

import _json
import _socket
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself takes as long to load as all the rest
    from typing import Any

SOCKET = "/run/coding-agents/tools.sock"
MAX_TOOL = 100
MAX_ABOUT = 300

_CHUNK = 64 * 1024
_MAX_INPUT = 4 << 20
_PATIENCE_S = 0.5
# What a call is about, by the names that the agents' own tools have for it.
_KEYS = (
    "command", "cmd", "file_path", "filePath", "absolute_path", "path", "notebook_path", "pattern", "query", "url",
    "description", "prompt", "input",
)  # fmt: skip


class _Scanner:
    """What `_json.make_scanner` asks for, as `json.JSONDecoder` has it."""

    strict = False
    object_hook = object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def main(path: str = SOCKET) -> int:
    """Read a hook's JSON from standard input and send what it says of a call. Always 0."""
    try:
        line = line_of(_read(0))
        link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        link.settimeout(_PATIENCE_S)
        link.connect(path)
        link.send(line)
        link.close()
    except Exception:  # noqa: BLE001 - see above
        pass
    return 0


def line_of(data: bytes) -> bytes:
    """The line for a hook's input, with its line end. Raises what parsing raises."""
    said = _parsed(data.decode("utf-8", "replace"))
    tool = str(said.get("tool_name") or said.get("toolName") or "")
    given = next((said[key] for key in ("tool_input", "toolArgs") if key in said), "")
    if isinstance(given, str) and given.startswith("{"):  # Copilot CLI: JSON within JSON
        given = _parsed(given)
    said_ms = time.time_ns() // 1_000_000
    return b'{"tool":%b,"about":%b,"ms":%d}\n' % (
        _quoted(tool, MAX_TOOL),
        _quoted(_about(given), MAX_ABOUT),
        said_ms,
    )


def _quoted(text: str, limit: int) -> bytes:
    whole = text[:limit].encode("utf-8", "replace").decode()  # JSON can hold half of a character
    return _json.encode_basestring_ascii(whole).encode()


def _parsed(text: str) -> Any:
    scan: Any = _json.make_scanner
    return scan(_Scanner)(text.strip(), 0)[0]


def _about(given: Any) -> str:
    if isinstance(given, dict):
        named = [given[key] for key in _KEYS if key in given]
        given = next((value for value in (*named, *given.values()) if isinstance(value, (str, list))), "")
    if isinstance(given, list):
        given = " ".join(one for one in given if isinstance(one, str))
    return given if isinstance(given, str) else ""


def _read(descriptor: int) -> bytes:
    """Everything, so that nobody's pipe breaks; no more than a bound of it is kept."""
    kept = bytearray()
    while data := os.read(descriptor, _CHUNK):
        if len(kept) < _MAX_INPUT:
            kept += data
    return bytes(kept)
