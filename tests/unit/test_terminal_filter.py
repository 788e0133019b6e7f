"""What a guest can do to the terminal of whoever is attached to it: judged by a model terminal of the tests' own."""

from __future__ import annotations

import ast
import json
import re
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coding_agents.terminal.filter import TerminalFilter
from support.product import ROOT
from support.vt import ModelTerminal

ESC = b"\x1b"
GOOD = (
    b"plain text", "häß 漢字 😀 👩\u200d💻".encode(), b"\r\n", b"\t", b"\b", b"\a", b"\x1b[m", b"\x1b[31m",
    b"\x1b[1;38;5;208;48;2;1;2;3m", b"\x1b[4:3m", b"\x1b[58:2::1:2:3m", b"\x1b[H", b"\x1b[12;40H",
    b"\x1b[999;999f", b"\x1b[3A", b"\x1b[B", b"\x1b[2C", b"\x1b[D", b"\x1b[E", b"\x1b[F", b"\x1b[5G",
    b"\x1b[7d", b"\x1b[J", b"\x1b[2J", b"\x1b[K", b"\x1b[1K", b"\x1b[2X", b"\x1b[3@", b"\x1b[P", b"\x1b[L",
    b"\x1b[M", b"\x1b[2S", b"\x1b[T", b"\x1b[5b", b"\x1b[2;10r", b"\x1b[r", b"\x1b[s", b"\x1b[u", b"\x1b[!p",
    b"\x1b[4h", b"\x1b[4l", b"\x1b[5 q", b"\x1b[ q", b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?47h",
    b"\x1b[?25l", b"\x1b[?25h", b"\x1b[?1000h", b"\x1b[?1002;1006h", b"\x1b[?1003h", b"\x1b[?1004h",
    b"\x1b[?2004h", b"\x1b[?2026h", b"\x1b[?2026l", b"\x1b[?1h", b"\x1b[?7l", b"\x1b=", b"\x1b>", b"\x1b7",
    b"\x1b8", b"\x1bD", b"\x1bE", b"\x1bM", b"\x1b(B", b"\x1b(0", b"\x1b)0", b"\x0e", b"\x0f",
)  # fmt: skip
TITLES_AND_LINKS = (
    b"\x1b]0;title\a", b"\x1b]2;title\x1b\\", b"\x1b]8;;https://example.com/a?b=c#d\a", b"\x1b]8;;\a",
    b"\x1b]8;id=x1;http://[::1]:80/\x1b\\",
)  # fmt: skip
BAD = (
    b"\x1b]52;c;aGk=\a", b"\x1b]52;c;?\x1b\\", b"\x1b]4;1;?\a", b"\x1b]10;?\a", b"\x1b]11;?\x1b\\",
    b"\x1b]104\a", b"\x1b]7;file:///x\a", b"\x1b]9;notify\a", b"\x1b]777;notify;a;b\a",
    b"\x1b]1337;File=:eA==\a", b"\x1b]133;A\a", b"\x1b]P0ff0000", b"\x1b]R", b"\x1b]L\a", b"\x1b]l\a",
    b"\x1b]\a", b"\x1b]0\a", b"\x1bP$qm\x1b\\", b"\x1bPq#0;2;0;0;0~\x1b\\", b"\x1bP+q544e\x1b\\",
    b"\x1bPtmux;\x1b\x1b]52;c;eA==\a\x1b\\", b"\x1b_Gi=1,a=q;AAAA\x1b\\", b"\x1b^private\x1b\\",
    b"\x1bXsos\x1b\\", b"\x1bktitle\x1b\\", b"\x1b[c", b"\x1b[0c", b"\x1b[>c", b"\x1b[=c", b"\x1b[5n",
    b"\x1b[6n", b"\x1b[?6n", b"\x1b[?996n", b"\x1b[>q", b"\x1b[?25$p", b"\x1b[4$p", b"\x1b[14t", b"\x1b[18t",
    b"\x1b[21t", b"\x1b[8;50;200t", b"\x1b[22;0;0t", b"\x1b[3;0;0t", b"\x1b[?u", b"\x1b[>1u", b"\x1b[=31;1u",
    b"\x1b[<u", b"\x1b[>4;2m", b"\x1b[?4m", b"\x1b[>4n", b"\x1b[?m", b"\x1b[3J", b"\x1b[22J", b"\x1b[?2J",
    b"\x1bc", b"\x1bZ", b"\x1b#8", b"\x1b#3", b"\x1b%@", b"\x1b%G", b"\x1b G", b"\x1b F", b"\x1bn", b"\x1bo",
    b"\x1b|", b"\x1b~", b"\x1bN", b"\x1bO", b"\x1bH", b"\x1b[3g", b"\x1b[5i", b"\x1b[?5i", b"\x1b(A",
    b"\x1b*0", b"\x1b[2h", b"\x1b[12h", b"\x1b[20h", b"\x1b[?2h", b"\x1b[?3h", b"\x1b[?5h", b"\x1b[?6h",
    b"\x1b[?8l", b"\x1b[?66h", b"\x1b[?69h", b"\x1b[?1005h", b"\x1b[?1015h", b"\x1b[?1016h", b"\x1b[?1034h",
    b"\x1b[?2031h", b"\x1b[?2048h", b"\x1b[?9h", b"\x1b[?1001h", b"\x1b[?s", b"\x1b[?1049s", b"\x1b[?1049r",
    b"\x1b[2;5s", b"\x1b[1;2;3;4;5T", b"\x1b[x", b"\x1b[0x", b"\x1b[1;1;1;1;1;1*y", b"\x1b[1;1;9;9$z",
    b"\x1b[\"q", b"\x1b[1\"p", b"\x1b[1#{", b"\x1b[[A", b"\x1b[1;2'z", b"\x1b[7 q", b"\x05", b"\x00", b"\x0b",
    b"\x0c", b"\x11", b"\x13", b"\x7f", b"\x18", b"\x1a", b"\xc2\x9b6n", b"\xc2\x9d52;c;eA==\xc2\x9c",
    b"\xc2\x90q\xc2\x9c", b"\x9b6n", b"\x9d52;c;eA==\x9c", b"\xc2\x85", b"\x1b[100000b",
    b"\x1b[" + b"1;" * 40 + b"m", b"\x1b[1:2H", b"\x1b[-1A", b"\x1b[1 A",
)  # fmt: skip
_BROKEN = (
    b"\x1b", b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b_", b"\x1b\\", b"\x1b[?", b"\x1b[6", b"\x1b]52;",
    b"\x1b]8;;", b"\x1b]0;", b"n", b"6n", b"[6n", b"]52;c;eA==\a", b"\\", b";", b"?", b"c", b"\xe2\x80",
    b"\xf0\x9f", b"\xc2", b"\x9b", b"\xff", b"\xed\xa0\x80", b"\xc0\x9b", b"\xe2\x80\xae", b"1" * 300,
    b"x" * 5000,
)  # fmt: skip
_PIECES = st.one_of(
    st.sampled_from((*GOOD, *TITLES_AND_LINKS)),
    st.sampled_from(BAD),
    st.sampled_from(_BROKEN),
    st.binary(max_size=8),
)


@st.composite
def _streams(draw: st.DrawFn) -> bytes:
    """Pieces of what attackers send, some with a byte left out or put in between."""
    stream = bytearray(b"".join(draw(st.lists(_PIECES, max_size=12))))
    for _ in range(draw(st.integers(0, 3)) if stream else 0):
        at = draw(st.integers(0, len(stream) - 1))
        if draw(st.booleans()):
            stream[at : at + 1] = b""
        else:
            stream[at:at] = draw(
                st.sampled_from((ESC, b"\x18", b"\n", b"\x00", b"\xc2", b"\x7f", b"[", b"\\", b"\a"))
            )
        if not stream:
            break
    return bytes(stream)


def _feed(data: bytes) -> bytes:
    return TerminalFilter().feed(data)


def _whole(data: bytes) -> bytes:
    one = TerminalFilter()
    return one.feed(data) + one.finish()


@settings(max_examples=1500)
@given(_streams())
@example(b"\x1b[\x18\x1b]52;c;eA==\a")
@example(b"\x1b\x05]52;c;eA==\a")
@example(b"\x1b\xc2\x9b[6n")
@example(b"\x1bPtmux;\x1b\x1b]0;t\a\x1b\\")
@example(b"\x1b[004h")
def test_no_stream_tells_a_terminal_what_it_must_not_hear(data: bytes) -> None:
    terminal = ModelTerminal().reads(_whole(data))
    assert terminal.offences == []


@settings(max_examples=1500)
@given(_streams())
def test_whatever_was_said_the_terminal_is_given_back_as_it_was(data: bytes) -> None:
    assert ModelTerminal().reads(_whole(data)).left == {}


@settings(max_examples=800)
@given(_streams(), st.data())
def test_a_stream_does_not_depend_on_its_chunks(data: bytes, draw: st.DataObject) -> None:
    one, out, rest = TerminalFilter(), b"", data
    while rest:
        size = draw.draw(st.integers(1, min(len(rest), 9)))
        out += one.feed(rest[:size])
        rest = rest[size:]
    assert out + one.finish() == _whole(data)


@settings(max_examples=800)
@given(_streams())
def test_each_moment_is_between_two_sequences(data: bytes) -> None:
    """Whatever is written in between, by us or by the engine, meets a terminal that reads text."""
    one, terminal = TerminalFilter(), ModelTerminal()
    for byte in data:
        assert terminal.reads(one.feed(bytes([byte]))).offences == []


@settings(max_examples=800)
@given(_streams())
def test_what_has_passed_passes_again(data: bytes) -> None:
    once = _feed(data)
    assert _feed(once) == once


@given(st.lists(st.sampled_from(GOOD), max_size=20).map(b"".join))
def test_what_programs_draw_with_passes_unchanged(data: bytes) -> None:
    assert _feed(data) == data


@pytest.mark.parametrize("data", GOOD)
def test_each_good_piece_passes_unchanged(data: bytes) -> None:
    assert _feed(data) == data
    assert ModelTerminal().reads(data).offences == []


@pytest.mark.parametrize("data", BAD)
def test_each_bad_piece_is_dropped_and_what_stands_around_it_stays(data: bytes) -> None:
    """The model takes each for an offence, so it would see one that came through."""
    raw = data if data.decode("utf-8", "ignore").encode() == data else data.decode("latin-1").encode()
    terminal = ModelTerminal().reads(b"a" + raw + b"\x1b\\z")
    assert terminal.offences
    out = _feed(b"a" + data + b"\x1b\\z")
    assert ModelTerminal().reads(out).offences == []
    assert out.startswith(b"a")
    assert out.endswith(b"z") or data in (b"\x1b]P0ff0000", b"\x1b]R")  # these have no end of their own
    assert ESC not in out


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\x1b]0;user@host: ~\a", b"\x1b[22;0t\x1b]0;user@host: ~\a"),
        (b"\x1b]2;a\x1b\\\x1b]2;b\x1b\\", b"\x1b[22;0t\x1b]2;a\a\x1b]2;b\a"),
        ("\x1b]0;a\u202eb\u200bc\nd\a".encode(), b"\x1b[22;0t\x1b]0;abcd\a"),
        (b"\x1b]0;" + b"x" * 1000 + b"\a", b"\x1b[22;0t\x1b]0;" + b"x" * 200 + b"\a"),
        (b"\x1b]0;" + b"x" * 5000 + b"\a", b""),
        (b"\x1b]1;icon\a", b""),
        (b"\x1b]00;x\a", b""),
    ],
)
def test_titles(data: bytes, shown: bytes) -> None:
    assert _feed(data) == shown


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "http://localhost:3000/a/b?c=d&e=%20#f",
        "https://[::1]:8443/",
        "https://xn--e1awd7f.example/",
        "https://example.com/@user?next=a@b",
        "https://en.wikipedia.org/wiki/A_(b)",
    ],
)
def test_links_of_the_web_pass(url: str) -> None:
    opened = f"\x1b]8;;{url}\x07text".encode()
    assert _feed(opened) == opened
    assert _whole(opened).endswith(b"\x1b]8;;\x07")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "javascript:alert(1)",
        "ssh://host",
        "vscode://x",
        "x-man-page://1/a",
        "http:///path",
        "https:example.com",
        "https://bank.example@evil.example/",
        "https://user:pass@evil.example/",
        "https://evil.example\\@bank.example/",
        "https://bank.example\\.evil.example/",
        "https://exаmple.com/",  # a Cyrillic letter
        "https://example.com/\u202e",
        "https://example.com/a b",
        'https://example.com/"x',
        "https://example.com/`x`",
        "https://example.com:port/",
        "https://example.com/" + "a" * 2048,
    ],
)
def test_other_links_lead_nowhere_and_their_text_stays(url: str) -> None:
    assert _feed(f"\x1b]8;;{url}\x07text\x1b]8;;\x07.".encode()) == b"text."
    before = b"\x1b]8;;https://example.com\x07one"
    assert _feed(before + f"\x1b]8;;{url}\x07two".encode()) == before + b"\x1b]8;;\x07two"


