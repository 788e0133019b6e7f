"""Package indexes through the host: a hostile guest on one side, an index that may be hostile on the other."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_agents.audit.log import open_log
from coding_agents.brokers.registry import http as broker_module
from coding_agents.brokers.registry.http import RegistryLimits
from coding_agents.errors import AuditError
from coding_agents.model.audit import decode_record
from coding_agents.model.registry import Registry, parse_registry
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.registry_access import RegistryAccess
from coding_agents.supervisor.registry_kept import read_given, write_given
from coding_agents_guest.mux import Stream
from support.fake_engine import FakeEngine
from support.guest import mux_pair
from support.logins import put
from support.mcp_web import Handler, Reply, Web, web_server
from support.supervised import make_session

TOKEN = "t0k3n-0123456789"
BASIC = base64.b64encode(f"__token__:{TOKEN}".encode()).decode()
HERE = "http://127.0.0.1:8097"


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


@pytest.fixture
def files() -> Iterator[Web]:
    with web_server() as server:
        yield server


def entries(web: Web, files: Web) -> tuple[str, str]:
    return (
        f"{web.url}/api/simple files={web.url}/api/files files={files.url}/f secret=TOKEN",
        f"{web.url}/npm secret=TOKEN",
    )


@pytest.fixture
def session(tmp_path: Path, web: Web, files: Web) -> SessionContext:
    """A session that was given a Python index and a registry of npm's, both with a token."""
    (tmp_path / "engine").mkdir()
    made = make_session(tmp_path, FakeEngine(tmp_path / "engine"))
    pip, npm = entries(web, files)
    put(
        made.env.home,
        ".config/coding-agents/config.toml",
        f'[registry]\npip = ["{pip}"]\nnpm = ["{npm}"]\n'.encode(),
    )
    put(made.env.home, ".config/coding-agents/mcp-secrets.env", f"TOKEN={TOKEN}\n".encode())
    write_given(made.directory, (parse_registry("pip", pip), parse_registry("npm", npm)))
    return made


