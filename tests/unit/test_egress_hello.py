"""The first flight of TLS clients: real ones, cut in every way, with what hides or doubles a name, and garbage."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.attacks.egress import _with_extension, client_hello
from coding_agents_guest.egress.clienthello import (
    MAX_HELLO,
    ClientFlight,
    ClientHello,
    HelloError,
    read_hello,
    require_host,
)
from coding_agents_guest.egress.rules import REASONS

HOST = "good.example"
REAL = client_hello(HOST)


def hello(
    host: str = HOST,
    *,
    least: ssl.TLSVersion | None = None,
    most: ssl.TLSVersion | None = None,
    alpn: Iterable[str] = (),
) -> bytes:
    """What OpenSSL says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if least is not None:
        context.minimum_version = least
    if most is not None:
        context.maximum_version = most
    if alpn:
        context.set_alpn_protocols(list(alpn))
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=host or None)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def records(data: bytes, cuts: Iterable[int]) -> bytes:
    """The same handshake message in records that begin at `cuts`."""
    message = data[5:]
    edges = sorted({0, len(message), *(cut for cut in cuts if 0 < cut < len(message))})
    return b"".join(
        b"\x16\x03\x01" + (end - start).to_bytes(2, "big") + message[start:end]
        for start, end in pairwise(edges)
    )


def extended(kind: int, value: bytes, data: bytes = REAL) -> bytes:
    return _with_extension(data, kind, value)


def names(*some: bytes) -> bytes:
    """The value of a server_name extension (RFC 6066 §3)."""
    entries = b"".join(b"\0" + len(name).to_bytes(2, "big") + name for name in some)
    return len(entries).to_bytes(2, "big") + entries


def named(value: bytes) -> bytes:
    """A hello of nothing but a server_name extension with this value."""
    return extended(0, value, bare(b"\0\0"))


def bare(extensions: bytes) -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\2\x13\x01" + b"\1\0" + extensions
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def reason(data: bytes) -> str:
    with pytest.raises(HelloError) as caught:
        read_hello(data)
    assert caught.value.reason in REASONS
    return caught.value.reason


@pytest.mark.parametrize(
    "data",
    [
        REAL,
        hello(least=ssl.TLSVersion.TLSv1_3),
        hello(most=ssl.TLSVersion.TLSv1_2),
        hello(alpn=["h2", "http/1.1"]),
        hello("GOOD.example"),
        REAL + b"early data",
    ],
    ids=["default", "1.3", "1.2", "alpn", "case", "more"],
)
def test_real_clients_name_their_host(data: bytes) -> None:
    assert read_hello(data) == ClientHello(HOST, False)


def test_a_client_without_a_name_and_one_with_an_address_name_none() -> None:
    for host in ("", "10.0.0.1"):  # OpenSSL sends no address
        found = read_hello(hello(host))
        assert found == ClientHello("", False)
    assert read_hello(bare(b"")) == ClientHello("", False), "no extensions at all"


@given(st.lists(st.integers(0, len(REAL)), max_size=12), st.integers(0, len(REAL) + 60))
def test_neither_records_nor_packets_matter(cuts: list[int], length: int) -> None:
    data = records(REAL, cuts)
    assert read_hello(data) == read_hello(REAL)
    assert read_hello(data[:length]) == (read_hello(REAL) if length >= len(data) else None)


def test_packets_of_a_byte_are_read_quickly() -> None:
    data = records(REAL, range(0, len(REAL), 16))
    began = time.process_time()
    assert {read_hello(data[:length]) for length in range(len(data))} == {None}
    assert read_hello(data) == ClientHello(HOST, False)
    assert time.process_time() - began < 2


def test_nobody_cuts_a_hello_into_single_bytes() -> None:
    """It is read again with each packet, by the one process that serves the session."""
    assert reason(records(REAL, range(len(REAL)))) == "not-tls"


@pytest.mark.parametrize("kind", [0xFE0D, 0xFE0A, 0xFE09, 0xFE08, 0xFFCE])
def test_a_hidden_host_is_seen(kind: int) -> None:
    found = read_hello(extended(kind, bytes(32)))
    assert found == ClientHello(HOST, True)
    with pytest.raises(HelloError) as caught:
        require_host(found, HOST)
    assert caught.value.reason == "ech"
    require_host(found, HOST, allow_ech=True)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (ClientHello("", False), "no-sni"),
        (ClientHello("other.example", False), "sni"),
        (ClientHello("sub.good.example", False), "sni"),
        (ClientHello("other.example", True), "sni"),
    ],
)
def test_the_tunnels_host_must_be_the_clients(found: ClientHello, why: str) -> None:
    for allow_ech in (False, True):
        with pytest.raises(HelloError) as caught:
            require_host(found, HOST, allow_ech=allow_ech)
        assert caught.value.reason == why


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (names(b"good.example", b"other.example"), "sni"), (names(), "sni"), (b"", "not-tls"), (b"\0", "not-tls"),
        (names(b""), "sni"), (names(b"good.example.") , "sni"), (names(b"good.example\0.other.example"), "sni"),
        (names(b"10.0.0.1"), "sni"), (names(b"[::1]"), "sni"), (names(b"g\xf6od.example"), "sni"),
        (names(b"*.example"), "sni"),
        (b"\0\x0f\1" + names(b"good.example")[3:], "sni"), (names(b"good.example") + b"\0", "sni"),
        (b"\0\x05\0\0\xffgo", "not-tls"), (b"\xff\xff" + names(b"good.example")[2:], "not-tls"),
    ],
)  # fmt: skip
def test_a_name_that_could_be_another_is_refused(value: bytes, why: str) -> None:
    assert reason(named(value)) == why


