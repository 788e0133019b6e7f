"""What a session may reach: hosts in one spelling, rules in one meaning, and the decision on every request."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents_guest.egress.explain import explain, request_of
from coding_agents_guest.egress.hosts import HostError, parse_host, parse_port
from coding_agents_guest.egress.rules import MAX_RULE, REASONS, Request, Rule, RuleError, Rules, parse_rule

# --- hosts -----------------------------------------------------------------------------------------------------

_LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
_HOSTS = st.lists(_LABELS, min_size=2, max_size=4).map(".".join)


@given(_HOSTS, st.randoms(use_true_random=False))
def test_a_name_has_one_spelling_however_its_case(host: str, random: object) -> None:
    mixed = "".join(random.choice((char, char.upper())) for char in host)  # type: ignore[attr-defined]
    assert parse_host(mixed) == parse_host(host) == host


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "0", "0x", "1.2.3.0X10",
        "10.0.0.0x1",
        "[::1]", "[::ffff:10.0.0.1]", "::1", "fe80::1%eth0", "[", "host:80", "1.2.3.4.5", "a.example.1", "a.0x7f",
        "a.09",
    ],
)  # fmt: skip
def test_what_some_program_reads_as_an_address_is_no_name(text: str) -> None:
    with pytest.raises(HostError) as caught:
        parse_host(text)
    assert caught.value.reason == "ip-literal"


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "a", "localhost", "a.example.", ".a.example", "a..example", "a.example\n", "a.example\0",
        "a\0.example",
        "a.example b", " a.example", "a.example\t", 'a."b".example', "a'.example", "a_b.example", "user@a.example",
        "a.example/", "a.example#x", "a.example?x", "a%2eexample", "a.exa\u006d\u0301ple", "аpple.example",
        "a\u3002example",
        "a.example\u200b", "ａ.example", "İ.example", "\u212a.example", "-a.example", "a-.example", "*.a.example",
        "**.example",
        f"{'a' * 64}.example", f"{'a.' * 127}example", "a.example\r\nb.example", "1.2.3.4.", "a.example\\@b",
        "a;b.example",
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_no_name(text: str) -> None:
    with pytest.raises(HostError) as caught:
        parse_host(text)
    assert caught.value.reason == "bad-host"
    assert caught.value.args[0].isprintable()


@given(st.text(max_size=40) | st.text(string.printable, max_size=40))
def test_any_text_is_a_plain_name_or_refused(text: str) -> None:
    try:
        name = parse_host(text)
    except HostError:
        return
    assert set(name) <= set(string.ascii_lowercase + string.digits + "-.")
    assert name == text.lower()
    assert not name.rpartition(".")[2].isdigit()


@pytest.mark.parametrize(
    "text",
    ["", "0", "65536", "-1", "+80", "080", " 80", "80 ", "8_0", "٨٠", "²", "1e2", "99999999999", "80\n"],
)
def test_a_port_is_written_plainly(text: str) -> None:
    with pytest.raises(ValueError, match="not a port"):
        parse_port(text)


# --- rules -----------------------------------------------------------------------------------------------------

_METHODS = st.lists(st.sampled_from(["GET", "HEAD", "POST", "PUT"]), min_size=1, max_size=3, unique=True)
_PATHS = st.lists(st.from_regex(r"[a-z0-9][a-z0-9._~-]{0,6}", fullmatch=True), max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)


@st.composite
def _texts(draw: st.DrawFn) -> str:
    """A rule in any of its forms."""
    host = draw(st.sampled_from(["", "*."])) + draw(_HOSTS) + draw(st.sampled_from(["", ":8443"]))
    scheme = draw(st.sampled_from(["", "http://", "https://", "HTTP://"]))
    if scheme.lower() != "http://":
        return scheme + host
    path = draw(st.just("") | _PATHS)
    methods = draw(st.just("") | _METHODS.map(lambda some: ",".join(some) + " "))
    return methods + scheme + host + path


@given(_texts())
def test_a_rule_has_one_spelling_that_means_the_same(text: str) -> None:
    rule = parse_rule(text, "user")
    again = parse_rule(rule.text, "user")
    assert (again.text, again) == (rule.text, rule)
    assert parse_rule(text.replace("HTTP", "http"), "user") == rule


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "a", "*", "*.", "*.a", "**.a.example", "a.*.example", "*a.example", "a.example:", "a.example:0",
        "a.example:65536", "a.example:8o", "a.example:80:80", "10.0.0.1", "0x0a000001", "[::1]:443", "::1",
        "a.example.",
        "ftp://a.example", "://a.example", "https://https://a.example", "a.example/x", "https://a.example/x",
        "GET a.example", "GET https://a.example", "get http://a.example", "GET,, http://a.example",
        "G1 http://a.example",
        "GET POST http://a.example", "http://a.example/%2e", "http://a.example/..", "http://a.example/./x",
        "http://a.example/x/..;a/y", "http://a.example/x?y", "http://a.example/x#y", "http://a.example/\\x",
        "http://a.example/é", "http://user@a.example/", "user:pw@a.example", "a.example\n*.b.example", "a.example\0",
        "a.example\x1b[2J", "a.example b.example c.example", "a.example\u2028", '"a.example"', "аpple.example",
        "a.example\u00a0x",
        "a." * 600 + "example",
    ],
)  # fmt: skip
def test_what_is_no_rule_is_refused_with_a_reason_that_is_safe_to_print(text: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_rule(text, "user")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@given(st.text(max_size=60) | st.text(alphabet="aZ.*:/-_0129 %\\\"'\n\0@#?,GETHP", max_size=40))
def test_any_text_is_a_rule_or_refused(text: str) -> None:
    try:
        rule = parse_rule(text, "user")
    except RuleError:
        return
    assert parse_rule(rule.text, "user") == rule
    assert rule.text.isascii()
    assert rule.text.isprintable()
    assert len(rule.text) <= MAX_RULE + 16
    assert parse_host(rule.host) == rule.host


# --- decisions -------------------------------------------------------------------------------------------------


def rules(*opened: str, closed: tuple[str, ...] = ()) -> Rules:
    return Rules([parse_rule(text, "user") for text in opened], [parse_rule(text, "deny") for text in closed])


def tls(host: str, port: int = 443) -> Request:
    return Request("https", host, port)


def plain(host: str, path: str = "/", method: str = "GET", port: int = 80) -> Request:
    return Request("http", host, port, method, path)


_TABLE = rules(
    "a.example",
    "*.b.example",
    "c.example:8443",
    "https://d.example",
    "http://e.example",
    "GET,HEAD http://f.example/pub/",
    "http://g.example:8080/x",
    "*.open.example",
    "*.sub.open.example:9000",
    closed=(
        "shut.open.example",
        "*.dark.open.example",
        "POST http://half.open.example",
        "http://part.open.example/in/",
    ),
)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (tls("a.example"), ""), (tls("A.EXAMPLE"), ""), (plain("a.example"), ""), (tls("a.example", 80), "port"),
        (plain("a.example", port=443), "port"), (tls("a.example", 8443), "port"), (tls("x.a.example"), "not-listed"),
        (tls("aa.example"), "not-listed"), (tls("example"), "bad-host"), (tls("evil-a.example"), "not-listed"),
        (tls("a.example.evil.example"), "not-listed"), (tls("a.example."), "bad-host"),
        (tls("b.example"), "not-listed"), (tls("x.b.example"), ""), (tls("x.y.b.example"), ""), (tls("xb.example"),
        "not-listed"),
        (tls("c.example", 8443), ""), (tls("c.example"), "port"), (plain("c.example", port=8443), ""),
        (tls("d.example"), ""), (plain("d.example"), "scheme"), (plain("e.example"), ""), (tls("e.example"),
        "scheme"),
        (plain("f.example", "/pub/x"), ""), (plain("f.example", "/pub/"), ""), (plain("f.example", "/pub"), "path"),
        (plain("f.example", "/public"), "path"), (plain("f.example", "/"), "path"), (plain("f.example", "/pub/x",
        "HEAD"), ""),
        (plain("f.example", "/pub/x", "POST"), "method"), (plain("f.example", "/pub/x", "get"), "method"),
        (tls("f.example"), "scheme"),
        (plain("g.example", "/x", port=8080), ""), (plain("g.example", "/x/y", port=8080), ""),
        (plain("g.example", "/xy", port=8080), "path"), (plain("g.example", "/x"), "port"),
        (tls("any.open.example"), ""), (tls("shut.open.example"), "closed"), (plain("shut.open.example"), "closed"),
        (tls("x.sub.open.example", 9000), ""), (tls("dark.open.example"), ""), (tls("x.dark.open.example"), "closed"),
        (plain("half.open.example"), ""), (plain("half.open.example", method="POST"), "closed"),
        (tls("half.open.example"), ""),
        (plain("part.open.example", "/out"), ""), (plain("part.open.example", "/in/x"), "closed"),
        (tls("10.0.0.1"), "ip-literal"), (tls("2130706433"), "ip-literal"), (tls("[::1]"), "ip-literal"), (tls(""),
        "bad-host"),
        (tls("a.example\0"), "bad-host"), (Request("ftp", "a.example", 21), "scheme"), (Request("", "a.example", 0),
        "scheme"),
    ],
)  # fmt: skip
def test_the_truth_table(request_: Request, reason: str) -> None:
    found = _TABLE.decide(request_)
    assert (found.allowed, found.reason) == (not reason, reason)
    assert bool(found.rule) == (found.allowed or reason == "closed")


def test_the_rule_that_decides_is_named() -> None:
    assert _TABLE.decide(tls("x.b.example")).rule == "user:*.b.example"
    assert _TABLE.decide(tls("shut.open.example")).rule == "deny:shut.open.example"
    assert rules("*.b.example", "x.b.example").decide(tls("x.b.example")).rule == "user:x.b.example", (
        "the nearest"
    )


def test_a_rule_that_closes_a_host_closes_all_its_ports() -> None:
    both = rules("*.a.example:8443", "x.a.example:22", closed=("*.a.example",))
    for port in (443, 80, 22, 8443):
        assert both.decide(tls("x.a.example", port)).reason == "closed"
    only = rules("*.a.example:8443", "x.a.example:22", closed=("*.a.example:22",))
    assert only.decide(tls("x.a.example", 8443)).allowed
    assert only.decide(tls("x.a.example", 22)).reason == "closed"


@pytest.mark.parametrize(
    "path",
    [
        "/pub/../x", "/pub/./x", "/pub/..", "/pub/.", "/pub/..;a=b/x", "/pub/.;/x", "/pub/%2e%2e/x", "/pub/%2E%2e/x",
        "/pub/.%2e/x", "/pub/..%2fx", "/pub/..%5cx", "/pub/..\\x", "/pub\\..\\x", "/pub/%252e%252e/x",
        "/pub/%c0%ae%c0%ae/x",
        "/pub/%e0%80%ae%e0%80%ae/x", "/pub/..%00/x", "/pub/%2", "/pub/%zz", "/pub/%", "/pub/..%20/x", "/pub/.../x",
        "/pub/.. /x",
        "/pub/..%3bx", "/pub/..%3fx", "/pub/..%23x", "/pub/%09/x", "/pub/x%0d%0aHost:b", "/pub/%7f", "/pub/%ff",
        "//pub/x",
        "/x/pub/", "pub/x", "", "/PUB/x", "/pub/\ud800",
    ],
)  # fmt: skip
def test_a_path_that_could_be_read_as_another_is_not_below(path: str) -> None:
    assert rules("http://f.example/pub/").decide(plain("f.example", path)).reason == "path"


@pytest.mark.parametrize(
    "path",
    [
        "/in/", "/in/x", "/%69n/x", "//in/x", "/in;a=b/x", "/out/../in/x", "/./in/x", "/out/%2e%2e/in/x",
        "/out%2f..%2fin/x",
        "/in//x", "/in/%ff", "/\\in/x",
    ],
)  # fmt: skip
def test_a_rule_that_closes_a_path_closes_all_that_could_be_read_as_below_it(path: str) -> None:
    both = rules("f.example", closed=("http://f.example/in/",))
    assert both.decide(plain("f.example", path)).reason == "closed"
    assert both.decide(plain("f.example", "/out/in/x")).allowed


@pytest.mark.parametrize(
    "path",
    [
        "/pub/", "/pub/x", "/pub//x", "/pub/a%20b", "/pub/%41", "/pub/%C3%A9.deb", "/pub/..x", "/pub/x..",
        "/pub/.git",
        "/pub/a~1_2-3", "/pub/x;v=1", "/pub/%2B", "/pub/a%3Db",
    ],
)  # fmt: skip
def test_ordinary_paths_are_below(path: str) -> None:
    assert rules("http://f.example/pub/").decide(plain("f.example", path)).allowed


_RULES = st.lists(_texts(), max_size=6)
_PORTS = st.sampled_from([80, 443, 8443])
_REQUESTS = st.builds(
    Request,
    st.sampled_from(["http", "https"]),
    st.sampled_from(["a.b", "x.a.b", "y.x.a.b", "b.c"]) | _HOSTS,
    _PORTS,
    st.sampled_from(["GET", "POST"]),
    _PATHS,
)
_NEAR = st.sampled_from(
    [
        "a.b",
        "*.a.b",
        "x.a.b",
        "*.x.a.b",
        "a.b:8443",
        "https://a.b",
        "GET http://a.b/x",
        "http://x.a.b",
        "*.b.c",
    ]
)


@given(st.lists(_NEAR | _texts(), max_size=6), st.lists(_NEAR | _texts(), max_size=3), _NEAR, _REQUESTS)
def test_taking_a_rule_away_opens_nothing_and_closing_more_neither(
    opened: list[str], closed: list[str], more: str, request_: Request
) -> None:
    now = rules(*opened, closed=tuple(closed)).decide(request_).allowed
    assert rules(*opened, more, closed=tuple(closed)).decide(request_).allowed >= now or not now
    assert rules(*opened[1:], closed=tuple(closed)).decide(request_).allowed <= now
    assert rules(*opened, closed=(*closed, more)).decide(request_).allowed <= now


@given(
    st.lists(_NEAR | _texts(), max_size=6),
    st.lists(_NEAR, max_size=3),
    _REQUESTS,
    st.randoms(use_true_random=False),
)
def test_the_order_of_rules_and_duplicates_decide_nothing(
    opened: list[str], closed: list[str], request_: Request, random: object
) -> None:
    other = [*opened, *opened]
    random.shuffle(other)  # type: ignore[attr-defined]
    first = rules(*opened, closed=tuple(closed)).decide(request_)
    second = rules(*other, closed=tuple(reversed(closed))).decide(request_)
    assert first.allowed == second.allowed
    assert (first.reason == "closed") == (second.reason == "closed")


@given(
    st.lists(_NEAR, max_size=4), st.text(max_size=10), st.text(max_size=30), st.integers(-1, 70000),
    st.text(max_size=8), st.text(max_size=20)
)  # fmt: skip
def test_the_decision_is_total(
    opened: list[str], scheme: str, host: str, port: int, method: str, path: str
) -> None:
    found = rules(*opened).decide(Request(scheme, host, port, method, path))
    assert found.allowed or found.reason in REASONS


def test_nothing_is_allowed_by_no_rules() -> None:
    assert Rules().decide(tls("a.example")).reason == "not-listed"


def test_a_hundred_thousand_rules_are_parsed_within_a_second_and_decide_at_once() -> None:
    texts = [f"*.h{number}.example" for number in range(100_000)]
    began = time.process_time()
    many = Rules([parse_rule(text, "user") for text in texts])
    parsed = time.process_time() - began
    began = time.process_time()
    for number in range(0, 100_000, 100):
        assert many.decide(tls(f"x.y.h{number}.example")).allowed
        assert not many.decide(tls(f"h{number}.example")).allowed
    assert parsed < 2.5  # about one on an idle machine
    assert time.process_time() - began < 0.5


def test_one_host_with_many_rules_decides_quickly() -> None:
    many = Rules(
        [
            Rule(f"http://a.example/{n}/", "user", "a.example", False, "http", 0, (), f"/{n}/")
            for n in range(20_000)
        ]
    )
    began = time.process_time()
    assert not many.decide(plain("a.example", "/x/" + "%41" * 5000)).allowed
    assert time.process_time() - began < 2


# --- explained by the same code ----------------------------------------------------------------------------------


@given(st.lists(_NEAR | _texts(), max_size=5), st.lists(_NEAR, max_size=2), _REQUESTS)
def test_explain_says_what_the_proxy_decides(opened: list[str], closed: list[str], request_: Request) -> None:
    known = rules(*opened, closed=tuple(closed))
    path = request_.path if request_.scheme == "http" else ""
    told = explain(known, f"{request_.scheme}://{request_.host}:{request_.port}{path}?q=secret#x")
    asked = (
        Request("http", request_.host, request_.port, "GET", path)
        if path
        else tls(request_.host, request_.port)
    )
    found = known.decide(asked)
    assert (told.allowed, told.rule, told.reason) == (found.allowed, found.rule, found.reason)


@pytest.mark.parametrize(
    "url",
    [
        "", "://", "ftp://a.example", "https://", "https://user@a.example/", "https://a.example:99999",
        "https://[::1",
        "https://a.example\\@b.example/", "https://exa\nmple.example", " https://a.example", "https://a.example/ x",
        "mailto:x",
        "https://\u0430pple.example", "https://a.example:8o",
    ],
)  # fmt: skip
def test_what_is_no_url_is_not_explained(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        request_of(url)


@pytest.mark.parametrize(
    ("url", "request_"),
    [
        ("a.example", tls("a.example")), ("a.example:8443", tls("a.example", 8443)), ("HTTPS://A.example/x?y",
        tls("a.example")),
        ("http://a.example", plain("a.example")), ("http://a.example:81/x/../y", plain("a.example", "/x/../y",
        port=81)),
        ("https://a.example:0/", tls("a.example", 0)), ("https://1.2.3.4/", tls("1.2.3.4")), ("https://[::1]/",
        tls("::1")),
    ],
)  # fmt: skip
def test_a_url_is_the_request_that_a_client_makes(url: str, request_: Request) -> None:
    assert request_of(url) == request_
