"""MCP servers at an address that wants a secret: a hostile guest on one side, a server of the test on the other."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from coding_agents.audit.log import open_log
from coding_agents.mcp.apart import ApartServer, write_given
from coding_agents.mcp.pin import Pinned
from coding_agents.mcp.trust import TrustStore
from coding_agents.model.audit import decode_record
from coding_agents.model.mcp import McpServer
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.mcp_web import McpWeb
from coding_agents_guest.mux import Stream
from support.fake_engine import FakeEngine
from support.guest import mux_pair
from support.logins import put
from support.mcp_web import Handler, Reply, Web, web_server
from support.product import wait_for
from support.supervised import make_session

SECRET = "s3cr3t-0123456789"
BODY = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


@pytest.fixture
def session(tmp_path: Path, web: Web) -> SessionContext:
    """A session that was given the address `docs` with its secret TOKEN, at one path of the server."""
    (tmp_path / "engine").mkdir()
    made = make_session(tmp_path, FakeEngine(tmp_path / "engine"))
    server = McpServer(
        name="docs", url=f"{web.url}/one/mcp/?team=${{TEAM}}", headers={"X-Key": "key ${TOKEN}"},
        bearer_token_env_var="TOKEN",
    )  # fmt: skip
    trusted = TrustStore(made.env.data_dir, made.record.repo.repo_id).save(
        "r", "f", server, Pinned(), now_ms=1
    )
    given = ApartServer(digest=trusted.digest, server=server, needs=("TEAM", "TOKEN"))
    write_given(made.directory, {"docs": given})
    put(made.env.home, ".config/coding-agents/mcp-secrets.env", f"TOKEN={SECRET}\nTEAM=reds\n".encode())
    return made


def request(path: str = "/docs", *headers: str, method: str = "POST", body: bytes = BODY) -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


def talk(session: SessionContext, told: Callable[[Stream], Any]) -> Any:
    """`told` as the guest, on one connection."""

    async def test() -> Any:
        access = McpWeb(session, Journal(log))
        try:
            async with asyncio.timeout(60), mux_pair(on_host_open=access.serve) as (guest, host):
                stream = guest.open("mcp-web", 2**32 - 1)
                answer = await told(stream)
                stream.reset("done")
                await asyncio.gather(*host._servings)
                return answer
        finally:
            await access.close()

    with open_log(session.audit_path, session=session.record.id, time_ms=0) as log:
        return asyncio.run(test())


def answered(session: SessionContext, *requests: bytes) -> list[tuple[int, str]]:
    """Status and the rest of the answer to each request; 0 where the connection breaks off first."""

    async def told(stream: Stream) -> list[tuple[int, str]]:
        answers = []
        for one in requests:
            await stream.write(one)
            answers.append(await answer_of(stream))
        return answers

    return list(talk(session, told))


async def answer_of(stream: Stream) -> tuple[int, str]:
    data = b""
    try:
        while not (ends := data.find(b"\r\n\r\n") + 4) > 4 or not whole(data[:ends], data[ends:]):
            piece = await stream.read()
            if not piece:
                break
            data += piece
    except ConnectionResetError:
        return 0, data.decode("latin-1")
    return int(data.split()[1]), data.decode("latin-1")


def whole(head: bytes, body: bytes) -> bool:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return body.endswith(b"0\r\n\r\n")


def records(session: SessionContext) -> list[tuple[str, str, str]]:
    assert SECRET.encode() not in session.audit_path.read_bytes()
    found = map(decode_record, session.audit_path.read_bytes().splitlines())
    return [(one.type.value, one.outcome, one.rule) for one in found]


def test_a_request_is_sent_anew_with_the_secret(session: SessionContext, web: Web) -> None:
    mine = ("Accept: application/json", "MCP-Session-Id: 7", "Authorization: Bearer mine", "X-Key: mine", "Cookie: a=b",
            "X-Forwarded-For: 1.2.3.4", "Origin: http://evil.example", "Accept-Encoding: gzip")  # fmt: skip
    ((status, text),) = answered(session, request("/docs", *mine))
    assert (status, '{"ok": 1}' in text, "mcp-session-id: 7" in text) == (200, True, True)
    ((method, path, asked, body),) = web.asked
    assert (method, path, body) == ("POST", "/one/mcp/?team=reds", BODY)
    assert asked == {
        "host": f"127.0.0.1:{web.server_port}", "content-length": str(len(BODY)), "user-agent": "coding-agents",
        "accept": "application/json", "mcp-session-id": "7", "authorization": f"Bearer {SECRET}",
        "x-key": f"key {SECRET}", "accept-encoding": "identity",
    }  # fmt: skip
    assert records(session) == [("mcp-request", "allowed", "mcp-server")]


@pytest.mark.parametrize(
    "one",
    [
        request("/"), request("/other"), request("/docs/more"), request("/docs?x=1"), request("//docs"),
        request("/docs/../x"), request("/%64ocs"), request("http://evil.example/docs"),
        request("/docs", method="DELETE"), request("/docs", method="PUT"),
        request("/docs", "Upgrade: websocket"), request("/docs", "Transfer-Encoding: chunked"),
        request("/.well-known/oauth-protected-resource", method="GET", body=b""), b"\x16\x03\x01 nonsense\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)  # fmt: skip
def test_a_guest_chooses_nothing_of_where_it_goes(session: SessionContext, web: Web, one: bytes) -> None:
    ((status, text),) = answered(session, one)
    assert 400 <= status < 600
    assert (web.asked, SECRET in text) == ([], False)
    assert "allowed" not in {outcome for _, outcome, _ in records(session)}


def test_a_session_of_the_protocol_can_be_ended(session: SessionContext, web: Web) -> None:
    one = request("/docs", "MCP-Session-Id: 7", method="DELETE", body=b"")
    assert answered(session, one)[0][0] == 200
    ((method, path, asked, _),) = web.asked
    assert (method, path, asked["mcp-session-id"]) == ("DELETE", "/one/mcp/?team=reds", "7")
    assert asked["authorization"] == f"Bearer {SECRET}"


def back(secret: str) -> dict[str, Reply]:
    return {
        "body": lambda handler: handler.say(f"x{secret}x".encode()),
        "header": lambda handler: handler.say(b"x", mcp_session_id=secret),
        "error": lambda handler: handler.say(secret.encode(), 500),
        "pieces": lambda handler: in_pieces(handler, secret[:9], secret[9:]),
    }


def in_pieces(handler: Handler, *pieces: str) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    for piece in pieces:
        handler.wfile.write(f"{len(piece):x}\r\n{piece}\r\n".encode())
        handler.wfile.flush()
        time.sleep(0.1)
    handler.wfile.write(b"0\r\n\r\n")


@pytest.mark.parametrize("where", ["body", "header", "error", "pieces"])
def test_an_answer_with_the_secret_is_ended(session: SessionContext, web: Web, where: str) -> None:
    web.reply = back(SECRET)[where]
    ((status, text),) = answered(session, request())
    assert SECRET[:9] not in text
    assert status in (0, 502)
    assert records(session)[-1] == ("mcp-request", "denied", "mcp-reflected")


def test_a_redirect_is_not_followed_and_what_is_compressed_is_not_passed_on(
    session: SessionContext, web: Web
) -> None:
    web.reply = lambda handler: handler.say(b"", 307, location=f"{web.url}/two")
    assert "redirects (307), which is not followed" in answered(session, request())[0][1]
    web.reply = lambda handler: handler.say(b"x", content_encoding="gzip")
    assert "compresses its answer" in answered(session, request())[0][1]
    assert [path for _, path, _, _ in web.asked] == ["/one/mcp/?team=reds"] * 2


def test_events_arrive_as_they_come_and_a_guest_that_goes_ends_them(
    session: SessionContext, web: Web
) -> None:
    go, gone = threading.Event(), threading.Event()

    def reply(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"9\r\ndata: 1\n\n\r\n")
        assert go.wait(10)
        handler.wfile.write(b"9\r\ndata: 2\n\n\r\n")
        handler.connection.settimeout(10)
        if not handler.connection.recv(1):
            gone.set()
        handler.close_connection = True

    async def told(stream: Stream) -> None:
        await stream.write(request("/docs", "Accept: text/event-stream", method="GET", body=b""))
        seen = b""
        while b"data: 1" not in seen:
            seen += await stream.read()
        assert b"data: 2" not in seen
        go.set()
        while b"data: 2" not in seen:
            seen += await stream.read()

    web.reply = reply
    talk(session, told)
    assert wait_for(gone.is_set, "the server to hear of it", timeout_s=10)


def test_what_is_too_long_is_not_taken(session: SessionContext, web: Web) -> None:
    async def told(stream: Stream) -> None:
        with suppress(ConnectionResetError):  # it may not listen to the end
            await stream.write(
                b"POST /docs HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b"x" * (17 << 20)
            )

    talk(session, told)
    assert web.asked == []


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("wörd", "a header of it is none"),
        (None, "there is no secret 'TOKEN'"),
        ("untrusted", "start the session again"),
    ],
)
def test_without_what_was_trusted_nothing_is_sent(
    session: SessionContext, web: Web, secret: str | None, reason: str
) -> None:
    line = f"TOKEN={secret}\n" if secret else ""
    put(session.env.home, ".config/coding-agents/mcp-secrets.env", f"{line}TEAM=reds\n".encode())
    if secret == "untrusted":
        TrustStore(session.env.data_dir, session.record.repo.repo_id).remove("docs")
    ((status, text),) = answered(session, request())
    assert status == 403
    assert reason in json.loads(text.partition("\r\n\r\n")[2])["error"]["message"]
    assert web.asked == []


def test_each_kind_of_server_has_its_own_way(session: SessionContext, web: Web) -> None:
    """An address is no program: nothing is started for it; and a program is no address."""
    server = McpServer(name="docs", command="python3", env={"TOKEN": "${TOKEN}"})
    trusted = TrustStore(session.env.data_dir, session.record.repo.repo_id).save(
        "r", "f", server, Pinned(), now_ms=1
    )
    write_given(
        session.directory, {"docs": ApartServer(digest=trusted.digest, server=server, needs=("TOKEN",))}
    )
    assert answered(session, request())[0][0] == 403
    assert records(session) == [("mcp-server-refused", "denied", "mcp-other-server")]
