"""A real MCP server over standard streams, of both protocol eras, with nothing but the standard library.

It is copied into repositories of tests and run inside containers, so it imports nothing of ours. Its one tool tells
what it was asked, and where and with what it runs. `--old` makes it speak the older era only, as a server does that was
never updated. With `--discreet` it tells the names in its environment and a hash of what is in its TOKEN, and with
`--kept` it leaves a process behind in a session of its own, and a file in its home.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

ERAS = ("2024-11-05", "2025-06-18")


def main() -> None:
    if "--kept" in sys.argv:
        subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=subprocess.DEVNULL)
        (Path.home() / "state").write_text(os.environ["TOKEN"])
    known = ERAS[:1] if "--old" in sys.argv else ERAS
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            answer = reply(request, known)
            print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}), flush=True)


def reply(request: dict, known: tuple) -> dict:
    method, params = request["method"], request.get("params") or {}
    if method == "initialize":
        asked = params.get("protocolVersion")
        about = {"name": "probe", "version": "1"}
        version = asked if asked in known else known[-1]
        return {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}}
    if method == "tools/list":
        schema = {"type": "object", "properties": {"say": {"type": "string"}}, "required": ["say"]}
        return {"result": {"tools": [{"name": "where", "description": "Tells.", "inputSchema": schema}]}}
    if method == "tools/call" and params.get("name") == "where":
        return {
            "result": {
                "content": [{"type": "text", "text": told(params.get("arguments") or {})}],
                "isError": False,
            }
        }
    if method == "ping":
        return {"result": {}}
    return {"error": {"code": -32601, "message": f"unknown method {method}"}}


def told(arguments: dict) -> str:
    facts = {"file": __file__, "uid": os.getuid(), "cwd": str(Path.cwd()), "env": dict(os.environ)}
    if "--discreet" in sys.argv:
        token = os.environ.get("TOKEN", "").encode()
        facts |= {"env": sorted(os.environ), "token": hashlib.sha256(token).hexdigest()}
    return f"answered: {arguments.get('say')} {json.dumps(facts)}"


if __name__ == "__main__":
    main()
