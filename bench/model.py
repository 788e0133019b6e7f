"""What the model broker adds: to the first token of an answer, and to a long one."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench.rows import Row
from bench.user import User

_ASKED = 15
_LONG_BYTES = 64 << 20
_MANIFEST = """
name = "bench"
title = "Bench"
model_hosts = ["api.bench.example"]
[command]
interactive = ["sleep", "600"]
[model]
api = "anthropic"
upstream = "https://api.bench.example"
[[login]]
kind = "api-key"
header = "x-api-key"
env = ["BENCH_KEY"]
"""
# Asks at a port of the loopback: the median time to the first byte of an answer's body in milliseconds, after 200 KB of
# conversation, and the time that a long answer takes in seconds.
_CLIENT = """
import http.client, json, statistics, sys, time
port, asked = int(sys.argv[1]), int(sys.argv[2])
def ask(max_tokens):
    body = {"model": "m", "max_tokens": max_tokens, "messages": [{"role": "user", "content": "x" * 200_000}]}
    began = time.perf_counter()
    client.request("POST", "/v1/messages", json.dumps(body), {"content-type": "application/json"})
    answer = client.getresponse()
    assert answer.status == 200, answer.read()
    answer.read(1)
    first = time.perf_counter()
    while answer.read(1 << 16):
        pass
    return (first - began) * 1000, time.perf_counter() - first
client = http.client.HTTPConnection("127.0.0.1", port)
firsts = [ask(1)[0] for _ in range(asked)]
print(json.dumps([statistics.median(firsts), ask(2)[1]]))
"""
_EVENT = (
    b"data: "
    + json.dumps({"type": "content_block_delta", "delta": {"text": "word " * 3000}}).encode()
    + b"\n\n"
)


def measure(user: User) -> Iterator[Row]:
    """Through the broker from inside a session without a network, and straight from the host."""
    manifest = user.home / ".config/coding-agents/agents/bench.toml"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(_MANIFEST)
    with _upstream() as port:
        served = {
            "CODING_AGENTS_MODEL_UPSTREAM": f"http://127.0.0.1:{port}",
            "BENCH_KEY": "bench-key-0123456789",
        }
        asker = replace(user, env={**user.env, **served})
        repo = asker.repository({"README.md": b"hello\n"})
        client = ("--", "python3", "-c", _CLIENT, "8099", str(_ASKED))
        launch = ("launch", str(repo), "--agent", "bench", "--engine", user.engine, "--rm")
        first, long = json.loads(asker.run(*launch, "--network-proxy", "restricted", *client))
        direct = (sys.executable, "-c", _CLIENT, str(port), str(_ASKED))
        straight = json.loads(subprocess.run(direct, check=True, capture_output=True).stdout)
    yield Row(
        what="first token of a model's answer, through the broker",
        value=first,
        unit="ms",
        against="asked straight from the host",
        baseline=straight[0],
        max_ratio=1.0,
        slack=30.0,
    )
    yield Row(
        what=f"the next {_LONG_BYTES >> 20} MiB of an answer",
        value=long,
        unit="s",
        against="read straight from the host",
        baseline=straight[1],
        max_ratio=1.0,
        slack=3.0,
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for _ in range(1 if body["max_tokens"] == 1 else _LONG_BYTES // len(_EVENT)):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(_EVENT), _EVENT))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing beside the table."""


@contextmanager
def _upstream() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
