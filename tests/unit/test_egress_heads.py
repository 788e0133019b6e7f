"""Heads of requests: strict where two programs could read differently, quick, and answered in words that are safe."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents_guest.egress.heads import (
    MAX_HEAD,
    HeadError,
    end_of_head,
    parse_connect,
    parse_plain,
    refusal,
)
from coding_agents_guest.egress.rules import REASONS, Request


def head(line: str, *fields: str) -> bytes:
    return "\r\n".join((line, *fields, "", "")).encode("latin-1")


def connect(place: str, *fields: str) -> bytes:
    return head(f"CONNECT {place} HTTP/1.1", *fields)


@pytest.mark.parametrize(
    ("data", "host", "port"),
    [
        (connect("a.example:443"), "a.example", 443),
        (connect("a.example:443", "Host: a.example:443", "User-Agent: x"), "a.example", 443),
        (connect("A.example:8443", "host:a.EXAMPLE:8443"), "A.example", 8443),
        (connect("a.example:443", "Host: a.example"), "a.example", 443),
        (connect("[::1]:443"), "[::1]", 443),
        (head("CONNECT a.example:443 HTTP/1.0"), "a.example", 443),
    ],
)
def test_a_tunnels_target(data: bytes, host: str, port: int) -> None:
    assert parse_connect(data).request == Request("https", host, port)


@pytest.mark.parametrize(
    "data",
    [
        connect("a.example"), connect("a.example:"), connect(":443"), connect("a.example:0"),
        connect("a.example:65536"),
        connect("a.example:0443"), connect("a.example:+443"), connect("a.example :443"), connect("a.example:443 "),
        connect("a.example:443", "Host: b.example:443"), connect("a.example:443", "Host: a.example",
        "Host: a.example"),
        connect("a.example:443", "Host: a.example:80"), connect("a.example:443", "Content-Length: 0"),
        connect("a.example:443", "Transfer-Encoding: chunked"), connect("a.example:443", "X: a", " b"),
        connect("a.example:443", "X : a"), connect("a.example:443", ": a"), connect("a.example:443", "X"),
        connect("a.example:443", "X: a\0b"), connect("a.example:443", "X: a\nHost: b"), connect("a.example:443",
        "X: a\rb"),
        connect("a.example\0:443"), connect("a\x7f.example:443"), connect("\xe4.example:443"),
        connect("a\t.example:443"),
        head("CONNECT  a.example:443 HTTP/1.1"), head("connect a.example:443 HTTP/1.1"),
        head("CONNECT a.example:443 HTTP/2"),
        head("CONNECT a.example:443"), head("GET a.example:443 HTTP/1.1"), head("CONNECT a.example:443 HTTP/1.1 "),
        head("CONNECT\ta.example:443 HTTP/1.1"), b"\r\n" + connect("a.example:443"), head(""), b"\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\nHost: a.example\r\n\r\n",
    ],
)  # fmt: skip
def test_what_could_be_another_tunnel_is_refused(data: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        parse_connect(data)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("target", "request_", "path"),
    [
        ("http://a.example/x/y", Request("http", "a.example", 80, "GET", "/x/y"), "/x/y"),
        ("http://a.example", Request("http", "a.example", 80, "GET", "/"), "/"),
        ("http://a.example:8080/x?q=1", Request("http", "a.example", 8080, "GET", "/x"), "/x?q=1"),
        ("HTTP://A.example/?", Request("http", "A.example", 80, "GET", "/"), "/?"),
        ("http://a.example?q", Request("http", "a.example", 80, "GET", "/"), "/?q"),
    ],
)
def test_a_plain_request_is_written_anew_of_what_was_understood(
    target: str, request_: Request, path: str
) -> None:
    fields = (
        "Host: other.example",
        "Via: 1.1 x",
        "X-Forwarded-For: 10.0.0.1",
        "Connection: keep-alive, X",
        "Accept: a/b ",
    )
    found = parse_plain(
        head(f"GET {target} HTTP/1.1", *fields, "Proxy-Authorization: Basic x", "Upgrade: h2c")
    )
    assert found.request == request_
    place = target.partition("://")[2].partition("/")[0].partition("?")[0]
    assert found.onward().split(b"\r\n") == [
        f"GET {path} HTTP/1.1".encode(), f"Host: {place}".encode(), b"Connection: close", b"accept: a/b", b"", b"",
    ]  # fmt: skip
    assert found.onward_by("Basic y").split(b"\r\n")[:4] == [
        f"GET http://{place}{path} HTTP/1.1".encode(), f"Host: {place}".encode(), b"Connection: close",
        b"Proxy-Authorization: Basic y",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        head("GET /x HTTP/1.1", "Host: a.example"), head("GET * HTTP/1.1"), head("GET https://a.example/ HTTP/1.1"),
        head("GET ftp://a.example/ HTTP/1.1"), head("GET http:///x HTTP/1.1"),
        head("GET http://u@a.example/ HTTP/1.1"),
        head("GET http://a.example/#x HTTP/1.1"), head("GET http://a.example:/ HTTP/1.1"),
        head("GET http://a.example:0/ HTTP/1.1"),
        head("GET http://a.example/ x HTTP/1.1"), head("GET http://a.example/\xe9 HTTP/1.1"),
        head("get http://a.example/ HTTP/1.1"),
        head("CONNECT http://a.example/ HTTP/1.1"), head("GET //a.example/ HTTP/1.1"),
        head("POST http://a.example/ HTTP/1.1", "Content-Length: 1", "Content-Length: 1"),
        head("POST http://a.example/ HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked"),
        head("POST http://a.example/ HTTP/1.1", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        head("POST http://a.example/ HTTP/1.1", "Transfer-Encoding: gzip, chunked"),
        head("POST http://a.example/ HTTP/1.1", "Transfer-Encoding: xchunked"),
        head("POST http://a.example/ HTTP/1.1", "Transfer-Encoding : chunked"),
        head("GET http://a.example/ HTTP/1.1", "X: a", "\tb"), head("GET http://a.example/ HTTP/1.1", "X: a\nY: b"),
    ],
)  # fmt: skip
def test_what_could_be_another_request_is_refused(data: bytes) -> None:
    with pytest.raises(HeadError):
        parse_plain(data)


_TOKENS = st.text(alphabet='aZ-9:./ \t\r\n\0@#?%\\"\xe9', max_size=30)


@given(
    st.sampled_from(["GET", "POST", "CONNECT"]),
    st.sampled_from(["http://a.example", "a.example:443"]) | _TOKENS,
    _TOKENS,
    st.lists(st.tuples(st.sampled_from(["Host", "Content-Length", "X", "Te", "Transfer-Encoding"]) | _TOKENS,
    _TOKENS), max_size=4),
)  # fmt: skip
def test_whatever_is_taken_means_one_request(
    method: str, place: str, path: str, fields: list[tuple[str, str]]
) -> None:
    data = head(f"{method} {place}{path} HTTP/1.1", *(f"{name}:{value}" for name, value in fields))
    for parse in (parse_connect, parse_plain):
        try:
            found = parse(data)
        except HeadError:
            continue
        if parse is parse_connect:
            assert found.request.method == "CONNECT"
            continue
        onward = found.onward()
        assert end_of_head(onward) == len(onward), "no second request in it"
        lines = onward.split(b"\r\n")
        assert all(b"\n" not in line and b"\r" not in line and b"\0" not in line for line in lines)
        assert [line.lower().startswith(b"host:") for line in lines].count(True) == 1
        again = parse_plain(found.onward_by(""))
        assert (again.request, again.place, again.path) == (found.request, found.place, found.path)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_are_a_head_or_refused(data: bytes, more: bytes) -> None:
    end = end_of_head(data)
    assert end == (data.index(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else 0)
    for parse in (parse_connect, parse_plain):
        try:
            parse(data[:end] if end else more + b"\r\n\r\n")
        except HeadError:
            continue


def test_a_head_is_bounded() -> None:
    assert end_of_head(b"x" * (MAX_HEAD - 1)) == 0
    with pytest.raises(HeadError):
        end_of_head(b"x" * MAX_HEAD)
    with pytest.raises(HeadError):
        end_of_head(b"x" * (MAX_HEAD - 2) + b"\r\n\r\n")


@pytest.mark.parametrize("filler", [" ", "\t", " \t", "a", ":", "a ", "\xff"])
def test_no_head_takes_long(filler: str) -> None:
    """It is read by the one process that serves the session: 32 KiB of spaces once took it for hours."""
    long = filler * (30_000 // len(filler))
    began = time.process_time()
    for data in (
        connect("a.example:443", f"X:{long}\x01"), connect("a.example:443", f"{long}:\x01"),
        connect(f"a.example{long}\x01:443"),
        connect("a.example:443", *["X: y"] * 5000, "\x01"),
    ):  # fmt: skip
        with pytest.raises(HeadError):
            parse_connect(data)
    with pytest.raises(HeadError):
        parse_plain(head(f"GET http://a.example/{long}# HTTP/1.1", f"X:{long}\x01"))
    assert time.process_time() - began < 1


@given(st.sampled_from(sorted(REASONS)), st.text(max_size=300), st.text(max_size=50))
def test_a_refusal_is_one_answer_whose_content_is_data(reason: str, host: str, rule: str) -> None:
    answer = refusal(reason, Request("https", host, 443), rule=rule, status=403)
    top, _, body = answer.partition(b"\r\n\r\n")
    lines = top.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 403 Forbidden"
    assert len(lines) == 6
    assert f"Content-Length: {len(body)}".encode() in lines
    told = json.loads(body)
    assert (told["reason"], told["rule"], told["explained"]) == (reason, rule, REASONS[reason])
    assert body.isascii()
    assert told["hint"].isprintable()
    assert told["host"] == host[:253]
