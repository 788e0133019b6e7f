"""The scripted model as an HTTP server on the loopback, in a thread of the test."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any, Protocol

from model_stub import anthropic, chat, gemini, github, responses
from model_stub.question import Event, Question, Said, smallest
from model_stub.scenario import Scenario, ScriptError, Turn

_MAX_BODY = 64 << 20
_CREDENTIALS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")


class Api(Protocol):
    """What each module of an API has."""

    def parse_question(self, body: Mapping[str, Any], path: str) -> Question: ...
    def answer(self, question: Question, said: Said) -> dict[str, Any]: ...
    def events(self, message: Mapping[str, Any], /) -> Iterator[Event]: ...


_ROUTES: tuple[tuple[str, Api], ...] = (
    (r"/v1/messages", anthropic),
    (r"/responses", responses),
    (r"/chat/completions", chat),
    (r":(stream)?[gG]enerateContent", gemini),
)


@dataclass(frozen=True)
class Asked:
    """One request that arrived.

    `problem` says what was not as the scenario expects. What an agent asks for itself (titles and the like) is
    answered beside the scenario. `at` is of the monotonic clock.
    """

    path: str
    headers: dict[str, str]
    question: Question | None = None
    problem: str = ""
    at: float = field(default_factory=time.monotonic)

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
        self._troubles: Counter[int] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def conversation(self) -> list[Asked]:
        """The requests that belong to the scenario."""
        return [one for one in self.asked if one.question is not None and not one.question.is_aside]

    def turn(self, question: Question) -> Turn:
        """The turn that answers `question`. Raises ScriptError."""
        if question.is_aside:
            wanted = question.schema
            return Turn("a title" if wanted is None else json.dumps(smallest(wanted)))
        turn = self.scenario.turn(question.assistant_turns)
        turn.require(question.last_result)
        return turn

    def trouble(self, question: Question, turn: Turn) -> Mapping[str, int]:
        """What comes before this answer, empty for nothing."""
        given = self._troubles[question.assistant_turns]
        if question.is_aside or given >= len(turn.troubles):
            return {}
        self._troubles[question.assistant_turns] += 1
        return turn.troubles[given]


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
            self._send_error(413, "a content-length of at most 64 MiB, please")
            return
        body = self.rfile.read(size)
        api = next((api for pattern, api in _ROUTES if re.search(f"{pattern}$", path)), None)
        if api is not None:
            self._answer(api, path, api.parse_question(json.loads(body), path))
        elif re.search(r"count_?tokens$", path, re.IGNORECASE):
            self._log(path)
            self._send_json(200, {"input_tokens": 100, "totalTokens": 100})
        else:
            self._refuse()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in github.ANSWERS:
            self._log(path)
            self._send_json(200, github.ANSWERS[path])
        else:
            self._refuse()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the test's standard error."""

    def _answer(self, api: Api, path: str, question: Question) -> None:
        turn, problem = Turn(), ""
        try:
            turn = self.server.turn(question)
            said = turn.said(question.tools)
        except ScriptError as error:
            problem = str(error)
            said = Said(f"STUB PROBLEM: {error}")
        self._log(path, question, problem)
        trouble = self.server.trouble(question, turn)
        if "status" in trouble:
            self._send_error(trouble["status"], "scripted", retry_after=trouble.get("retry-after"))
            return
        time.sleep(turn.delay)
        message = api.answer(question, said)
        if not question.stream:
            self._send_json(200, message)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for event in islice(api.events(message), trouble.get("cut")):
            time.sleep(turn.pace)
            name = f"event: {event.name}\n" if event.name else ""
            data = event.data if isinstance(event.data, str) else json.dumps(event.data)
            self._send_chunk(f"{name}data: {data}\n\n".encode())
        if not trouble:  # without its last chunk the body is not whole
            self._send_chunk(b"")

    def _send_chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _refuse(self) -> None:
        """Also a WebSocket, with the status that sends Codex to plain HTTP at once."""
        self._log(self.path.partition("?")[0])
        self._send_error(426 if "upgrade" in self.headers else 404, "not served by the scripted model")

    def _log(self, path: str, question: Question | None = None, problem: str = "") -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append(Asked(path, headers, question, problem))

    def _send_error(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        error = {"type": "api_error", "message": message, "code": status, "status": "UNAVAILABLE"}
        self._send_json(status, {"type": "error", "error": error}, retry_after=retry_after)

    def _send_json(self, status: int, body: dict[str, Any], *, retry_after: int | None = None) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        if retry_after is not None:
            self.send_header("retry-after", str(retry_after))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)
