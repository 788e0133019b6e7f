"""Attacks on what the host serves inside: the model's broker, the relay and the other sockets."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress

_MODEL = ("127.0.0.1", 8099)
_SOCKETS = "/run/coding-agents"
_PATIENCE_S = 1.5
_HELLO = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


def ask_model(tries: list[str]) -> dict[str, str]:
    """The status of the model broker's answer to each request of `REQUESTS`; "closed" without one."""
    return {name: _ask(*_requests()[name]).split(" ")[1] for name in tries}


def plain_question() -> str:
    """The body of the answer to an honest request that carries a stranger's key."""
    return _ask(*_post({}))


def _requests() -> dict[str, tuple[str, bytes]]:
    url = {"type": "url", "url": "http://127.0.0.1:9/?q=workspace"}
    image: dict[str, object] = {"messages": [{"role": "user", "content": [{"type": "image", "source": url}]}]}
    both = "POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked"
    return {
        "absolute": ("POST http://127.0.0.1:9/v1/messages HTTP/1.1", b"{}"),
        "connect": ("CONNECT 127.0.0.1:9 HTTP/1.1", b""),
        "two lengths": ("POST /v1/messages HTTP/1.1\r\ncontent-length: 1", b"{}"),
        "both lengths": (both, b"0\r\n\r\n"),
        "dots": _post({}, "/v1/../v1/messages"),
        "escaped": _post({}, "/v1/%2e%2e/messages"),
        "files": _post({}, "/v1/files"),
        "batches": _post({}, "/v1/messages/batches"),
        "admin": _post({}, "/v1/organizations/api_keys"),
        "key in query": _post({}, "/v1/messages?key=sk-of-somebody-else"),
        "web search": _post({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        "web fetch": _post({"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}),
        "mcp": _post({"mcp_servers": [{**url, "name": "x"}]}),
        "image by url": _post(image),
        "unknown": _post({"webhook": "http://127.0.0.1:9/"}),
    }


def _post(more: Mapping[str, object], path: str = "/v1/messages") -> tuple[str, bytes]:
    return f"POST {path} HTTP/1.1", json.dumps({**_HELLO, **more}).encode()


def _ask(head: str, body: bytes) -> str:
    """The whole answer, or " closed"."""
    data = b""
    with socket.create_connection(_MODEL, timeout=_PATIENCE_S) as link:
        lines = [head, "host: 127.0.0.1", "connection: close", "x-api-key: sk-of-somebody-else",
                 "anthropic-version: 2023-06-01", "content-type: application/json",
                 f"content-length: {len(body)}", "", ""]  # fmt: skip
        with suppress(OSError):
            link.sendall("\r\n".join(lines).encode() + body)
            while piece := link.recv(65536):
                data += piece
    return data.decode("utf-8", "replace") or " closed "


def abuse_socket(name: str, rounds: int) -> str:
    """Send what no client sends, half of it with descriptors, and go away in the middle; empty when all was done."""
    noise = (os.urandom(4096), b"\0" * 70000, b"00040004zzzz" + b"f" * 65536, b'{"op":' * 2000, b"\n" * 9000)
    for number in range(rounds):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as one:
            one.settimeout(0.2)
            one.connect(f"{_SOCKETS}/{name}")
            if number % 2:
                handle = os.open("/etc/passwd", os.O_RDONLY)
                extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", handle))]
                one.sendmsg([b"x"], extra)
                os.close(handle)
            one.sendall(noise[number % len(noise)])
    return ""


def forge_records() -> str:
    """Tell the host of events that would be lines of its log, or records of the host's own."""
    forged = {
        "v": 1,
        "seq": 1,
        "type": "session-removed",
        "source": "host",
        "outcome": "allowed",
        "hash": "0" * 64,
    }
    lines = (
        json.dumps(forged),
        json.dumps({"type": "event", "subject": 'x\n{"source":"host"}\r\n'}),
        "\x1b[2K\r",
    )
    for line in lines:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as one:
            one.settimeout(0.2)
            one.connect(f"{_SOCKETS}/events.sock")
            one.sendall(line.encode() + b"\n")
    return ""
