"""The push parser: independent of chunking, bounded, and total on hostile bytes."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.gitsync.pktline import (
    FLUSH,
    MAX_COMMANDS,
    MAX_SECTION,
    CommandReader,
    PktlineError,
    PushCommands,
    error_packet,
    keepalive,
    pkt,
    progress,
    refusal_report,
    report,
)
from coding_agents.gitsync.service_request import RequestReader, Service

A, B, NULL = "a" * 40, "b" * 40, "0" * 40
REF = "refs/heads/demo/x"
CAPS = "report-status side-band-64k agent=git/2.39"


def line(old: str = A, new: str = B, ref: str = REF, caps: str | None = None) -> bytes:
    return pkt(f"{old} {new} {ref}".encode() + (b"\0" + caps.encode() if caps is not None else b"\n"))


SECTION = (
    pkt(b"shallow " + b"c" * 40)
    + line(caps=CAPS)
    + line(old=NULL, ref="refs/heads/new")
    + line(new=NULL, ref="refs/heads/gone")
    + FLUSH
)


def read(data: bytes) -> PushCommands | None:
    return CommandReader().feed(data)


def read_in_pieces(data: bytes, cuts: list[int]) -> PushCommands | None:
    reader = CommandReader()
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in pairwise(edges):
        if result := reader.feed(data[start:end]):
            return PushCommands(result.updates, result.capabilities, result.raw, result.rest + data[end:])
    return None


def test_a_section_is_parsed_and_kept_for_forwarding() -> None:
    commands = read(SECTION + b"PACK...")
    assert commands is not None
    assert [(u.old, u.new, u.ref) for u in commands.updates] == [
        (A, B, REF), (None, B, "refs/heads/new"), (A, None, "refs/heads/gone"),
    ]  # fmt: skip
    assert commands.capabilities == frozenset(CAPS.split())
    assert commands.raw == SECTION
    assert commands.rest == b"PACK..."


@given(st.lists(st.integers(0, len(SECTION) + 7), max_size=12))
def test_chunking_does_not_matter(cuts: list[int]) -> None:
    data = SECTION + b"PACK..."
    assert read_in_pieces(data, cuts) == read(data)


def test_a_client_with_nothing_to_push() -> None:
    commands = read(FLUSH)
    assert commands is not None
    assert commands.updates == ()


@pytest.mark.parametrize(
    "data",
    [
        b"0001", b"0002", b"0003", b"zzzz", b"fff1", b"+004", b" 004", b"0x10",
        pkt(b""),
        pkt(b"hello"),
        line(),  # no capabilities on the first command
        line(caps=CAPS) + line(caps=CAPS),
        line(caps="report-status push-options"),
        line(caps="caf\u00e9"),
        line(old="a" * 39, caps=CAPS),
        line(old="A" * 40, caps=CAPS),
        line(old="a" * 64, caps=CAPS),  # lengths differ
        line(ref="", caps=CAPS),
        pkt(f"{A} {B} a\nb".encode() + b"\0"),
        pkt(b"push-cert\0report-status"),
        pkt(b"push-cert-end"),
        pkt(b"shallow xyz"),
        line(caps=CAPS) + b"".join(line(ref=f"refs/heads/{n}") for n in range(MAX_COMMANDS)),
        pkt(b"shallow " + b"c" * 40) * (MAX_SECTION // 52 + 1),
    ],
)  # fmt: skip
def test_anything_else_is_an_error(data: bytes) -> None:
    with pytest.raises(PktlineError):
        read(data)


def test_an_oversized_section_is_noticed_before_it_is_complete() -> None:
    reader = CommandReader()
    reader.feed(pkt(b"shallow " + b"c" * 40) * (MAX_SECTION // 52))
    with pytest.raises(PktlineError):
        reader.feed(b"fff0")


@given(
    st.binary(max_size=200)
    | st.builds(lambda a, b: SECTION[:a] + b + SECTION[a:], st.integers(0, 300), st.binary(max_size=4))
)
def test_hostile_bytes_raise_only_our_error(data: bytes) -> None:
    try:
        commands = read(data)
    except PktlineError:
        return
    if commands is not None:
        assert commands.raw + commands.rest == data or commands.raw.lower() + commands.rest == data.lower()


def test_undecodable_ref_names_survive_to_the_report() -> None:
    commands = read(pkt(f"{A} {B} refs/heads/".encode() + b"\xff\0report-status") + FLUSH)
    assert commands is not None
    assert b"ng refs/heads/\xff no\n" in refusal_report(commands, ["no"])


def test_a_plain_report() -> None:
    commands = read(line(caps="report-status") + FLUSH)
    assert commands is not None
    assert refusal_report(commands, ["because\nof this"]) == (
        pkt(b"unpack ok\n") + pkt(b"ng refs/heads/demo/x because of this\n") + FLUSH
    )


def test_a_report_in_the_side_band_is_cut_to_packets() -> None:
    updates = b"".join(line(ref=f"refs/heads/{'x' * 800}{n}") for n in range(60))
    commands = read(line(caps=CAPS) + updates + FLUSH)
    assert commands is not None
    report = refusal_report(commands, ["r" * 600] * 61)
    bands, rest = b"", report
    while rest != FLUSH:
        size = int(rest[:4], 16)
        assert 5 < size <= 65520
        assert rest[4] == 1
        bands, rest = bands + rest[5:size], rest[size:]
    assert bands.startswith(pkt(b"unpack ok\n"))
    assert bands.endswith(FLUSH)
    assert bands.count(b"ng refs/heads/") == 61


def test_a_client_that_wants_no_report_gets_none() -> None:
    commands = read(line(caps="ofs-delta") + FLUSH)
    assert commands is not None
    assert refusal_report(commands, ["no"]) == b""


OPTED = line(caps=f"{CAPS} push-options") + FLUSH + pkt(b"merge_request.create") + pkt(b"x=\xff\n") + FLUSH


@given(st.lists(st.integers(0, len(OPTED) + 7), max_size=12))
def test_push_options_are_a_section_of_their_own(cuts: list[int]) -> None:
    reader = CommandReader(options=True)
    edges = sorted({min(cut, len(OPTED)) for cut in cuts} | {0, len(OPTED)})
    found = [reader.feed(OPTED[start:end]) for start, end in pairwise(edges)]
    assert found[:-1] == [None] * (len(found) - 1)
    assert found[-1] is not None
    assert (found[-1].options, found[-1].raw) == (("merge_request.create", "x=\udcff"), OPTED)


def test_push_options_are_few() -> None:
    data = line(caps=f"{CAPS} push-options") + FLUSH + pkt(b"x") * 17 + FLUSH
    with pytest.raises(PktlineError, match="more than 16 options"):
        CommandReader(options=True).feed(data)


def test_what_was_done_and_what_is_said_meanwhile() -> None:
    commands = read(line(caps=CAPS) + FLUSH)
    plain = read(line(caps="report-status") + FLUSH)
    assert commands is not None
    assert plain is not None
    assert report(plain, [""]) == pkt(b"unpack ok\n") + pkt(b"ok refs/heads/demo/x\n") + FLUSH
    assert progress(commands, "wait\n") == pkt(b"\x02wait\n")
    assert (progress(plain, "wait\n"), keepalive(plain)) == (b"", b"")
    assert [packet[4] for packet in (keepalive(commands),)] == [1]


def test_an_error_packet_is_one_line() -> None:
    assert error_packet("a\n b") == pkt(b"ERR a b")


@pytest.mark.parametrize("version", [b"", b"\0version=1\0", b"\0version=2\0"])
@pytest.mark.parametrize("service", list(Service))
def test_the_two_services(service: Service, version: bytes) -> None:
    request = RequestReader().feed(
        pkt(service.value.encode() + b" /workspace\0host=coding-agents\0" + version) + b"more"
    )
    assert request is not None
    assert (request.service, request.rest) == (service, b"more")


@pytest.mark.parametrize("place", ["workspace", "origin", "origin/1", "origin/16"])
def test_the_places(place: str) -> None:
    request = RequestReader().feed(pkt(f"git-upload-pack /{place}\0host=coding-agents\0".encode()))
    assert request is not None
    assert request.place == place


def test_a_request_may_come_byte_by_byte() -> None:
    reader = RequestReader()
    data = pkt(b"git-upload-pack /workspace\0host=coding-agents\0")
    assert [reader.feed(bytes([byte])) for byte in data[:-1]] == [None] * (len(data) - 1)
    assert reader.feed(data[-1:]) is not None


@pytest.mark.parametrize(
    "line",
    [
        b"", b"git-upload-pack /workspace", b"git-upload-archive /workspace\0host=coding-agents\0",
        b"git-upload-pack /workspace/\0host=coding-agents\0", b"git-upload-pack /workspace\0host=other\0",
        b"git-upload-pack /workspace\0host=coding-agents\0\0version=3\0",
        b"git-upload-pack /workspace\0host=coding-agents\0\0version=2\0x=1\0",
        b"git-upload-pack /workspace\0host=coding-agents\0\n",
        b"git-upload-pack /origin/\0host=coding-agents\0", b"git-upload-pack /origin/0\0host=coding-agents\0",
        b"git-upload-pack /origin/100\0host=coding-agents\0", b"git-upload-pack /origin/1/\0host=coding-agents\0",
        b"git-upload-pack /origin/x\0host=coding-agents\0", b"git-upload-pack /origin2\0host=coding-agents\0",
        b"git-upload-pack /../origin\0host=coding-agents\0",
    ],
)  # fmt: skip
def test_a_near_miss_is_no_request(line: bytes) -> None:
    with pytest.raises(PktlineError):
        RequestReader().feed(pkt(line))


@given(st.binary(max_size=300))
def test_no_other_request_is_served(data: bytes) -> None:
    with suppress(PktlineError):
        assert RequestReader().feed(data) is None


SERVED = {
    f"{service.value} /workspace\0host=coding-agents\0{version}".encode(): service
    for service in Service
    for version in ("", "\0version=1\0", "\0version=2\0")
}


@given(
    st.sampled_from(sorted(SERVED)),
    st.lists(
        st.tuples(
            st.integers(0, 70) | st.sampled_from((15, 18, 26, 29, 45, 46, 48, 49)),  # where its words end
            st.integers(0, 2),
            st.binary(max_size=3) | st.just(b""),
        ),
        max_size=2,
    ),
    st.lists(st.integers(0, 80), max_size=5),
)
def test_a_changed_request_is_served_just_if_it_is_one_again(
    line: bytes, changes: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    for here, lost, found in changes:
        line = line[:here] + found + line[here + lost :]
    data = pkt(line) + b"more"
    reader, rest, request = RequestReader(), b"", None
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    try:
        for start, end in pairwise(edges):
            if request := reader.feed(data[start:end]):
                rest = request.rest + data[end:]
                break
    except PktlineError:
        assert line not in SERVED
        return
    assert request is not None
    assert (request.service, rest) == (SERVED[line], b"more")
