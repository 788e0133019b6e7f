"""A server at an address, on this host's loopback: it keeps what it is asked, and answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.mcp_server import ERAS, reply


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Web

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        asked = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, self.path, asked, self.body))
        self.server.reply(self)

    do_GET = do_HEAD = do_DELETE = do_PUT = do_POST

    def say(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


Reply = Callable[[Handler], None]


class Web(ThreadingHTTPServer):
    """`asked` has method, path, headers and body of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.reply: Reply = _ok

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def web_server() -> Iterator[Web]:
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def as_mcp(handler: Handler) -> None:
    """The real server of `mcp_server`, by Streamable HTTP without a stream of its own."""
    if handler.command != "POST":
        handler.say(b"", 405)
        return
    request = json.loads(handler.body)
    if "id" not in request:
        handler.say(b"", 202)
        return
    answer = {"jsonrpc": "2.0", "id": request["id"], **reply(request, ERAS)}
    handler.say(json.dumps(answer).encode(), content_type="application/json")


def _ok(handler: Handler) -> None:
    handler.say(b'{"ok": 1}', content_type="application/json", mcp_session_id="7")
