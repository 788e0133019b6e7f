"""Read a pack as it passes by: what its objects will measure unpacked, before git has them (no IO).

Format: gitformat-pack(5). The bytes come from a hostile guest. Each object's size stands in its own header and a
delta's result in the delta's, so a bomb is known by its first bytes; to find where an object ends it must be
inflated, which is counted and thrown away: at most `_PIECE` bytes of it are ever held. Whether the objects are
what they say (their ids, their bases) is git's to check.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import msgspec

_PIECE = 256 * 1024
_SLACK = 64  # what zlib adds to an object that it cannot compress, and the end of the stream
_MAX_VARINT = 9  # bytes of a size: 2**60 and more is no size
_MAX_OFFSET = 10
_MAX_DELTA_HEADER = 2 * _MAX_VARINT
_HEADER = 12
_DELTAS = (6, 7)
_OFS_DELTA, _REF_DELTA = _DELTAS
_WHOLE = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}


class MalformedPackError(Exception):
    """The bytes are not a pack, or not the one that they announce. Never leaves the relay."""


class PackTooLargeError(Exception):
    """A bound is exceeded; `what` is object, unpacked or count, `size` what the pack wants, `limit` the bound.

    Never leaves the relay.
    """

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(f"{what}: {size} > {limit}")
        self.what = what
        self.size = size
        self.limit = limit


class PackBounds(msgspec.Struct, frozen=True):
    """Most bytes of one object, of all objects together, and the number of objects; all as unpacked."""

    object_bytes: int
    unpacked_bytes: int
    objects: int


class PackScanner:
    """Takes a pack in pieces of any size. Deltas count by their result.

    `unpacked` is the sum of the sizes of what was announced so far, `complete` whether the whole pack was read.
    """

    def __init__(self, bounds: PackBounds, *, hash_bytes: int) -> None:
        self.unpacked = 0
        self.complete = False
        self._bounds = bounds
        self._hash_bytes = hash_bytes
        self._buffer = memoryview(b"")
        self._steps = self._read()
        self._wanted = next(self._steps)

    def feed(self, data: bytes) -> None:
        """Take more bytes. Raises PackTooLargeError at the header that exceeds a bound, MalformedPackError."""
        self._buffer = memoryview(bytes(self._buffer) + data) if self._buffer else memoryview(data)
        while len(self._buffer) >= self._wanted and not self.complete:
            self._wanted = next(self._steps, 0)
        if self.complete and self._buffer:
            raise MalformedPackError("bytes after the end of the pack")

    def _read(self) -> Iterator[int]:
        """The grammar; yields how many bytes it needs in the buffer to go on."""
        while len(self._buffer) < _HEADER:
            yield _HEADER
        magic, version = bytes(self._buffer[:4]), int.from_bytes(self._buffer[4:8], "big")
        count = int.from_bytes(self._buffer[8:_HEADER], "big")
        if magic != b"PACK" or version not in (2, 3):
            raise MalformedPackError("not a pack")
        if count > self._bounds.objects:
            raise PackTooLargeError("count", count, self._bounds.objects)
        self._buffer = self._buffer[_HEADER:]
        for _ in range(count):
            yield from self._object()
        while len(self._buffer) < self._hash_bytes:
            yield self._hash_bytes
        self._buffer = self._buffer[self._hash_bytes :]
        self.complete = True

    def _object(self) -> Iterator[int]:
        while (found := _size_at(self._buffer, shift=4)) is None:
            yield len(self._buffer) + 1
        size, used = found
        kind = self._buffer[0] >> 4 & 7
        self._buffer = self._buffer[used:]
        if kind in _WHOLE:
            self._count(size)
        elif kind == _OFS_DELTA:
            while (used := _offset_at(self._buffer)) == 0:
                yield len(self._buffer) + 1
            self._buffer = self._buffer[used:]
        elif kind == _REF_DELTA:
            while len(self._buffer) < self._hash_bytes:
                yield self._hash_bytes
            self._buffer = self._buffer[self._hash_bytes :]
        else:
            raise MalformedPackError(f"an object of the unknown kind {kind}")
        if kind in _DELTAS:
            self._bound_one(size)  # the delta itself is held in memory, too
        yield from self._inflate(size, is_delta=kind in _DELTAS)

    def _inflate(self, size: int, *, is_delta: bool) -> Iterator[int]:
        stream, unknown = zlib.decompressobj(), is_delta
        left, head, slack = size, b"", _SLACK
        while not stream.eof:
            # Hardly longer than the object can be, as zlib copies what it does not use.
            window = self._buffer[: min(left + (left >> 9) + slack, _PIECE)]
            slack *= 4
            try:
                piece = stream.decompress(window, min(left + 1, _PIECE))
            except zlib.error as error:
                raise MalformedPackError(f"an object that cannot be inflated ({error})") from None
            used = len(window) - _left_over(stream)
            self._buffer = self._buffer[used:]
            if len(piece) > left:
                raise MalformedPackError("an object longer than it says")
            left -= len(piece)
            if unknown:
                head += piece[: _MAX_DELTA_HEADER - len(head)]
                if (result := _delta_result(head)) is not None:
                    self._count(result)
                    unknown = False
            if not used and not piece:
                yield len(self._buffer) + 1
        if left or unknown:
            raise MalformedPackError("an object shorter than it says")

    def _count(self, size: int) -> None:
        self._bound_one(size)
        self.unpacked += size
        if self.unpacked > self._bounds.unpacked_bytes:
            raise PackTooLargeError("unpacked", self.unpacked, self._bounds.unpacked_bytes)

    def _bound_one(self, size: int) -> None:
        if size > self._bounds.object_bytes:
            raise PackTooLargeError("object", size, self._bounds.object_bytes)


def _size_at(data: memoryview | bytes, *, shift: int) -> tuple[int, int] | None:
    """A size in groups of seven bits, of which the first byte has `shift`, and its length; None: not whole yet."""
    size = bits = 0
    for position in range(len(data)):
        byte = data[position]
        size |= (byte & ((1 << (7 if position else shift)) - 1)) << bits
        bits += 7 if position else shift
        if not byte & 0x80:
            return size, position + 1
        if position + 1 == _MAX_VARINT:
            raise MalformedPackError("a size without end")
    return None


def _left_over(stream: zlib._Decompress) -> int:
    """How much of the last window was not used; at the end of a stream both attributes may hold the same bytes."""
    return len(stream.unused_data if stream.eof else stream.unconsumed_tail)


def _offset_at(data: memoryview) -> int:
    """Length of the distance to a delta's base; 0: not whole yet."""
    for position in range(len(data)):
        if not data[position] & 0x80:
            return position + 1
        if position + 1 == _MAX_OFFSET:
            raise MalformedPackError("a distance without end")
    return 0


def _delta_result(head: bytes) -> int | None:
    """The size that a delta makes, from the first bytes of it: the size of its base, then its own."""
    base = _size_at(head, shift=7)
    result = None if base is None else _size_at(head[base[1] :], shift=7)
    return None if result is None else result[0]
