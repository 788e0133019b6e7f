"""The model broker between a hostile guest and an upstream that records what arrives."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from coding_agents.brokers.model.service import BrokerLimits
from coding_agents.brokers.model.usage import Usage
from coding_agents.errors import CredentialError
from coding_agents.model.provider import Api
from support.model_broker import DUMMY, KEY, SESSION, Bench, Request, Wire, broker_at_work, read_all
from support.relay_scene import eventually

MESSAGES = "/v1/messages"
HELLO: dict[str, Any] = {"model": "m-1", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def bench() -> Iterator[Bench]:
    with broker_at_work() as running:
        yield running


def head(*lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def raw_post(*more: str, target: str = MESSAGES, body: bytes | None = None) -> bytes:
    data = json.dumps(HELLO).encode() if body is None else body
    return head(
        f"POST {target} HTTP/1.1",
        "Host: x",
        "Connection: close",
        f"Content-Length: {len(data)}",
        *more,
        body=data,
    )


def chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n"


# --- what it is for ---------------------------------------------------------------------------------------


def test_the_users_key_takes_the_place_of_the_dummy(bench: Bench) -> None:
    status, _, body = bench.post(
        f"{MESSAGES}?beta=true",
        HELLO,
        {"x-api-key": DUMMY, "anthropic-version": "2023-06-01", "x-app": "cli"},
    )
    assert status == 200
    assert json.loads(body)["type"] == "message"
    (asked,) = bench.asked
    assert asked.target == f"{MESSAGES}?beta=true"
    assert asked.header("x-api-key") == [KEY]
    assert asked.header("anthropic-version") == ["2023-06-01"]
    assert asked.header("host")[0].startswith("127.0.0.1:")
    assert asked.json == {**HELLO, "metadata": {"user_id": SESSION}}
    assert [event.type.value for event in bench.events] == ["model-request"]
    assert bench.events[0].subject == "m-1"
    assert KEY not in repr(bench.events)


def test_a_foreign_credential_never_passes(bench: Bench) -> None:
    """Whatever a guest calls it: no other account than the user's is reached through the broker."""
    foreign = "sk-of-somebody-else"
    names = ("x-api-key", "authorization", "api-key", "cookie", "x-goog-api-key", "proxy-authorization")
    names += ("openai-organization", "x-forwarded-for", "forwarded", "x-my-key", "anthropic-organization")
    assert bench.post(MESSAGES, HELLO, dict.fromkeys(names, foreign))[0] == 200
    assert foreign not in repr(bench.asked)
    assert bench.post(f"{MESSAGES}?key={foreign}", HELLO)[0] == 404
    assert len(bench.asked) == 1


def test_an_accounts_beta_is_added_to_those_of_the_client() -> None:
    account = {"authorization": f"Bearer {KEY}", "anthropic-beta": "oauth-1"}
    with broker_at_work(headers=account) as bench:
        bench.post(MESSAGES, HELLO, {"anthropic-beta": "thinking-2, oauth-1", "authorization": "Bearer x"})
        assert bench.asked[0].header("anthropic-beta") == ["oauth-1,thinking-2"]
        assert bench.asked[0].header("authorization") == [f"Bearer {KEY}"]


def test_an_accounts_own_address_takes_the_place_of_the_version() -> None:
    with broker_at_work("openai", prefix="/backend/codex", own_address=True) as bench:
        bench.post("/v1/responses", {"model": "m", "input": "hi"})
        assert bench.asked[0].target == "/backend/codex/responses"
    with broker_at_work("openai", prefix="/gateway") as bench:
        bench.post("/v1/responses", {"model": "m", "input": "hi"})
        assert bench.asked[0].target == "/gateway/v1/responses"


@contextmanager
def github(account_api: Api = "copilot") -> Iterator[Bench]:
    """As Copilot CLI has it: a key for OpenAI's API or an account of GitHub's."""
    with broker_at_work(
        "openai", also="copilot", account_api=account_api, prefix="/service", account_prefix="/github",
        own_address=account_api == "copilot", headers={"authorization": f"Bearer {KEY}"},
    ) as bench:  # fmt: skip
        yield bench


_SETTINGS = "/copilot_internal/managed_settings?client_id=github%2Fcli&client_version=1.0.102"