@pytest.mark.parametrize(
    ("parameters", "kept"),
    [
        ("", ""),
        ("id=a-1", "id=a-1"),
        ("x=y:id=b", "id=b"),
        ("id=", ""),
        ("id=a b", ""),
        ("id=" + "x" * 65, ""),
    ],
)
def test_of_a_links_parameters_only_a_plain_id_is_kept(parameters: str, kept: str) -> None:
    data = f"\x1b]8;{parameters};https://example.com\x07"
    assert _feed(data.encode()) == f"\x1b]8;{kept};https://example.com\x07".encode()


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\x1b[?1049;9999;25h", b"\x1b[?1049;25h"),
        (b"\x1b[?2;3h", b""),
        (b"\x1b[?;h", b""),
        (b"\xff\x80a", "\ufffd\ufffda".encode()),
        (b"\xc0\x9b6n", "\ufffd\ufffd6n".encode()),
        (b"\x1b[31", b""),
        (b"\x1b[3\n1m", b"\n1m"),
        (b"\x1b[3\x1b[1mx", b"\x1b[1mx"),
        (b"a\x1b\xc3\xa4", "aä".encode()),
        (b"\x1bPq" + b"\n" * 3 + b"\x07~\x1b\\after", b"after"),
        (b"\x1b]52;c;never ended\x1b[1mafter", b"\x1b[1mafter"),
        (b"\x1bPnever ended\x18after", b"after"),
        (b"\x1b]52;c;eA==\xc2\x9cafter", b"after"),
    ],
)
def test_what_becomes_of_what_is_broken(data: bytes, shown: bytes) -> None:
    assert _feed(data) == shown


