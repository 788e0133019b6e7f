"""The frames of the channel between guest and host: sans-IO, bounded, a closed set of types.

A frame is a header (type: 1 byte, stream: 4 bytes, payload length: 4 bytes, big-endian) and a payload of at
most 64 KiB. The guest's first frame is HELLO. Then either side opens streams: the guest odd ids, the host
even ids, each in increasing order. Data flows against credit: a side may send at most `WINDOW` bytes on a
stream before the other grants more with WINDOW, so one slow stream never holds up the others.

Whatever arrives was written by the other side of a security boundary: every malformed byte is a `WireError`,
and nothing else is ever raised by decoding.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from typing import Any, Union

from coding_agents_guest.records import dataclass

PROTOCOL = 1
MAX_PAYLOAD = 64 * 1024
WINDOW = 256 * 1024
MAX_STREAMS = 96
MAX_STREAM_ID = 2**32 - 1
MAX_REASON = 200

_HEADER = struct.Struct(">BII")
_OPEN = struct.Struct(">I")
_CREDIT = struct.Struct(">I")
_SERVICE = re.compile(rb"[a-z][a-z0-9-]{0,31}")
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,64}")


class WireError(Exception):
    """The other side sent, or we were about to send, what the protocol does not allow."""


@dataclass(frozen=True)
class Hello:
    """The guest's first frame: its protocol and version, and what probe.py read about its container."""

    protocol: int
    version: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Open:
    """A new stream to `service`, asked for by a process of user `peer_uid`."""

    stream: int
    service: str
    peer_uid: int


@dataclass(frozen=True)
class Data:
    """1 to `MAX_PAYLOAD` bytes of a stream."""

    stream: int
    payload: bytes


@dataclass(frozen=True)
class Eof:
    """The sender will send no more data on this stream; it still receives."""

    stream: int


@dataclass(frozen=True)
class Reset:
    """The stream is over in both directions; `reason` is a short text for the log."""

    stream: int
    reason: str


@dataclass(frozen=True)
class Window:
    """The sender is ready for `credit` more bytes on this stream."""

    stream: int
    credit: int


Frame = Union[Hello, Open, Data, Eof, Reset, Window]

_HELLO_TYPE, _OPEN_TYPE, _DATA_TYPE, _EOF_TYPE, _RESET_TYPE, _WINDOW_TYPE = range(1, 7)


def encode(frame: Frame) -> bytes:
    """The bytes of `frame`. Raises WireError for a frame that `Decoder` would refuse."""
    if isinstance(frame, Hello):
        body = {"protocol": frame.protocol, "version": frame.version, "facts": dict(frame.facts)}
        return _packed(_HELLO_TYPE, 0, dump_json(body))
    if isinstance(frame, Open):
        if not 0 <= frame.peer_uid < 2**32:
            raise WireError("peer uid out of range")
        return _packed(
            _OPEN_TYPE, frame.stream, _OPEN.pack(frame.peer_uid) + frame.service.encode("utf-8", "replace")
        )
    if isinstance(frame, Data):
        return _packed(_DATA_TYPE, frame.stream, frame.payload)
    if isinstance(frame, Eof):
        return _packed(_EOF_TYPE, frame.stream, b"")
    if isinstance(frame, Reset):
        return _packed(_RESET_TYPE, frame.stream, frame.reason.encode("utf-8", "replace"))
    if not 0 < frame.credit <= WINDOW:
        raise WireError("credit out of range")
    return _packed(_WINDOW_TYPE, frame.stream, _CREDIT.pack(frame.credit))


class Decoder:
    """Turns bytes, cut anywhere, into frames. After a WireError it raises again on every further call."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take more bytes; returns the frames that are now complete. Raises WireError."""
        self._buffer += data
        frames: list[Frame] = []
        while len(self._buffer) >= _HEADER.size:
            kind, stream, length = _HEADER.unpack_from(self._buffer)
            _check_header(kind, stream, length)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append(_parsed(kind, stream, bytes(self._buffer[_HEADER.size : end])))
            del self._buffer[:end]
        return frames


def dump_json(value: object) -> bytes:
    """Compact JSON without a line end. Raises WireError for what JSON or UTF-8 cannot hold."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from None


def load_json(data: bytes) -> dict[str, Any]:
    """Parse one JSON object. Duplicate keys, NaN, lone surrogates and deep nesting are WireErrors."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        dump_json(value)  # "\ud800" and 1e999 parse, but could not be written again
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}"[:MAX_REASON]) from None
    if not isinstance(value, dict):
        raise WireError("not a JSON object")
    return value


def _packed(kind: int, stream: int, payload: bytes) -> bytes:
    if not 0 <= stream <= MAX_STREAM_ID:
        raise WireError("stream id out of range")
    _check_header(kind, stream, len(payload))
    _parsed(kind, stream, payload)
    return _HEADER.pack(kind, stream, len(payload)) + payload


_LENGTHS = {
    _HELLO_TYPE: (2, MAX_PAYLOAD),
    _OPEN_TYPE: (_OPEN.size + 1, _OPEN.size + 32),
    _DATA_TYPE: (1, MAX_PAYLOAD),
    _EOF_TYPE: (0, 0),
    _RESET_TYPE: (0, MAX_REASON),
    _WINDOW_TYPE: (_CREDIT.size, _CREDIT.size),
}


def _check_header(kind: int, stream: int, length: int) -> None:
    if kind not in _LENGTHS:
        raise WireError(f"unknown frame type {kind}")
    shortest, longest = _LENGTHS[kind]
    if not shortest <= length <= longest:
        raise WireError(f"frame of type {kind} with {length} bytes")
    if (stream == 0) != (kind == _HELLO_TYPE):
        raise WireError(f"frame of type {kind} on stream {stream}")


def _parsed(kind: int, stream: int, payload: bytes) -> Frame:
    if kind == _DATA_TYPE:
        return Data(stream, payload)
    if kind == _WINDOW_TYPE:
        (credit,) = _CREDIT.unpack(payload)
        if not 0 < credit <= WINDOW:
            raise WireError("credit out of range")
        return Window(stream, credit)
    if kind == _EOF_TYPE:
        return Eof(stream)
    if kind == _RESET_TYPE:
        return Reset(stream, _text(payload))
    if kind == _OPEN_TYPE:
        service = payload[_OPEN.size :]
        if not _SERVICE.fullmatch(service):
            raise WireError("malformed service name")
        return Open(stream, service.decode("ascii"), _OPEN.unpack_from(payload)[0])
    return _hello(payload)


def _hello(payload: bytes) -> Hello:
    body = load_json(payload)
    if set(body) != {"protocol", "version", "facts"}:
        raise WireError("hello with other keys")
    protocol, version, facts = body["protocol"], body["version"], body["facts"]
    if type(protocol) is not int or type(version) is not str or not isinstance(facts, dict):
        raise WireError("hello with other types")
    if not _VERSION.fullmatch(version):
        raise WireError("hello with a malformed version")
    return Hello(protocol, version, facts)


def _text(payload: bytes) -> str:
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError:
        raise WireError("reason is not UTF-8") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate key")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")
