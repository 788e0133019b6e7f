"""The scripted model as an HTTP server on the loopback, in a thread of the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from model_stub.anthropic import Question, answer, events, parse_question
from model_stub.scenario import Call, Scenario, ScriptError

_MAX_BODY = 64 << 20
_CREDENTIALS = ("authorization", "x-api-key")


@dataclass(frozen=True)
class Asked:
    """One request that arrived.

    `problem` says what was not as the scenario expects. A request without tools is the agent's own (titles and
    the like) and is answered beside the scenario.
    """

    path: str
    headers: dict[str, str]
    question: Question | None = None
    problem: str = ""

    @property
    def credentials(self) -> dict[str, str]:
        return {name: self.headers[name] for name in _CREDENTIALS if name in self.headers}


class ModelStub(ThreadingHTTPServer):
    """Serves one scenario; `asked` is the log of what arrived."""

    daemon_threads = True

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scenario = scenario
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def conversation(self) -> list[Asked]:
        """The requests that belong to the scenario."""
        return [one for one in self.asked if one.question is not None and one.question.tools]

    def reply(self, question: Question) -> tuple[str, tuple[Call, ...], str]:
        """What to say and to call, and what was wrong with the question."""
        if not question.tools:
            return "a title", (), ""
        try:
            turn = self.scenario.turn(question.assistant_turns)
            turn.require(question.last_result)
            return turn.text, turn.calls(question.tools), ""
        except ScriptError as error:
            return f"STUB PROBLEM: {error}", (), str(error)


@contextmanager
def serving(scenario: str) -> Iterator[ModelStub]:
    """A scripted model that plays `scenarios/SCENARIO.json`, on a free port of the loopback."""
    with ModelStub(Scenario.load(scenario)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: ModelStub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        size = int(self.headers.get("content-length") or 0)
        if size > _MAX_BODY or "transfer-encoding" in self.headers:
            self.close_connection = True
            self._send_json(413, {"error": {"message": "a content-length of at most 64 MiB, please"}})
            return
        body = self.rfile.read(size)
        if path.endswith("/count_tokens"):
            self._log(path)
            self._send_json(200, {"input_tokens": 100})
        elif path.endswith("/v1/messages"):
            self._answer(path, parse_question(json.loads(body)))
        else:
            self._refuse()

    def do_GET(self) -> None:
        self._refuse()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the test's standard error."""

    def _answer(self, path: str, question: Question) -> None:
        text, calls, problem = self.server.reply(question)
        self._log(path, question, problem)
        message = answer(question, text, calls)
        if not question.stream:
            self._send_json(200, message)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for event in events(message):
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        self.close_connection = True

    def _refuse(self) -> None:
        self._log(self.path.partition("?")[0])
        self._send_json(404, {"error": {"message": "not served by the scripted model"}})

    def _log(self, path: str, question: Question | None = None, problem: str = "") -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append(Asked(path, headers, question, problem))

    def _send_json(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)