def ask(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: 127.0.0.1:8097", *headers, "", "")).encode()


def answers(session: SessionContext, *requests: bytes) -> list[tuple[int, str, str]]:
    """Status, head and body of the answer to each request, on one connection; 0 where it breaks off first."""

    async def test() -> list[tuple[int, str, str]]:
        access = RegistryAccess(session, Journal(log))
        found = []
        try:
            async with asyncio.timeout(60), mux_pair(on_host_open=access.serve) as (guest, host):
                stream = guest.open("registry", 2**32 - 1)
                for one in requests:
                    await stream.write(one)
                    found.append(await answer_of(stream, bodiless=one.startswith(b"HEAD")))
                stream.reset("done")
                await asyncio.gather(*host._servings)
                return found
        finally:
            await access.close()

    with open_log(session.audit_path, session=session.record.id, time_ms=0) as log:
        return asyncio.run(test())


async def answer_of(stream: Stream, *, bodiless: bool) -> tuple[int, str, str]:
    data = b""
    try:
        while True:
            head, ended, body = data.partition(b"\r\n\r\n")
            if ended and (bodiless or whole(head, body)):
                return int(head.split()[1]), head.decode("latin-1"), plain(head, body)
            piece = await stream.read()
            if not piece:
                return 0, data.decode("latin-1"), ""
            data += piece
    except ConnectionResetError:
        return 0, data.decode("latin-1"), ""


def whole(head: bytes, body: bytes) -> bool:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return body.endswith(b"0\r\n\r\n") or head.split()[1] in (b"204", b"304")


def plain(head: bytes, body: bytes) -> str:
    if b"chunked" not in head.lower():
        return body.decode("latin-1")
    out = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        out, body = out + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return out.decode("latin-1")


def records(session: SessionContext) -> list[tuple[str, str, str, str]]:
    content = session.audit_path.read_bytes()
    assert TOKEN.encode() not in content
    assert BASIC.encode() not in content
    found = map(decode_record, content.splitlines())
    return [(one.type.value, one.outcome, one.rule, one.subject) for one in found]


def says(body: str, kind: str, status: int = 200, **headers: str) -> Reply:
    return lambda handler: handler.say(body.encode(), status, content_type=kind, **headers)


def test_a_request_is_made_anew_with_the_credential_and_the_answer_leads_back(
    session: SessionContext, web: Web, files: Web
) -> None:
    digest = "sha256=" + 64 * "a"
    page = (
        f'<a href="{web.url}/api/files/x-1.whl#{digest}">1</a> <a href="/api/files/x-2.whl">2</a>'
        f' <a href="../../files/x-3.whl">3</a> <a href="{files.url}/f/x-4.whl#{digest}">4</a>'
        f' <a href="{web.url}/other/x-5.whl">5</a> <a href="https://elsewhere.example/x-6.whl">6</a>'
    )
    web.reply = says(page, "text/html; charset=utf-8", etag='"1"', set_cookie="a=b", x_odd="x")
    mine = ("Accept: text/html", "Authorization: Basic bWluZQ==", "Cookie: a=b", "X-Forwarded-For: 1.2.3.4",
            "User-Agent: pip/1 {secrets}", "Range: bytes=0-1", "If-None-Match: \"0\"")  # fmt: skip
    ((status, head, body),) = answers(session, ask("/pip1/api/simple/x/", *mine))
    assert status == 200
    assert ('etag: "1"' in head.lower(), "cookie" in head.lower(), "x-odd" in head.lower()) == (
        True,
        False,
        False,
    )
    assert body == (
        f'<a href="{HERE}/pip1-files1/api/files/x-1.whl#{digest}">1</a>'
        f' <a href="{HERE}/pip1-files1/api/files/x-2.whl">2</a>'
        f' <a href="../../files/x-3.whl">3</a> <a href="{HERE}/pip1-files2/f/x-4.whl#{digest}">4</a>'
        f' <a href="{web.url}/other/x-5.whl">5</a> <a href="https://elsewhere.example/x-6.whl">6</a>'
    )
    ((method, path, asked, sent),) = web.asked
    assert (method, path, sent) == ("GET", "/api/simple/x/", b"")
    assert asked == {
        "host": f"127.0.0.1:{web.server_port}", "content-length": "0", "user-agent": "coding-agents",
        "accept": "text/html", "if-none-match": '"0"', "authorization": f"Basic {BASIC}",
        "accept-encoding": "identity",
    }  # fmt: skip
    assert records(session) == [("registry-request", "allowed", "registry-read", "pip1/api/simple/x/")]


def test_npms_metadata_leads_back_and_its_token_is_a_bearer(session: SessionContext, web: Web) -> None:
    tarball = f"{web.url}/npm/@corp/x/-/x-1.0.0.tgz"
    packument = json.dumps({"versions": {"1.0.0": {"dist": {"tarball": tarball, "integrity": "sha512-x"}}}})
    for written in (packument, packument.replace("/", "\\/")):
        web.reply = says(written, "application/vnd.npm.install-v1+json")
        ((status, _, body),) = answers(session, ask("/npm1/npm/@corp%2fx"))
        assert status == 200
        dist = json.loads(body)["versions"]["1.0.0"]["dist"]
        assert dist == {"tarball": f"{HERE}/npm1/npm/@corp/x/-/x-1.0.0.tgz", "integrity": "sha512-x"}
    assert [(path, headers["authorization"]) for _, path, headers, _ in web.asked] == [
        ("/npm/@corp%2fx", f"Bearer {TOKEN}")
    ] * 2


def test_files_go_through_as_they_are(session: SessionContext, web: Web, files: Web) -> None:
    content = f"\0{web.url}/api/files/ is no address here"
    web.reply = files.reply = says(content, "application/octet-stream")
    first, second, head = answers(
        session, ask("/pip1-files1/api/files/x-1%2Bcu1.whl?x=1"), ask("/pip1-files2/f/x.whl"),
        ask("/pip1-files1/api/files/x-1.whl", method="HEAD"),
    )  # fmt: skip
    assert (first[0], first[2], second[0], second[2], head[0]) == (200, content, 200, content, 200)
    assert [(method, path) for method, path, _, _ in web.asked] == [
        ("GET", "/api/files/x-1%2Bcu1.whl?x=1"), ("HEAD", "/api/files/x-1.whl"),
    ]  # fmt: skip
    assert [(path, headers["authorization"]) for _, path, headers, _ in files.asked] == [
        ("/f/x.whl", f"Basic {BASIC}")
    ]


HOSTILE = (
    # other places
    ask("/"), ask("/pip2/api/simple/"), ask("/api/simple/x/"), ask("/pip1"), ask("/pip1/"), ask("/pip1/npm/x"),
    ask("/npm1/api/simple/x/"), ask("/pip1/api/simple-x/"), ask("/pip1-files1/f/x.whl"), ask("//pip1/api/simple/"),
    ask("http://evil.example/pip1/api/simple/"), ask("/pip1//evil.example/api/simple/"),
    ask("/pip1/@evil.example/api/simple/"),
    # climbing
    ask("/pip1/api/simple/../admin"), ask("/pip1/api/simple/.."), ask("/pip1/api/simple/%2e%2e/admin"),
    ask("/pip1/api/simple/..%2fadmin"), ask("/pip1/api/simple/%2E./admin"), ask("/pip1/api/simple/..;/admin"),
    ask("/pip1/api/simple/.%252e/admin"), ask("/pip1/api/simple/..\\admin"), ask("/pip1/api/simple/x%2fy"),
    ask("/pip1/api/simple/@x%2f..%2fadmin"), ask("/pip1/api/simple/@x%2f.."), ask("/pip1/api/simple/@..%2fx"),
    ask("/npm1/npm/@x%2f%2e%2e"), ask("/npm1/@..%2fapi/x"), ask("/pip1/api/simple/%00"), ask("/pip1/api/simple/x#y"),
    ask("/pip1/api/simple/x/?a=<b>"), ask("/pip1/api/simple/" + "x" * 5000),
    # methods
    ask("/pip1/api/simple/x/", method="POST"), ask("/pip1/api/simple/x/", method="PUT"),
    ask("/npm1/npm/x", method="DELETE"), ask("/npm1/npm/x", method="OPTIONS"),
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    # smuggling
    ask("/pip1/api/simple/x/", "Content-Length: 3") + b"abc",
    ask("/pip1/api/simple/x/", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n",
    ask("/pip1/api/simple/x/", "Content-Length: 0", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    ask("/pip1/api/simple/x/", "Content-Length: 0", "Content-Length: 5"), ask("/pip1/api/simple/x/", "Upgrade: h2c"),
    b"GET /pip1/api/simple/x/ HTTP/1.0\r\n\r\n", b"GET /pip1/api/simple/x/\r\n\r\n", b"\x16\x03\x01 nonsense\r\n\r\n",
    b"GET /pip1/api/simple/x/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ask("/pip1/api/simple/x/", "X: " + "y" * 100_000),
)  # fmt: skip


def test_a_guest_reads_what_it_was_given_and_nothing_else(session: SessionContext, web: Web) -> None:
    for count, one in enumerate(HOSTILE, 1):
        ((status, head, body),) = answers(session, one)
        assert 400 <= status < 600, one[:200]
        assert (web.asked, TOKEN in head + body, BASIC in head + body) == ([], False, False), one[:200]
        assert {record[:2] for record in records(session)} == {("registry-refused", "denied")}, one[:200]
        assert len(records(session)) == count, one[:200]


def back(form: str) -> dict[str, Reply]:
    return {
        "page": says(f"x{form}x", "text/html"),
        "file": says(f"x{form}x", "application/octet-stream"),
        "header": says("x", "text/html", etag=form),
        "redirect": says("", "text/html", 302, location=f"/api/simple/{form}"),
        "error": says(form, "text/html", 500),
    }


def test_an_answer_with_the_credential_is_ended(session: SessionContext, web: Web) -> None:
    alone = base64.b64encode(TOKEN.encode()).decode().rstrip("=")
    for form, where in itertools.product((TOKEN, BASIC, alone), back("")):
        web.reply = back(form)[where]
        ((status, head, body),) = answers(session, ask("/pip1/api/simple/x/"))
        assert (status in (0, 502), form[:9] in head + body) == (True, False), (form, where)
        assert records(session)[-1][:3] == ("registry-request", "denied", "registry-reflected"), (form, where)


REDIRECTS = (
    ("/api/simple/x/", f"{HERE}/pip1/api/simple/x/"),
    ("../simple/y/", f"{HERE}/pip1/api/simple/y/"),
    ("/api/files/x.whl?sign=1#sha256=a", f"{HERE}/pip1-files1/api/files/x.whl?sign=1#sha256=a"),
    ("FILES/f/x.whl", f"{HERE}/pip1-files2/f/x.whl"),
    ("/npm/x", f"{HERE}/npm1/npm/x"),
    ("/admin", ""),
    ("/api/simple/../../admin", ""),
    ("/api/simple/%2e%2e/%2e%2e/admin", ""),
    ("https://evil.example/api/simple/x/", ""),
    ("//evil.example/api/simple/x/", ""),
    ("http://127.0.0.1:1/api/simple/x/", ""),
    ("file:///api/simple/x/", ""),
    ("http://[/", ""),
    ("", ""),
)


def test_a_redirect_leads_to_a_place_of_the_index_or_nowhere(
    session: SessionContext, web: Web, files: Web
) -> None:
    for count, (location, leads) in enumerate(REDIRECTS, 1):
        web.reply = says("", "text/html", 302, location=location.replace("FILES", files.url))
        ((status, head, _),) = answers(session, ask("/pip1/api/simple/x"))
        assert len(web.asked) == count
        if leads:
            assert (status, f"location: {leads}\r\n" in f"{head}\r\n") == (302, True), location
        else:
            assert (status, "redirects (302)" in head, "location" in head.lower()) == (502, True, False), (
                location
            )


def test_what_an_index_refuses_compresses_or_never_ends_is_told(
    session: SessionContext, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.reply = says("", "text/html", 401, www_authenticate="Basic")
    ((status, head, body),) = answers(session, ask("/pip1/api/simple/x/"))
    assert (status, "refuses the host's credential" in head, "www-" in head.lower()) == (502, True, False)
    assert "refuses the host's credential" in json.loads(body)["error"]
    web.reply = says("x", "text/html", content_encoding="gzip")
    assert "compresses" in answers(session, ask("/pip1/api/simple/x/"))[0][1]
    web.reply = says("no such package", "text/html", 404)
    assert answers(session, ask("/pip1/api/simple/x/"))[0][::2] == (404, "no such package")

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/html")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"10000\r\n" + 65536 * b"x" + b"\r\n")
        except OSError:
            handler.close_connection = True

    limits = RegistryLimits(page_bytes=1 << 20)
    monkeypatch.setattr(broker_module.RegistryService, "limits", property(lambda self: limits))
    web.reply = endless
    ((status, _, _),) = answers(session, ask("/pip1/api/simple/x/"))
    assert status == 0
    assert records(session)[-1][:2] == ("registry-request", "failed")


def test_a_session_reads_no_more_than_its_budget(
    session: SessionContext, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.reply = says(1000 * "x", "application/octet-stream")
    for count, limits in enumerate(
        (RegistryLimits(session_bytes=1000), RegistryLimits(session_requests=1)), 1
    ):
        monkeypatch.setattr(
            broker_module.RegistryService, "limits", property(lambda self, limits=limits: limits)
        )
        first, second = answers(session, ask("/pip1/api/simple/a"), ask("/pip1/api/simple/b"))
        assert (first[0], second[0], "as much of package indexes as it may" in second[1]) == (200, 403, True)
        assert len(web.asked) == count


def test_settings_and_credentials_of_now_count(session: SessionContext, web: Web, files: Web) -> None:
    config = session.env.config_dir / "config.toml"
    put(session.env.home, ".config/coding-agents/mcp-secrets.env", b"OTHER=x\n")
    ((status, head, _),) = answers(session, ask("/pip1/api/simple/x/"))
    assert (status, "there is no secret 'TOKEN'" in head) == (403, True)
    config.write_text("")
    ((status, head, _),) = answers(session, ask("/pip1/api/simple/x/"))
    assert (status, "the settings name this index no more" in head) == (403, True)
    assert web.asked == []
    assert [kind for kind, _, _, _ in records(session)] == ["registry-refused"] * 2
    (session.directory / "registry.json").write_bytes(b"{")
    assert read_given(session.directory) == ()
    ((status, _, _),) = answers(session, ask("/pip1/api/simple/x/"))
    assert (status, web.asked) == (403, [])


def test_without_a_record_nothing_is_sent(
    session: SessionContext, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise AuditError("the disk is full")

    monkeypatch.setattr(Journal, "broker", full)
    ((status, _, _),) = answers(session, ask("/pip1/api/simple/x/"))
    assert (status, web.asked) == (403, [])


def test_what_was_given_is_kept(tmp_path: Path) -> None:
    given = (
        Registry(
            kind="pip", index="https://a.example/simple", files=("https://f.example",), secret="X", user="me"
        ),
    )
    write_given(tmp_path, given)
    assert read_given(tmp_path) == given
    write_given(tmp_path, ())
    assert read_given(tmp_path) == ()
