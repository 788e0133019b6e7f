"""A model on the host's loopback that says one sentence, for the check of an agent's new version.

It gives nothing away: whoever else on this machine asks it hears the same sentence.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from coding_agents.images.scripted_answers import Reply, reply_to

_MAX_BODY = 16 << 20
_IDLE_S = 60.0


class ScriptedModel(ThreadingHTTPServer):
    """Serves until `scripted_model` ends. `heard` tells whether `word` came with the header value `credential`."""

    daemon_threads = True

    def __init__(self, *, says: str, word: str, credential: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.says = says
        self.word = word.encode()
        self.credential = credential
        self.asked = 0
        self.heard = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that breaks off is the agent's own affair."""


@contextmanager
def scripted_model(*, says: str, word: str, credential: str) -> Iterator[ScriptedModel]:
    """A model that answers everything with `says`, on a free port of the loopback, for the block.

    `word` is part of the task; `credential` what the host's own login looks like in a header, "" for no login.
    """
    with ScriptedModel(says=says, word=word, credential=credential) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedModel
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S

    def do_POST(self) -> None:
        size = self.headers.get("content-length") or ""
        if not size.isdecimal() or int(size) > _MAX_BODY:
            self._send(413, Reply("text/plain", b"a content-length of at most 16 MiB, please"))
            return
        body = self.rfile.read(int(size))
        try:
            request = json.loads(body)
            answer = reply_to(self.path.partition("?")[0], request, self.server.says)
        except (ValueError, AttributeError, LookupError, RecursionError, TypeError):
            answer = None
        if answer is None:
            self._refuse()
            return
        self.server.asked += 1
        given = any(self.server.credential in value for value in self.headers.values())
        self.server.heard |= given and self.server.word in body
        self._send(200, answer)

    def do_GET(self) -> None:
        self._refuse()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the user's standard error."""

    def _refuse(self) -> None:
        """Also a WebSocket, with the status that sends an agent to plain HTTP at once."""
        self._send(426 if "upgrade" in self.headers else 404, Reply("text/plain", b"not served here"))

    def _send(self, status: int, reply: Reply) -> None:
        self.send_response(status)
        self.send_header("content-type", reply.media_type)
        self.send_header("content-length", str(len(reply.body)))
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(reply.body)
