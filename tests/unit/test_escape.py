"""Hostile text and streams: what reaches the user's terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.terminal.escape import StreamEscaper, escape, safe_sgr
from coding_agents.terminal.table import render_table, width

# What attackers send, glued together at random with text; chunk borders fall anywhere within.
_PIECES = [
    b"plain",
    "häß 漢字 😀".encode(),
    b"\n",
    b"\r",
    b"\r\n",
    b"\t",
    b"\x1b[31m",
    b"\x1b[0m",
    b"\x1b[8m",
    b"\x1b[2J",
    b"\x1b[6n",
    b"\x1b]52;c;aGk=\x07",
    b"\x1b]0;title\x1b\\",
    b"\x1b]8;;x",
    b"\x1bP+q\x1b\\",
    b"\x1b_G\x1b\\",
    b"\x1bc",
    b"\x1b(0",
    b"\x1b",
    b"\x1b[",
    b"\x1b]",
    b"\xc2\x9b31m",
    b"\x9b",
    b"\xff",
    b"\xe2\x80\xae",
    b"\xe2\x80",
    b"\x00",
    b"\x07",
    b"\x08",
    b"\x7f",
    b"\xf0\x9f",
    b"\xe2\x80\xa8",
    b"\x1b[38;5;8m",
    b"\x1b[" + b"9" * 80 + b"m",
]
_STREAMS = st.lists(st.one_of(st.sampled_from(_PIECES), st.binary(max_size=6)), max_size=12).map(b"".join)
_SGR = re.compile(r"\x1b\[[0-9;]*m")


def _run(data: bytes, *, colours: bool) -> bytes:
    escaper = StreamEscaper(colours=colours)
    return escaper.feed(data) + escaper.finish()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ümläut, 漢字, 😀", "plain text, ümläut, 漢字, 😀"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nb\tc\rd", "a\\x0ab\\x09c\\x0dd"),
        ("\x9b31m", "\\x9b31m"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("a\u200bb\u2060\ufeff", "a\\u200bb\\u2060\\ufeff"),
        ("a\u2028b\u2029", "a\\u2028b\\u2029"),
        ("\udcff\ud800", "\\xff\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("a\u3164b\u034f", "a\\u3164b\\u034f"),
        ("a\ufe0f", "a\\ufe0f"),
        ("\x7f\x00", "\\x7f\\x00"),
    ],
)
def test_escape_shows_what_would_hide_or_move(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(st.text(alphabet=st.characters(codec=None)))
def test_escaped_text_is_one_printable_line_and_stable(text: str) -> None:
    shown = escape(text)
    assert shown.isprintable()
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert escape(shown) == shown


@given(_STREAMS, st.booleans(), st.data())
def test_a_stream_does_not_depend_on_its_chunks(data: bytes, colours: bool, draw: st.DataObject) -> None:
    escaper = StreamEscaper(colours=colours)
    out = b""
    rest = data
    while rest:
        size = draw.draw(st.integers(1, len(rest)))
        out += escaper.feed(rest[:size])
        rest = rest[size:]
    assert out + escaper.finish() == _run(data, colours=colours)


@given(_STREAMS)
def test_a_stream_without_colours_is_printable_lines(data: bytes) -> None:
    out = _run(data, colours=False).decode("utf-8")
    assert out.replace("\n", "").replace("\t", "").isprintable()


@given(_STREAMS)
def test_a_stream_with_colours_holds_no_other_sequence_and_ends_plain(data: bytes) -> None:
    out = _run(data, colours=True).decode("utf-8")
    assert _SGR.sub("", out).replace("\n", "").replace("\t", "").isprintable()
    sequences = _SGR.findall(out)
    assert not sequences or sequences[-1] in ("\x1b[0m", "\x1b[m")
    assert all(safe_sgr(sequence[2:-1]) == sequence[2:-1] for sequence in sequences)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\x1b]52;c;aGVsbG8=\x07after", b"after"),
        (b"\x1b]52;c;aGVsbG8=\x1b\\after", b"after"),
        (b'\x1bP$q"p\x1b\\after', b"after"),
        (b"\x1b[6nafter", b"after"),
        (b"\x1b[2J\x1b[Hafter", b"after"),
        (b"\x1bcafter", b"after"),
        (b"\x1b(0after", b"after"),
        (b"\xc2\x9b2Jafter", b"\\x9b2Jafter"),
        (b"real line\rforged", b"real line\nforged"),
        (b"one\r\ntwo\r\r\n", b"one\ntwo\n\n"),
        (b"a\x08b\x00", b"a\\x08b\\x00"),
        (b"\xe2\x80\xaeevil", b"\\u202eevil"),
        (b"\xff\xfe", b"\\xff\\xfe"),
        (b"\x1b]0;never ended\nnext line", b"\nnext line"),
        (b"\x1b[31mred\x1b[0m", b"red"),
    ],
)
def test_what_is_dropped_and_what_is_shown(data: bytes, shown: bytes) -> None:
    assert _run(data, colours=False) == shown


def test_an_endless_string_cannot_swallow_the_rest_of_the_output() -> None:
    out = _run(b"\x1b]" + b"x" * 10_000 + b"\nseen\n", colours=False)
    assert out.endswith(b"\nseen\n")
    assert 5000 < len(out) < 10_000


def test_colours_are_kept_on_a_terminal_and_closed_at_the_end() -> None:
    assert _run(b"\x1b[1;31mred", colours=True) == b"\x1b[1;31mred\x1b[0m"
    assert _run(b"\x1b[31mred\x1b[0m.", colours=True) == b"\x1b[31mred\x1b[0m."


@pytest.mark.parametrize(
    ("parameters", "kept"),
    [
        ("", "0"),
        ("0", "0"),
        ("8", None),
        ("5;31", "31"),
        ("38;5;8", "38;5;8"),
        ("38:2:1:2:3", "38;2;1;2;3"),
        ("38;5;300", None),
        ("38;5", None),
        ("38", None),
        ("?25", None),
        ("1;8;4", "1;4"),
        ("97;107", "97;107"),
        ("48;2;1;2;3;8", "48;2;1;2;3"),
        (">4;2", None),
    ],
)
def test_safe_sgr(parameters: str, kept: str | None) -> None:
    assert safe_sgr(parameters) == kept


def test_a_table_is_aligned_and_its_cells_cannot_break_it() -> None:
    table = render_table(("NAME", "STATE"), [("漢字", "running"), ("a\nb\x1b", "")])
    assert table == "NAME        STATE\n漢字        running\na\\x0ab\\x1b\n"


def test_a_table_refuses_ragged_rows() -> None:
    with pytest.raises(ValueError, match="cell for each header"):
        render_table(("A", "B"), [("only one",)])


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("漢字", 4), ("é", 1), ("e\u0301", 1), ("", 0)])
def test_width(text: str, columns: int) -> None:
    assert width(text) == columns