def test_an_ordinary_end_leaves_nothing_to_undo() -> None:
    one = TerminalFilter()
    one.feed(b"text only\r\n")
    assert one.finish() == b""


def test_a_screen_that_was_left_in_another_way_is_not_left_twice() -> None:
    """That would move the cursor to where it was before, over what has been shown since."""
    one = TerminalFilter()
    one.feed(b"\x1b[?47h\x1b[?1049l")
    assert one.finish() == b""


def test_a_full_screen_program_that_dies_leaves_an_ordinary_terminal() -> None:
    one = TerminalFilter()
    one.feed(b"\x1b[?1049h\x1b[?1h\x1b=\x1b[?25l\x1b[?1002h\x1b[?1006h\x1b[?2004h\x1b[2;5r\x1b]0;x\a")
    out = one.finish()
    for piece in (
        b"?1049l",
        b"?1l",
        b"\x1b>",
        b"?25h",
        b"?1002l",
        b"?1006l",
        b"?2004l",
        b"\x1b[r",
        b"\x1b[23;0t",
    ):
        assert piece in out


def test_what_is_held_back_has_a_bound() -> None:
    for endless in (b"\x1b[", b"\x1b]0;", b"\x1bP", b"\x1b(", b"\x1b#"):
        one = TerminalFilter()
        one.feed(endless)
        for _ in range(100):
            one.feed(b" " * 1000)
        assert len(one._body) <= 4096