@pytest.mark.parametrize(
    ("method", "asked", "sent"),
    [
        ("GET", "/copilot_internal/user", "/github/copilot_internal/user"),
        ("GET", _SETTINGS, f"/github{_SETTINGS}"),
        ("GET", "/copilot/mcp_registry", "/github/copilot/mcp_registry"),
        ("GET", "/capi/models", "/service/models"),
        ("POST", "/capi/chat/completions", "/service/chat/completions"),
        ("POST", "/capi/responses", "/service/responses"),
        ("POST", "/capi/v1/messages", "/service/v1/messages"),
    ],
)
def test_an_account_of_github_is_asked_for_at_githubs_and_models_at_its_service(
    method: str, asked: str, sent: str
) -> None:
    headers = {"authorization": f"Bearer gho_{DUMMY}", "copilot-integration-id": "cli", "x-initiator": "user"}
    with github() as bench:
        body: Any = {"model": "m", "metadata": {"user_id": "somebody"}} if method == "POST" else b""
        assert bench.post(asked, body, {**headers, "x-github-token": "gho_x"}, method=method)[0] == 200
    (arrived,) = bench.asked
    assert arrived.target == sent
    assert arrived.header("authorization") == [f"Bearer {KEY}"]
    assert (arrived.header("copilot-integration-id"), arrived.header("x-initiator")) == (["cli"], ["user"])
    assert arrived.header("x-github-token") == []
    assert method == "GET" or arrived.json["metadata"] == {"user_id": SESSION}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/copilot_internal/user"),
        ("GET", "/copilot_internal/v2/token"),
        ("GET", "/copilot_internal/managed_settings?client_id=github%2Fcli&x=../../user/keys"),
        ("GET", "/copilot_internal/team_customizations"),
        ("GET", "/user"),
        ("GET", "/repos/o/private/contents/x"),
        ("POST", "/graphql"),
        ("POST", "/capi/mcp/readonly"),
        ("POST", "/mcp/readonly"),
        ("GET", "/capi/agents/swe/internal/memory/v0/enabled"),
        ("POST", "/capi/models/gpt/policy"),
        ("POST", "/capi/embeddings"),
        ("GET", "/capi/copilot_internal/user"),
    ],
)
def test_nothing_else_of_an_account_of_github_is_open(method: str, path: str) -> None:
    with github() as bench:
        assert bench.post(path, {} if method == "POST" else b"", method=method)[0] == 404
        assert bench.asked == []
        assert [event.rule for event in bench.refused] == ["model-endpoint"]


def test_an_account_is_used_for_its_own_api_alone() -> None:
    for account_api, path in (("openai", "/capi/chat/completions"), ("copilot", "/v1/chat/completions")):
        with github(account_api) as bench:  # type: ignore[arg-type]
            status, _, body = bench.post(path, {"model": "m"})
            assert (status, bench.asked) == (401, [])
            assert "start it again" in json.loads(body)["error"]["message"]
            assert [event.rule for event in bench.refused] == ["model-credential"]


def test_what_a_model_at_githubs_used_is_counted_in_either_apis_words() -> None:
    with github() as bench:
        bench.reply = lambda request, wire: wire.sse({"usage": {"prompt_tokens": 5, "completion_tokens": 2}})
        bench.post("/capi/chat/completions", {"model": "gpt", "stream": True})
        started = {"type": "message_start", "message": {"usage": {"input_tokens": 7}}}
        ended = {"type": "message_delta", "usage": {"output_tokens": 3}}
        bench.reply = lambda request, wire: wire.sse(started, ended)
        bench.post("/capi/v1/messages", {"model": "claude", "stream": True})
        eventually(lambda: len(bench.spent) == 2)
        assert bench.spent == [("gpt", Usage(5, 0, 2)), ("claude", Usage(7, 0, 3))]


def test_a_stream_arrives_piece_by_piece(bench: Bench) -> None:
    """Each event reaches the guest before the next one is sent."""
    go = threading.Event()

    def reply(request: Request, wire: Wire) -> None:
        wire.sse({"type": "message_start", "message": {"usage": {"input_tokens": 5}}}, end=False)
        assert go.wait(10)
        wire.chunk(b'data: {"type":"message_delta","usage":{"output_tokens":3}}\n\n')
        wire.send(b"0\r\n\r\n")

    bench.reply = reply
    with bench.connect() as link:
        link.sendall(raw_post())
        seen = b""
        while b"message_start" not in seen:
            seen += link.recv(4096)
        assert b"message_delta" not in seen
        go.set()
        assert b"message_delta" in read_all(link)
    eventually(lambda: bench.spent == [("m-1", Usage(5, 0, 3))])


