"""`coding-agents-why`, run by the agent: asks the session's proxy about a URL, or for all its rules."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from coding_agents_guest.egress.paths import EXPLAIN, PROXY_PORT

_USAGE = "usage: coding-agents-why URL, or coding-agents-why --rules"
_TIMEOUT_S = 10.0


def main(arguments: Sequence[str]) -> int:
    """Tell whether URL may be asked for; 0 when it may, 1 when not, 2 when nobody can tell."""
    if len(arguments) != 1:
        print(_USAGE, file=sys.stderr)
        return 2
    try:
        told = _ask("" if arguments[0] == "--rules" else arguments[0])
    except (OSError, ValueError):
        print("coding-agents-why: this session has no proxy, or it does not answer", file=sys.stderr)
        return 2
    if "error" in told:
        print(f"coding-agents-why: {told['error']}", file=sys.stderr)
        return 2
    for line in _lines(told):
        print(line)
    return 0 if told.get("allowed", True) else 1


def _ask(url: str) -> Mapping[str, Any]:
    with socket.create_connection(("127.0.0.1", PROXY_PORT), _TIMEOUT_S) as proxy:
        proxy.sendall(EXPLAIN + json.dumps(url).encode() + b"\n")
        answer = b""
        while piece := proxy.recv(1 << 16):
            answer += piece
    told = json.loads(answer)
    if not isinstance(told, dict):
        raise ValueError("not an answer")
    return told


def _lines(told: Mapping[str, Any]) -> Sequence[str]:
    if "opened" in told:
        opened = [f"allow  {text}  ({source})" for source, text in told["opened"]]
        return [*opened, *(f"close  {text}  ({source})" for source, text in told["closed"])]
    said = (
        f"allowed by {told['rule']}"
        if told["allowed"]
        else f"refused: {told['explained']} ({told['reason']})"
    )
    return [said, *told["notes"]]