def test_no_group_of_a_pattern_is_possessive() -> None:
    """Python before 3.11.5, as of Debian 12, takes too much with one: here, the beginning of any sequence."""
    possessive = re.compile(r"\)(?:[*+?]|\{[0-9,]+\})\+|\(\?>")
    assert possessive.search(r"(?:a|bc)*+")
    found = [
        (path.name, text.value)
        for path in (ROOT / "src").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("re.")
        for text in ast.walk(call)
        if isinstance(text, ast.Constant) and isinstance(text.value, str)
        if possessive.search(re.sub(r"\[[^\]]*\]", "x", re.sub(r"\\.", "x", text.value)))
    ]
    assert found == []


def test_the_systems_own_python_filters_in_the_same_way() -> None:
    """The product runs on any Python from 3.11 on, and its `re` has changed since."""
    code = (
        "import json, sys\nsys.path.insert(0, sys.argv[1])\nassert sys.version_info >= (3, 11)\n"
        "from coding_agents.terminal.filter import TerminalFilter as F\n"
        "print(json.dumps([F().feed(bytes(p)).hex() for p in json.load(sys.stdin)]))"
    )
    pieces = [*GOOD, *BAD, b"".join(BAD), *(b"a" + bad + b"z" for bad in BAD)]
    done = subprocess.run(
        ("/usr/bin/python3", "-IS", "-c", code, ROOT / "src"), input=json.dumps([list(one) for one in pieces]),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "AssertionError" in done.stderr:
        pytest.skip("the system's Python is older than what the product runs on")
    assert json.loads(done.stdout) == [TerminalFilter().feed(one).hex() for one in pieces]