def test_an_extension_that_stands_there_twice_is_refused() -> None:
    assert reason(extended(0, names(b"other.example"))) == "not-tls"
    assert reason(extended(0x1234, b"", extended(0x1234, b""))) == "not-tls"


def _other_type() -> bytes:
    return REAL[:5] + b"\2" + REAL[6:]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x16\x02\x01", b"\x17\x03\x03\0\1x", b"\x15\x03\x01\0\2\2\x28",
        b"\x80\x2e\1\3\1",
        b"\x16\x03\x01\0\0", b"\x16\x03\x01\0\1\2", b"\x16\x03\x01\0\4\1\xff\xff\xff", _other_type(),
        b"\x16\xfe\xff" + bytes(20), b"\0",
        records(REAL, [4])[: 5 + 4] + b"\x17" + records(REAL, [4])[10:],  # a record of another type between
        bare(b"\0\5\0"), bare(b"\0\4\x12\x34\0\1"), bare(b"\0\0\0"), bare(b"\0\1\0"),
    ],
)  # fmt: skip
def test_what_is_no_hello_is_known_at_once(data: bytes) -> None:
    assert reason(data) == "not-tls"


def test_a_hello_is_bounded() -> None:
    endless = b"\x16\x03\x01\x40\0\1" + (MAX_HELLO + 1).to_bytes(3, "big")
    assert reason(endless) == "not-tls"
    long = b"\x16\x03\x01\x40\0\1\0\x3f\0"
    assert read_hello(long.ljust(16_000, b"x")) is None
    assert reason(b"\x16\x03\x01\x50\0\1\0\x3f\xff".ljust(MAX_HELLO + 1, b"x")) == "not-tls"


@given(
    st.binary(max_size=300) | st.binary(max_size=200).map(lambda more: b"\x16\x03\x01\0\xf0\1\0\0\xec" + more)
)
def test_any_bytes_are_a_hello_or_too_few_or_refused(data: bytes) -> None:
    try:
        found = read_hello(data)
    except HelloError:
        return
    assert found is None or found.host == found.host.lower()


@given(st.integers(0, len(REAL) - 1), st.binary(min_size=1, max_size=3))
def test_no_change_of_bytes_makes_it_name_another_host_unseen(at: int, other: bytes) -> None:
    """What is understood is what a server is sent: nothing else of the message can name a host."""
    changed = REAL[:at] + other + REAL[at + len(other) :]
    try:
        found = read_hello(changed)
    except HelloError:
        return
    if found is not None and found.host:
        assert found.host.encode() in changed.lower()


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=20)), max_size=6), st.integers(0, 400))
def test_any_extensions_are_understood_or_refused(extensions: list[tuple[int, bytes]], length: int) -> None:
    data = REAL
    for kind, value in extensions:
        data = extended(kind, value, data)
    try:
        found = read_hello(data)
    except HelloError:
        return
    assert found is not None
    assert found.host == HOST
    assert read_hello(data[: min(length, len(data) - 1)]) is None


# --- what follows the first hello --------------------------------------------------------------------------------

OTHER = hello("other.example")
CHANGE, DATA = b"\x14\x03\x03\0\1\1", b"\x17\x03\x03\0\4data"


def watched(*pieces: bytes) -> ClientFlight:
    flight = ClientFlight(HOST, allow_ech=False)
    for piece in pieces:
        flight.feed(piece)
    return flight


def test_a_flight_is_over_with_the_first_that_is_encrypted() -> None:
    assert not watched(REAL).over
    assert not watched(REAL, CHANGE, REAL).over, "a second hello, as asked for"
    assert watched(REAL, CHANGE, DATA).over
    assert watched(REAL, CHANGE, b"\x16\x03\x03\0\x04\x9a\xbc\xde\xf0").over, "TLS 1.2 encrypts this one"
    assert watched(REAL, b"GET / HTTP/1.1").over, "no TLS: the server refuses it"


_EARLY = extended(42, b"")


@pytest.mark.parametrize(
    "pieces",
    [
        (REAL, OTHER), (REAL, CHANGE, OTHER), (REAL, CHANGE, CHANGE, OTHER), (REAL + CHANGE + OTHER,),
        (REAL, b"\x15\x03\x03\0\2\1\0", OTHER), (REAL, records(OTHER, [1, 5, 60])),
        (_EARLY, DATA, OTHER), (_EARLY, CHANGE, DATA * 9, CHANGE, OTHER), (_EARLY, DATA * 100_000, OTHER), (REAL,
        _EARLY, DATA, OTHER),
    ],
)  # fmt: skip
def test_a_later_hello_must_name_the_host_too(pieces: tuple[bytes, ...]) -> None:
    """Also behind early data, which a server passes over when it asks for a second hello (RFC 8446 §4.2.10)."""
    with pytest.raises(HelloError) as caught:
        watched(*pieces)
    assert caught.value.reason == "sni"


@given(st.lists(st.integers(0, 2000), max_size=8))
def test_packets_do_not_matter_to_a_flight(cuts: list[int]) -> None:
    data = _EARLY + CHANGE + DATA + records(OTHER, [3, 9])
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    with pytest.raises(HelloError):
        watched(*(data[start:end] for start, end in pairwise(edges)))


def test_what_never_encrypts_is_broken_off() -> None:
    with pytest.raises(HelloError):
        watched(*[CHANGE * 1000] * 100)


@given(st.binary(max_size=300))
def test_any_bytes_can_follow(data: bytes) -> None:
    for first in (REAL, _EARLY):
        try:
            watched(first, data)
        except HelloError:
            continue
