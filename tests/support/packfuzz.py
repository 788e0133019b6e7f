"""Packs of every shape that gitformat-pack(5) allows, and damaged ones, as hypothesis strategies.

Built byte by byte, not by git: deltas of both kinds, thin ones, odd deflate streams, sizes of more bytes than needed.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

from hypothesis import strategies as st

from support.gitattack import BLOB, COMMIT, KINDS, REF_DELTA, TREE, sealed

OFS_DELTA, TAG = 6, 4
TRAILER = 20
OUTSIDE = b"what the receiver has already\n" * 40
"""A blob that thin packs may build upon."""
_NAMES = {**KINDS, TAG: b"tag"}


@dataclass(frozen=True)
class MadePack:
    """`sizes` are those of the objects as unpacked, `deltas` those of the deltas themselves; in the pack's order."""

    data: bytes
    sizes: tuple[int, ...]
    deltas: tuple[int, ...]


@dataclass(frozen=True)
class _Object:
    offset: int
    content: bytes
    oid: bytes
    kind: int


def oid_of(kind: int, content: bytes) -> bytes:
    return hashlib.sha1(_NAMES[kind] + b" %d\0" % len(content) + content).digest()


_contents = st.one_of(
    st.binary(max_size=60),
    st.just(b""),
    st.builds(lambda byte, size: byte * size, st.binary(min_size=1, max_size=3), st.integers(0, 200_000)),
    st.builds(lambda seed, size: _noise(seed, size), st.integers(0, 99), st.integers(0, 20_000)),
)


@st.composite
def packs(draw: st.DrawFn, most: int = 6) -> MadePack:
    """A pack that git takes (its trees and commits are random bytes: whether they are sound is fsck's question)."""
    entries = b""
    made: list[_Object] = []
    deltas = []
    outside = _Object(0, OUTSIDE, oid_of(BLOB, OUTSIDE), BLOB)
    for _ in range(draw(st.integers(0, most))):
        offset = 12 + len(entries)
        if is_delta := draw(st.booleans()) and draw(st.booleans()):
            base = draw(st.sampled_from([*made, outside]))
            body, content = draw(_delta(base.content))
            entry = draw(_delta_entry(base, offset, len(body)))
            kind = base.kind
        else:
            kind, body = draw(st.sampled_from([COMMIT, TREE, BLOB, TAG])), draw(_contents)
            entry, content = draw(_header(kind, len(body))), body
        oid = oid_of(kind, content)
        # Of a delta whose base is there twice index-pack says now this and now that: its threads race for it.
        if oid in {one.oid for one in (*made, outside)}:
            continue
        entries += entry + draw(_deflated(body))
        made.append(_Object(offset, content, oid, kind))
        deltas += [len(body)] if is_delta else []
    return MadePack(sealed(entries, len(made)), tuple(len(one.content) for one in made), tuple(deltas))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A pack with some bytes changed, lost, doubled or exchanged, mostly with a sum at its end that fits again."""
    data = bytearray(draw(packs()).data[:-TRAILER])
    for _ in range(draw(st.integers(1, 3))):
        here = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 40))
        match draw(st.sampled_from(("flip", "set", "cut", "double", "exchange", "insert", "count"))):
            case "flip" if data:
                data[here] ^= 1 << draw(st.integers(0, 7))
            case "set" if data:
                data[here] = draw(st.integers(0, 255))
            case "cut":
                del data[here : here + length]
            case "double":
                data[here:here] = data[here : here + length]
            case "exchange":
                data[here : here + 2 * length] = (
                    data[here + length : here + 2 * length] + data[here : here + length]
                )
            case "insert":
                data[here:here] = draw(st.binary(min_size=1, max_size=8))
            case "count":
                data[8:12] = draw(st.sampled_from((0, 1, 2, 7, 2**31, 2**32 - 1))).to_bytes(4, "big")
    body = bytes(data)
    return body + (hashlib.sha1(body).digest() if draw(st.integers(0, 3)) else bytes(TRAILER))


@st.composite
def lying(draw: st.DrawFn) -> bytes:
    """A pack of one object or delta that is of another size than it says."""
    delta = draw(st.booleans())
    body = draw(_delta(OUTSIDE))[0] if delta else draw(_contents)
    said = max(0, len(body) + draw(st.sampled_from((-1000, -2, -1, 1, 2, 100, 100_000))))
    if said == len(body):
        said += 1
    entry = draw(_header(REF_DELTA if delta else BLOB, said)) + (oid_of(BLOB, OUTSIDE) if delta else b"")
    return sealed(entry + draw(_deflated(body)), 1)


@st.composite
def _header(draw: st.DrawFn, kind: int, size: int) -> bytes:
    """Kind and size; git takes a size with more groups than it needs."""
    out = bytearray([(kind << 4) | (size & 15)])
    size >>= 4
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 5))) + (size.bit_length() + 6) // 7):
        out[-1] |= 0x80
        out.append(size & 0x7F)
        size >>= 7
    return bytes(out[:9])


@st.composite
def _delta_entry(draw: st.DrawFn, base: _Object, offset: int, size: int) -> bytes:
    if base.offset and draw(st.booleans()):
        return draw(_header(OFS_DELTA, size)) + _distance(offset - base.offset)
    return draw(_header(REF_DELTA, size)) + base.oid


@st.composite
def _delta(draw: st.DrawFn, base: bytes) -> tuple[bytes, bytes]:
    """The bytes of a delta, and what it makes of `base`."""
    steps, result = b"", b""
    for _ in range(draw(st.integers(1, 6))):
        if base and draw(st.booleans()):
            start = draw(st.integers(0, len(base) - 1))
            length = draw(st.integers(1, min(len(base) - start, 0xFFFF)))
            steps += b"\xff" + start.to_bytes(4, "little") + length.to_bytes(3, "little")
            result += base[start : start + length]
        else:
            text = draw(st.binary(min_size=1, max_size=127))
            steps += bytes([len(text)]) + text
            result += text
    return _varint(len(base)) + _varint(len(result)) + steps, result


@st.composite
def _deflated(draw: st.DrawFn, body: bytes) -> bytes:
    """`body` as one zlib stream of any level, strategy and window, with empty and flushed blocks anywhere."""
    strategy = draw(st.sampled_from((zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_FIXED)))
    stream = zlib.compressobj(draw(st.integers(0, 9)), zlib.DEFLATED, draw(st.integers(9, 15)), 8, strategy)
    out, rest = b"", body
    for _ in range(draw(st.sampled_from((0, 0, 1, 5, 60)))):
        cut = draw(st.integers(0, len(rest)))
        out += stream.compress(rest[:cut])
        out += stream.flush(draw(st.sampled_from((zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH))))
        rest = rest[cut:]
    return out + stream.compress(rest) + stream.flush()


def _distance(offset: int) -> bytes:
    """How far back the base of an OFS_DELTA is, as gitformat-pack(5) has it."""
    out = [offset & 0x7F]
    while offset := offset >> 7:
        offset -= 1
        out.append(offset & 0x7F | 0x80)
    return bytes(reversed(out))


def _varint(size: int) -> bytes:
    out = bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*out, size])


def _noise(seed: int, size: int) -> bytes:
    return hashlib.shake_128(bytes([seed])).digest(size)
