"""A reader of tar streams that a hostile guest writes: strict, bounded, one entry after the other.

It knows what GNU tar writes for `--format=gnu` and refuses all else. Nothing of the stream is kept but one header, one
name and one chunk. Raises CopyError for whatever is not such a stream, or
exceeds `UntarLimits`, and EOFError when it ends before its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Literal

import msgspec

from coding_agents.errors import CopyError
from coding_agents.model.limits import size_text

Kind = Literal["file", "directory", "link", "other"]

_BLOCK = 512
_CHUNK = 1 << 20
_END = bytes(_BLOCK)
_KINDS: dict[bytes, Kind] = {b"0": "file", b"\0": "file", b"5": "directory", b"2": "link"}
_OTHERS = frozenset({b"1", b"3", b"4", b"6"})  # hard links, devices, pipes: known, and left out
_LONG_NAME, _LONG_LINK = b"L", b"K"
_MAX_NAME = 4096  # PATH_MAX
_MAX_DEPTH = 100


class UntarLimits(msgspec.Struct, frozen=True):
    """What is taken at most: bytes of all files together, and entries."""

    size_bytes: int
    entries: int = 200_000


class Entry(msgspec.Struct, frozen=True):
    """One entry: its path from the top, whose parts are plain names; `target` of a link as it is written."""

    kind: Kind
    parts: tuple[bytes, ...]
    mode: int = 0
    size: int = 0
    target: bytes = b""

    @property
    def path(self) -> str:
        """The path as text, hostile."""
        return b"/".join(self.parts).decode("utf-8", "surrogateescape")


class TarReader:
    """Iterates over the entries; the content of a file is read by `content` before the next one is asked for."""

    def __init__(self, stream: BinaryIO, limits: UntarLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._left = 0  # of the file that is being read, with its padding
        self._bytes = 0

    def __iter__(self) -> Iterator[Entry]:
        names: dict[bytes, bytes] = {}
        count = 0
        while (block := self._exactly(_BLOCK)) != _END:
            kind, size = block[156:157], _number(block[124:136])
            _require_checksum(block)
            if kind in (_LONG_NAME, _LONG_LINK):
                names[kind] = self._long(size)
                continue
            count += 1
            if count > self._limits.entries:
                raise CopyError(f"more than {self._limits.entries} files", hint="Copy a part of it.")
            entry = _entry(block, kind, size, names)
            names = {}
            self._begin(entry)
            yield entry
            self._skip()

    def content(self, entry: Entry) -> Iterator[bytes]:
        """The bytes of the file that was given last, in chunks."""
        left = entry.size
        while left:
            chunk = self._exactly(min(left, _CHUNK))
            left -= len(chunk)
            self._left -= len(chunk)
            yield chunk

    def _begin(self, entry: Entry) -> None:
        self._bytes += entry.size
        if self._bytes > self._limits.size_bytes:
            raise CopyError(
                f"more than {size_text(self._limits.size_bytes)}",
                hint="Copy a part of it, or allow more: --max-size.",
            )
        self._left = entry.size + -entry.size % _BLOCK

    def _skip(self) -> None:
        while self._left:
            self._left -= len(self._exactly(min(self._left, _CHUNK)))

    def _long(self, size: int) -> bytes:
        if not 0 < size <= _MAX_NAME + 1:
            raise _malformed(f"a name of {size} bytes")
        return self._exactly(size + -size % _BLOCK)[:size].rstrip(b"\0")

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data


def _entry(block: bytes, kind: bytes, size: int, names: dict[bytes, bytes]) -> Entry:
    name = names.get(_LONG_NAME) or _text(block[0:100])
    target = names.get(_LONG_LINK) or _text(block[157:257])
    if kind not in _KINDS and kind not in _OTHERS:
        raise _malformed(f"an entry of type {kind!r}")
    which = _KINDS.get(kind, "other")
    if which != "file" and size:
        raise _malformed("content where none can be")
    return Entry(which, _parts(name), mode=_number(block[100:108]) & 0o777, size=size, target=target)


def _parts(name: bytes) -> tuple[bytes, ...]:
    """The names of a path. No part may lead anywhere but down."""
    parts = tuple(name.rstrip(b"/").split(b"/"))
    plain = all(part not in (b"", b".", b"..") and b"\0" not in part and len(part) <= 255 for part in parts)
    if not plain or len(parts) > _MAX_DEPTH or len(name) > _MAX_NAME:
        raise _malformed(f"the name {name[:100]!r}")
    return parts


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Octal digits, or GNU's base 256 for what is larger."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits.isdigit() or set(digits) & set(b"89"):
        raise _malformed(f"the number {field!r}")
    return int(digits, 8)


def _require_checksum(block: bytes) -> None:
    if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise _malformed("a wrong checksum")


def _malformed(what: str) -> CopyError:
    return CopyError(
        f"the session sent {what}: refused",
        hint="Nothing was copied. Copy single files, or look inside first.",
    )