def test_connections_are_kept_and_replaced(bench: Bench) -> None:
    for _ in range(3):
        assert bench.post(MESSAGES, HELLO)[0] == 200
    assert bench.connections == 1

    def closing(request: Request, wire: Wire) -> None:
        wire.json({"type": "message"})
        wire.link.shutdown(socket.SHUT_RDWR)  # without a word, as a service does after a minute

    bench.reply = closing
    assert bench.post(MESSAGES, HELLO)[0] == 200
    assert bench.post(MESSAGES, HELLO)[0] == 200
    assert bench.connections == 2


def test_one_connection_of_the_guest_carries_many_requests(bench: Bench) -> None:
    with bench.connect() as link:
        one = raw_post().replace(b"Connection: close\r\n", b"")
        link.sendall(one + one + raw_post())
        answer = read_all(link)
    assert answer.count(b"HTTP/1.1 200") == 3
    assert len(bench.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
def test_the_providers_errors_reach_the_agent(bench: Bench, status: int) -> None:
    bench.reply = lambda request, wire: wire.json(
        {"error": "x"}, status, "retry-after: 3\r\nset-cookie: a\r\n"
    )
    got, headers, body = bench.post(MESSAGES, HELLO)
    assert (got, json.loads(body)) == (status, {"error": "x"})
    assert headers["retry-after"] == "3"
    assert "set-cookie" not in headers
    assert bench.spent == []


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (raw_post(target="http://elsewhere.example/v1/messages"), 400),
        (raw_post(target="//elsewhere.example/v1/messages"), 400),
        (raw_post(target="/v1/../v1/messages"), 400),
        (raw_post(target="/v1/%6dessages"), 400),
        (raw_post(target="/v1/messages%2f..%2ffiles"), 400),
        (raw_post(target="/v1/messages;x=1"), 400),
        (raw_post(target="/v1//messages"), 400),
        (raw_post(target="/v1/messages#a"), 400),
        (raw_post(target="/v1/messages?beta=true&x=1"), 404),
        (raw_post(target="/v1/files"), 404),
        (raw_post(target="/v1/messages/batches"), 404),
        (raw_post(target="/v1/organizations/api_keys"), 404),
        (raw_post("Upgrade: websocket"), 426),
        (raw_post("Transfer-Encoding: chunked"), 400),
        (raw_post("Transfer-Encoding: chunked", body=chunked(json.dumps(HELLO).encode())), 400),
        (raw_post("Content-Length: 5"), 400),
        (raw_post("Content-Encoding: gzip"), 415),
        (raw_post("X-A: b\r\n folded").replace(b"POST", b"PUT"), 405),
        (raw_post().replace(b"HTTP/1.1", b"HTTP/1.0"), 505),
        (raw_post().replace(b"POST", b"CONNECT"), 405),
        (raw_post().replace(b"POST", b"TRACE"), 405),
        (raw_post().replace(b"Host: x\r\n", b""), 400),
        (raw_post(body=b"[1]"), 400),
        (raw_post(body=b"{"), 400),
        (raw_post(body=b'{"temperature": NaN}'), 400),
        (raw_post(body=b'{"temperature": 1e999}'), 400),
        (raw_post(body=b"\xff\xfe"), 400),
        (raw_post(body=b"[" * 200_000), 400),
        (b"\0\1\2 hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 30_000, 431),
        (head("GET /v1/models HTTP/1.1", "Host: x", "A\0: b"), 400),
        (
            head("POST /v1/messages HTTP/1.1", "Host: x", "Transfer-Encoding: chunked")
            + b"2\r\n{}\r\n0\r\nx-trailer: 1\r\n\r\n",
            400,
        ),
    ],
)
def test_what_could_be_read_in_two_ways_is_not_sent_on(
    bench: Bench, request_bytes: bytes, status: int
) -> None:
    answer = bench.raw(request_bytes)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:300]
    assert bench.asked == []
    assert {event.rule for event in bench.refused} <= {"model-malformed", "model-endpoint"}
    assert bench.refused != []


