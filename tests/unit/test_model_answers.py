"""What is looked at in a model's answer as it passes: the credential's bytes, and the tokens."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.brokers.http.upstream import Address, parse_address, proxy_for
from coding_agents.brokers.model import anthropic, gemini, openai
from coding_agents.brokers.model.keyscan import KeyScanner, ReflectedError
from coding_agents.brokers.model.usage import Usage, UsageReader, estimate
from coding_agents.errors import UsageError
from coding_agents.model.spending import Price, Spent, parse_cost, parse_tokens, price_of

SECRET = "sk-abcabcabd"


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


# Of chance alone the secret hardly ever comes: it is drawn, whole and in pieces.
_WORDS = st.sampled_from([SECRET, SECRET[:5], SECRET[5:], SECRET[:-1]]) | st.text("skabcd-", max_size=12)


@given(st.lists(_WORDS, max_size=6), st.lists(st.integers(0, 99), max_size=9))
def test_bytes_pass_unchanged_and_the_secret_never(words: list[str], cuts: list[int]) -> None:
    scanner, passed = KeyScanner([SECRET]), b""
    data = "".join(words).encode()
    try:
        for piece in _pieces(data, cuts):
            passed += scanner.feed(piece)
        passed += scanner.finish()
    except ReflectedError:
        assert SECRET.encode() in data
        assert SECRET.encode() not in passed
    else:
        assert SECRET.encode() not in data
        assert passed == data


def test_nothing_is_held_that_is_no_beginning_of_the_secret() -> None:
    scanner = KeyScanner([SECRET])
    assert scanner.feed(b"data: {}\n\n") == b"data: {}\n\n"
    assert scanner.feed(b"x sk-ab") == b"x "
    assert scanner.feed(b"!") == b"sk-ab!"


ANTHROPIC = [
    {"type": "message_start", "message": {"usage": {"input_tokens": 10, "cache_read_input_tokens": 90}}},
    {"type": "content_block_delta", "delta": {"text": '"usage": 5'}},
    {"type": "message_delta", "usage": {"output_tokens": 7}},
]
RESPONSES = [
    {"type": "response.created", "response": {"usage": None}},
    {
        "type": "response.completed",
        "response": {
            "usage": {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 90}, "output_tokens": 7}
        },
    },
]
CHAT = [
    {"choices": [{"delta": {}}], "usage": None},
    {
        "choices": [],
        "usage": {
            "prompt_tokens": 100,
            "prompt_tokens_details": {"cached_tokens": 90},
            "completion_tokens": 7,
        },
    },
]
GEMINI = [
    {"candidates": [], "usageMetadata": {"promptTokenCount": 100, "cachedContentTokenCount": 90}},
    {"usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 3, "thoughtsTokenCount": 4}},
]


@pytest.mark.parametrize(
    ("module", "events"),
    [(anthropic, ANTHROPIC), (openai, RESPONSES), (openai, CHAT), (gemini, GEMINI)],
    ids=["anthropic", "responses", "chat", "gemini"],
)
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
@given(cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_a_streams_usage_is_read_however_it_is_cut(
    module: object, events: list[object], end: bytes, cuts: list[int]
) -> None:
    reader = UsageReader(module.usage_of, stream=True)  # type: ignore[attr-defined]
    data = b"".join(b"data: " + json.dumps(event).encode() + end for event in events) + b"data: [DONE]\n\n"
    for piece in _pieces(data, cuts):
        reader.feed(piece)
    reader.finish()
    assert reader.found == Usage(100, 90, 7)


def test_usage_of_a_whole_answer_and_of_none() -> None:
    reader = UsageReader(anthropic.usage_of, stream=False)
    for piece in (b'{"content":"a b",', b'"usage": {"input_tokens": 3, "output_tokens": true}}'):
        reader.feed(piece)
    reader.finish()
    assert reader.found == Usage(3, 0, 0)
    for hostile in (
        b'{"usage": ' * 100_000,
        b'{"usage": "x"}',
        b'{"usage": {"input_tokens": -5}}',
        b'"usage"',
    ):
        reader = UsageReader(anthropic.usage_of, stream=False)
        reader.feed(hostile)
        reader.finish()
        assert reader.found in (None, Usage())
    assert estimate(400, 41) == Usage(100, 0, 11)


def test_prices_and_totals() -> None:
    prices = ("m-*=10,1,50", "m-big-*=20,2,100", "m-big-1=1,1,1")
    assert price_of("m-small", prices) == Price(Decimal(10), Decimal(1), Decimal(50))
    assert price_of("m-big-9", prices) == Price(Decimal(20), Decimal(2), Decimal(100))
    assert price_of("m-big-1", prices) == Price(Decimal(1), Decimal(1), Decimal(1))
    assert price_of("other", prices) is None
    spent = Spent().plus(read=1000, cached=900, written=10, price=price_of("m-small", prices))
    assert (spent.tokens, spent.cost) == (1010, 1000 + 900 + 500)  # 100 fresh, 900 cached, 10 written
    spent = spent.plus(read=1, cached=0, written=0, price=None)
    assert (spent.requests, spent.unpriced, spent.cost) == (2, 1, 2400)


@pytest.mark.parametrize(("text", "tokens"), [("5", 5), ("200k", 200_000), ("5M", 5_000_000)])
def test_tokens_as_people_write_them(text: str, tokens: int) -> None:
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize("text", ["", "0", "-1", "k", "1.5m", "9" * 14])
def test_what_is_no_number_of_tokens(text: str) -> None:
    with pytest.raises(UsageError, match="not a number of tokens"):
        parse_tokens(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "x", "1e9"])
def test_what_is_no_sum(text: str) -> None:
    assert parse_cost("$2.50") == Decimal("2.50")
    with pytest.raises(UsageError, match="not a sum"):
        parse_cost(text)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://api.example", Address("https", "api.example", 443)),
        ("https://api.example:8443/v1/", Address("https", "api.example", 8443, "/v1")),
        ("http://[::1]:80", Address("http", "::1", 80)),
        ("ftp://x", None),
        ("https://u:p@x", None),
        ("https://x/?q", None),
        ("https://x/a/../b", None),
        ("https://x:99999", None),
        ("https://x/\n", None),
        ("x", None),
    ],
)
def test_addresses(url: str, address: Address | None) -> None:
    assert parse_address(url) == address


def test_the_hosts_proxy() -> None:
    address = Address("https", "api.example", 443)
    proxy = {"HTTPS_PROXY": "http://p:3128"}
    assert proxy_for(address, proxy) == "http://p:3128"
    assert proxy_for(address, {**proxy, "NO_PROXY": "x, .example"}) == ""
    assert proxy_for(address, {**proxy, "NO_PROXY": "pi.example"}) == "http://p:3128"
    assert proxy_for(address, {**proxy, "no_proxy": "*"}) == ""
    assert (
        proxy_for(Address("http", "127.0.0.1", 1), {"HTTP_PROXY": "http://p"}) == ""
    )  # as curl: lower case only
