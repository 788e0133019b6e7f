"""The pack scanner: exact on what is a pack, early on what is too large, bounded on what is hostile."""

from __future__ import annotations

import time
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.gitsync.pack_scan import MalformedPackError, PackBounds, PackScanner, PackTooLargeError
from support.gitattack import BLOB, COMMIT, REF_DELTA, TREE, entry_header, pack_of, sealed

MIB = 1 << 20
BOUNDS = PackBounds(object_bytes=100 * MIB, unpacked_bytes=200 * MIB, objects=1000)
OFS_DELTA = 6


def scan(data: bytes, *, piece: int = 1 << 16, bounds: PackBounds = BOUNDS) -> PackScanner:
    scanner = PackScanner(bounds, hash_bytes=20)
    for start in range(0, len(data), piece):
        scanner.feed(data[start : start + piece])
    return scanner


def varint(size: int) -> bytes:
    out = bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*out, size])


def delta(result: int, *, base: int = 10) -> bytes:
    """A delta that says that it makes `result` bytes by copying the same few again and again."""
    return varint(base) + varint(result) + b"\x90\x0a" * 20


def ref_delta(result: int) -> bytes:
    body = delta(result)
    return entry_header(REF_DELTA, len(body)) + b"\1" * 20 + zlib.compress(body)


@given(
    st.lists(st.tuples(st.sampled_from([COMMIT, TREE, BLOB]), st.binary(max_size=300)), max_size=8),
    st.integers(1, 200),
)
def test_the_sum_is_that_of_the_sizes_however_the_bytes_are_cut(
    objects: list[tuple[int, bytes]], piece: int
) -> None:
    scanner = scan(pack_of(objects), piece=piece)
    assert scanner.complete
    assert scanner.unpacked == sum(len(content) for _, content in objects)


@given(st.binary(max_size=400), st.integers(1, 50))
def test_whatever_comes_ends_in_one_of_our_errors_or_waits(data: bytes, piece: int) -> None:
    for prefix in (b"", b"PACK\0\0\0\2\0\0\0\5"):
        try:
            scanner = scan(prefix + data, piece=piece)
        except (MalformedPackError, PackTooLargeError):
            continue
        assert not scanner.complete or prefix + data == b""


@given(st.data())
def test_a_changed_byte_never_hides_an_object(data: st.DataObject) -> None:
    """A pack whose bytes are changed is read as another pack, refused, or waited for: never as a larger one."""
    pack = bytearray(pack_of([(BLOB, b"a" * 500), (TREE, b"b" * 20), (BLOB, b"c" * 90)]))
    pack[data.draw(st.integers(0, len(pack) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        scanner = scan(bytes(pack))
    except (MalformedPackError, PackTooLargeError):
        return
    assert scanner.unpacked <= BOUNDS.unpacked_bytes


def test_a_bomb_is_known_by_its_first_bytes() -> None:
    header = b"PACK\0\0\0\2\0\0\0\1" + entry_header(BLOB, 2 << 30)
    with pytest.raises(PackTooLargeError) as caught:
        scan(header)
    assert (caught.value.what, caught.value.size, caught.value.limit) == ("object", 2 << 30, 100 * MIB)


def test_a_delta_counts_by_its_result() -> None:
    assert scan(sealed(ref_delta(5 * MIB) + ref_delta(7 * MIB), 2)).unpacked == 12 * MIB
    with pytest.raises(PackTooLargeError) as caught:
        scan(sealed(ref_delta(2 << 30), 1))
    assert (caught.value.what, caught.value.size) == ("object", 2 << 30)
    body = delta(101 * MIB)
    ofs = entry_header(OFS_DELTA, len(body)) + b"\x05" + zlib.compress(body)
    with pytest.raises(PackTooLargeError):
        scan(sealed(ofs, 1))


def test_a_delta_that_is_itself_too_long_is_refused_before_it_comes() -> None:
    with pytest.raises(PackTooLargeError):
        scan(b"PACK\0\0\0\2\0\0\0\1" + entry_header(REF_DELTA, 101 * MIB) + b"\1" * 20)


def test_many_that_are_small_enough_are_too_much_together() -> None:
    with pytest.raises(PackTooLargeError) as caught:
        scan(sealed(ref_delta(70 * MIB) * 3, 3))
    assert (caught.value.what, caught.value.size) == ("unpacked", 210 * MIB)


def test_four_billion_objects_are_refused_by_their_number() -> None:
    with pytest.raises(PackTooLargeError) as caught:
        scan(sealed(b"", 2**32 - 1))
    assert (caught.value.what, caught.value.size) == ("count", 2**32 - 1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (entry_header(BLOB, 3) + zlib.compress(b"four"), "longer than it says"),
        (entry_header(BLOB, 5) + zlib.compress(b"four"), "shorter than it says"),
        (entry_header(BLOB, 0) + zlib.compress(b"x" * 10 * MIB), "longer than it says"),
        (entry_header(BLOB, 4) + b"no zlib at all", "cannot be inflated"),
        (entry_header(BLOB, 4) + zlib.compress(b"four")[:-1] + b"\0", "cannot be inflated"),
        (entry_header(0, 4) + zlib.compress(b"four"), "unknown kind 0"),
        (entry_header(5, 4) + zlib.compress(b"four"), "unknown kind 5"),
        (b"\xb0" + b"\x80" * 40, "a size without end"),
        (entry_header(OFS_DELTA, 4) + b"\x80" * 40, "a distance without end"),
        (entry_header(REF_DELTA, 2) + b"\1" * 20 + zlib.compress(b"\x80\x80"), "shorter than it says"),
    ],
)
def test_what_is_no_object_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(MalformedPackError, match=reason):
        scan(sealed(body, 1))


def test_nothing_may_follow_the_pack() -> None:
    pack = pack_of([(BLOB, b"x")])
    assert scan(pack).complete
    for piece in (1, 1 << 16):
        with pytest.raises(MalformedPackError, match="after the end"):
            scan(pack + b"y", piece=piece)


def test_inflating_holds_no_more_than_a_piece() -> None:
    pack = pack_of([(BLOB, bytes(90 * MIB))])
    tracemalloc.start()
    try:
        scanner = scan(pack)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert scanner.unpacked == 90 * MIB
    assert most < 4 * MIB


def test_empty_blocks_without_end_cost_no_more_than_they_weigh() -> None:
    """Deflate blocks that hold nothing: four megabytes of them for an object of four bytes."""
    empty = b"\0\0\0\xff\xff" * (4 * MIB // 5)
    began = time.process_time()
    scanner = scan(b"PACK\0\0\0\2\0\0\0\1" + entry_header(BLOB, 4) + b"\x78\x9c" + empty)
    assert not scanner.complete
    assert time.process_time() - began < 2.0