def test_a_smuggled_request_is_judged_like_any_other(bench: Bench) -> None:
    """What follows the announced length is a request of its own, not a part of the first one upstream."""
    inner = head("POST /v1/files HTTP/1.1", "Host: x", "Content-Length: 0")
    answer = bench.raw(raw_post().replace(b"Connection: close\r\n", b"") + inner)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 404" in answer
    assert [asked.target for asked in bench.asked] == [MESSAGES]


def test_what_was_judged_is_what_is_sent(bench: Bench) -> None:
    """Of a key that is given twice, another reader might have taken the other one."""
    twice = json.dumps(HELLO).encode()[:-1] + b', "mcp_servers": [{"url": "x"}], "mcp_servers": null}'
    answer = bench.raw(raw_post(body=twice))
    assert answer.startswith(b"HTTP/1.1 200")
    assert bench.asked[0].json == {**HELLO, "mcp_servers": None, "metadata": {"user_id": SESSION}}
    half = json.dumps({**HELLO, "system": "\ud83d"}).encode()  # JavaScript cuts characters in two
    assert bench.raw(raw_post(body=half)).startswith(b"HTTP/1.1 200")
    assert bench.asked[1].json["system"] == "\ud83d"


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "model-server-tool"),
        ({"tools": [{"type": "web_fetch_20250910", "name": "f"}]}, "model-server-tool"),
        ({"tools": [{"type": "code_execution_20250825", "name": "c"}]}, "model-server-tool"),
        ({"mcp_servers": [{"type": "url", "url": "https://x.example"}]}, "model-server-tool"),
        ({"container": "c_1"}, "model-server-tool"),
        ({"invented": True}, "model-unknown"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image", "source": {"type": "url", "url": "https://x/?q"}}],
                    }
                ]
            },
            "model-reference",
        ),
    ],
)
def test_a_request_for_more_than_an_answer_is_refused(bench: Bench, more: dict[str, Any], rule: str) -> None:
    status, headers, body = bench.post(MESSAGES, {**HELLO, **more})
    assert status == 400
    assert json.loads(body)["error"]["message"].startswith("coding-agents: ")
    assert headers["x-should-retry"] == "false"
    assert bench.asked == []
    assert [event.rule for event in bench.refused] == [rule]


def test_a_server_tool_that_the_user_lists_passes() -> None:
    tool = {"type": "web_search_20250305", "name": "web_search"}
    with broker_at_work(server_tools=("web_search",)) as bench:
        assert bench.post(MESSAGES, {**HELLO, "tools": [tool]})[0] == 200
        assert bench.post(MESSAGES, {**HELLO, "tools": [{**tool, "type": "web_fetch_1"}]})[0] == 400


def test_nothing_is_sent_without_a_record(bench: Bench) -> None:
    bench.unrecordable = True
    assert bench.post(MESSAGES, HELLO)[0] == 503
    assert bench.asked == []


def test_without_an_account_the_agent_is_told_what_a_person_can_do(bench: Bench) -> None:
    bench.no_account = CredentialError("this host has no login for Claude Code", hint="Run `x login`.")
    status, _, body = bench.post(MESSAGES, HELLO)
    assert status == 401
    assert json.loads(body)["error"] == {
        "type": "authentication_error",
        "message": "coding-agents: this host has no login for Claude Code. Run `x login`.",
    }
    assert bench.asked == []


def test_a_budget_that_is_used_up_ends_requests(bench: Bench) -> None:
    bench.budget = "the session's budget of 5 tokens is used up"
    status, _, body = bench.post(MESSAGES, HELLO)
    assert (status, bench.asked) == (403, [])
    assert b"budget of 5 tokens" in body


def test_redirects_and_compressed_answers_are_not_passed_on(bench: Bench) -> None:
    bench.reply = lambda request, wire: wire.json({}, 307, "location: http://127.0.0.1:1/\r\n")
    assert bench.post(MESSAGES, HELLO)[0] == 502
    bench.reply = lambda request, wire: wire.json({}, 200, "content-encoding: gzip\r\n")
    assert bench.post(MESSAGES, HELLO)[0] == 502
    assert bench.asked[0].header("accept-encoding") == ["identity"]


