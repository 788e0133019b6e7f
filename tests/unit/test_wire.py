"""Frames: round trip, independence of chunking, and no exception but WireError for hostile bytes."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents_guest.wire import (
    MAX_PAYLOAD,
    MAX_REASON,
    MAX_STREAM_ID,
    WINDOW,
    Data,
    Decoder,
    Eof,
    Frame,
    Hello,
    Open,
    Reset,
    Window,
    WireError,
    dump_json,
    encode,
    load_json,
)

STREAMS = st.integers(1, MAX_STREAM_ID)
SCALARS = st.characters(exclude_categories=["Cs"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(SCALARS, max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(SCALARS, max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
FRAMES = st.one_of(
    st.builds(
        Hello,
        st.integers(0, 2**31),
        st.from_regex(r"[0-9a-z.]{1,20}", fullmatch=True),
        st.dictionaries(st.text(SCALARS, max_size=8), JSON, max_size=4),
    ),
    st.builds(
        Open, STREAMS, st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True), st.integers(0, 2**32 - 1)
    ),
    st.builds(Data, STREAMS, st.binary(min_size=1, max_size=500)),
    st.builds(Eof, STREAMS),
    st.builds(Reset, STREAMS, st.text(SCALARS, max_size=MAX_REASON // 4)),
    st.builds(Window, STREAMS, st.integers(1, WINDOW)),
)


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(0, 3000), max_size=12))
def test_frames_survive_any_chunking(frames: list[Frame], cuts: list[int]) -> None:
    sent = b"".join(encode(frame) for frame in frames)
    edges = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    decoder = Decoder()
    got = [frame for start, end in itertools.pairwise(edges) for frame in decoder.feed(sent[start:end])]
    assert got == frames


@given(st.lists(FRAMES, min_size=1, max_size=3))
def test_one_byte_at_a_time(frames: list[Frame]) -> None:
    decoder = Decoder()
    sent = b"".join(encode(frame) for frame in frames)
    assert [frame for byte in sent for frame in decoder.feed(bytes([byte]))] == frames


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_wire_error(data: bytes) -> None:
    try:
        frames = Decoder().feed(data)
    except WireError:
        return
    assert b"".join(encode(frame) for frame in frames if not isinstance(frame, Hello)) in data


@given(FRAMES, st.data())
def test_a_changed_byte_raises_nothing_but_wire_error(frame: Frame, data: st.DataObject) -> None:
    sent = bytearray(encode(frame))
    sent[data.draw(st.integers(0, len(sent) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(WireError):
        Decoder().feed(bytes(sent))


@given(st.binary(max_size=100) | st.text('[]{}",:\\du0123456789eE-+.Ntrue', max_size=60).map(str.encode))
def test_random_json_raises_nothing_but_wire_error(data: bytes) -> None:
    try:
        value = load_json(data)
    except WireError:
        return
    assert load_json(dump_json(value)) == value


def header(kind: int, stream: int, length: int) -> bytes:
    return bytes([kind]) + stream.to_bytes(4, "big") + length.to_bytes(4, "big")


@pytest.mark.parametrize(
    "data",
    [
        header(0, 1, 0),
        header(7, 1, 0),
        header(3, 0, 1),
        header(3, 1, 0),
        header(3, 1, MAX_PAYLOAD + 1),
        header(1, 5, 2),
        header(1, 0, MAX_PAYLOAD + 1),
        header(4, 1, 1),
        header(5, 1, MAX_REASON + 1),
        header(5, 1, 1) + b"\xff",
        header(6, 1, 3),
        header(6, 1, 4) + bytes(4),
        header(6, 1, 4) + (WINDOW + 1).to_bytes(4, "big"),
        header(2, 1, 4),
        header(2, 1, 5) + bytes(4) + b"A",
        header(2, 1, 9) + bytes(4) + b"../up",
        header(2, 1, 6) + bytes(4) + b"a\n",
        *(
            header(1, 0, len(body)) + body
            for body in (
                b"[]",
                b"{}",
                b"\xff\xff",
                b'{"protocol":1,"version":"1","facts":{},"more":1}',
                b'{"protocol":true,"version":"1","facts":{}}',
                b'{"protocol":1,"version":1,"facts":{}}',
                b'{"protocol":1,"version":"1\\n","facts":{}}',
                b'{"protocol":1,"version":"1","facts":[]}',
                b'{"protocol":1,"protocol":1,"version":"1","facts":{}}',
                b'{"protocol":1,"version":"1","facts":{"a":NaN}}',
                b'{"protocol":1,"version":"1","facts":{"a":1e999}}',
                b'{"protocol":1,"version":"1","facts":{"a":"\\ud800"}}',
                b'{"protocol":1,"version":"1","facts":{"a":' + b"[" * 60000 + b"}}",
            )
        ),
    ],
)
def test_malformed_frames_are_refused_again_and_again(data: bytes) -> None:
    decoder = Decoder()
    for more in (data, b""):
        with pytest.raises(WireError):
            decoder.feed(more)


def test_an_oversized_frame_is_refused_from_its_header_alone() -> None:
    with pytest.raises(WireError):
        Decoder().feed(header(3, 1, 2**32 - 1))


@pytest.mark.parametrize(
    "frame",
    [
        Data(1, b""),
        Data(1, bytes(MAX_PAYLOAD + 1)),
        Data(0, b"x"),
        Data(2**32, b"x"),
        Eof(-1),
        Open(1, "", 0),
        Open(1, "Relay", 0),
        Open(1, "rélay", 0),
        Open(1, "relay", -1),
        Open(1, "relay", 2**32),
        Reset(1, "x" * (MAX_REASON + 1)),
        Window(1, 0),
        Window(1, WINDOW + 1),
        Hello(1, "", {}),
        Hello(1, "1", {"a": float("nan")}),
        Hello(1, "1", {"a": object()}),
        Hello(1, "1", {"a": "\udcff"}),
        Hello(1, "1", {"a": "x" * MAX_PAYLOAD}),
    ],
)
def test_a_frame_that_would_be_refused_is_not_sent(frame: Frame) -> None:
    with pytest.raises(WireError):
        encode(frame)


def test_the_bytes_of_each_frame_are_fixed() -> None:
    assert (
        encode(Hello(1, "0.1", {"a": None}))
        == b'\1\0\0\0\0\0\0\0\x31{"protocol":1,"version":"0.1","facts":{"a":null}}'
    )
    assert encode(Open(1, "relay", 1000)) == b"\2\0\0\0\1\0\0\0\x09\0\0\x03\xe8relay"
    assert encode(Data(3, b"hi")) == b"\3\0\0\0\3\0\0\0\2hi"
    assert encode(Eof(3)) == b"\4\0\0\0\3\0\0\0\0"
    assert encode(Reset(3, "no")) == b"\5\0\0\0\3\0\0\0\2no"
    assert encode(Window(3, 256)) == b"\6\0\0\0\3\0\0\0\4\0\0\1\0"