# --- the credential's bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1, 10, len(KEY) - 1])
def test_an_answer_that_holds_the_key_is_ended(bench: Bench, cut: int) -> None:
    def reply(request: Request, wire: Wire) -> None:
        wire.sse({"text": "before"}, end=False)
        wire.chunk(b"data: " + KEY[:cut].encode() if cut else b"data: ")
        time.sleep(0.05)
        wire.chunk(KEY[cut:].encode() + b" after\n\n")
        wire.send(b"0\r\n\r\n")

    bench.reply = reply
    answer = bench.raw(raw_post())
    assert b"before" in answer
    assert KEY.encode() not in answer.replace(b"\r\n", b"")
    assert b"after" not in answer
    eventually(lambda: [event.rule for event in bench.refused] == ["model-key-reflected"])


def test_a_header_that_holds_the_key_is_not_passed_on(bench: Bench) -> None:
    bench.reply = lambda request, wire: wire.json({}, 200, f"request-id: {KEY}\r\n")
    status, headers, body = bench.post(MESSAGES, HELLO)
    assert status == 502
    assert KEY not in repr(headers) + repr(body)


# --- floods and breaks ------------------------------------------------------------------------------------


def test_bodies_are_bounded_each_and_together() -> None:
    limits = BrokerLimits(body_bytes=1 << 20, held_bytes=3 << 19)
    with broker_at_work(limits=limits) as bench:
        assert bench.raw(raw_post(body=b"x" * ((1 << 20) + 1))).startswith(b"HTTP/1.1 413")
        with bench.connect() as first:
            first.sendall(raw_post(body=b"x" * (1 << 20))[:-1])
            time.sleep(0.3)
            assert bench.raw(raw_post(body=b"x" * (1 << 20))).startswith(b"HTTP/1.1 503")
        eventually(lambda: bench.post(MESSAGES, HELLO)[0] == 200)


def test_requests_are_bounded_in_number() -> None:
    with broker_at_work(limits=BrokerLimits(burst=3, every_s=60, patience_s=0.1)) as bench:
        assert [bench.post(MESSAGES, HELLO)[0] for _ in range(5)] == [200, 200, 200, 429, 429]


def test_a_request_that_does_not_arrive_is_not_waited_for() -> None:
    with broker_at_work(limits=BrokerLimits(body_s=0.3, idle_s=0.3)) as bench:
        with bench.connect() as link:
            link.sendall(raw_post()[:-1])
            assert read_all(link).startswith(b"HTTP/1.1 408")
        with bench.connect() as link:
            assert read_all(link) == b""


def test_a_silent_and_a_broken_upstream_are_told() -> None:
    with broker_at_work(limits=BrokerLimits(silence_s=0.3)) as bench:
        bench.reply = lambda request, wire: None
        status, _, body = bench.post(MESSAGES, HELLO)
        assert status == 502
        assert b"has not answered" in body
        bench.reply = lambda request, wire: wire.link.shutdown(socket.SHUT_RDWR)
        assert bench.post(MESSAGES, HELLO)[0] == 502
        bench.reply = lambda request, wire: wire.sse({"a": 1}, end=False)
        answer = bench.raw(raw_post())
        assert answer.startswith(b"HTTP/1.1 200")
        assert not answer.endswith(b"0\r\n\r\n")  # no end: the agent sees that it was cut
        eventually(lambda: len(bench.spent) == 1)  # and what it may have used is counted
        assert bench.spent[0][1].total > 0


def test_an_answer_without_end_is_ended() -> None:
    with broker_at_work(limits=BrokerLimits(answer_bytes=1 << 20)) as bench:

        def reply(request: Request, wire: Wire) -> None:
            wire.sse(end=False)
            for _ in range(64):
                wire.chunk(b"x" * (1 << 16))

        bench.reply = reply
        assert len(bench.raw(raw_post())) < 2 << 20


def test_a_guest_that_leaves_takes_the_request_with_it(bench: Bench) -> None:
    left = threading.Event()

    def reply(request: Request, wire: Wire) -> None:
        wire.sse({"a": 1}, end=False)
        left.wait(10)
        for _ in range(200):
            wire.link.sendall(b"5\r\nhello\r\n")  # raises when the broker has gone
            time.sleep(0.01)

    bench.reply = reply
    with bench.connect() as link:
        link.sendall(raw_post())
        link.recv(100)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    left.set()
    eventually(lambda: len(bench.spent) == 1)
