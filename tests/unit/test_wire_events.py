"""Messages of the events service: closed schema both ways, and reports that always get through."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents_guest.events import (
    MAX_ITEMS,
    MAX_LINE,
    MAX_PATH,
    MAX_TEXT,
    Autosave,
    Autosaved,
    Event,
    Exit,
    Failed,
    Go,
    GuestConfig,
    Identity,
    Ready,
    Running,
    Salvaged,
    Saved,
    Step,
    encode_event,
    parse_event,
)
from coding_agents_guest.records import replace
from coding_agents_guest.wire import WireError

OID = "0123456789abcdef0123456789abcdef01234567"
CONFIG = GuestConfig(
    session="0123456789ab",
    branch="demo/session-1",
    identity=Identity("Ada", "ada@example.org"),
    base=OID,
    command=("sh", "-c", 'echo "hi"'),
    env={"LANG": "C.UTF-8"},
    deny=("*.pem", ".env"),
)
EVENTS = [
    Ready(),
    Step("git remotes", 12),
    Running(),
    Failed("workspace", "no .git"),
    Saved(OID, True, True, ("a.pem",), "left out 1 file"),
    Saved("", False, False),
    Salvaged(OID, OID, False, (".env",), ("a socket was skipped",)),
    Exit(137),
    Go(CONFIG),
    Autosave(True),
    Autosaved(OID, False, "the relay is full"),
]
ANY_TEXT = st.text(st.characters(), max_size=60) | st.text(
    '\0\x01\udcff"é\U0001f600', min_size=400, max_size=3000
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_round_trip(event: Event) -> None:
    line = encode_event(event)
    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    assert parse_event(line) == event
    assert parse_event(line[:-1]) == event


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_the_fields_are_closed(event: Event) -> None:
    values = json.loads(encode_event(event))
    with pytest.raises(WireError):
        parse_event(json.dumps({**values, "more": 1}).encode())
    for key in values:
        with pytest.raises(WireError):
            parse_event(json.dumps({name: value for name, value in values.items() if name != key}).encode())
        for wrong in (None, 1.5, -1, {"x": 1}, [1], "\0", "x" * (MAX_TEXT + 1), 2**60):
            with pytest.raises(WireError):
                parse_event(json.dumps({**values, key: wrong}).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"session": "0123456789AB"},
        {"branch": "-x"},
        {"branch": "a b"},
        {"branch": "a:b"},
        {"branch": "a\n"},
        {"branch": ""},
        {"base": "HEAD"},
        {"mode": "shell"},
        {"env": {"A=B": "x"}},
        {"env": {"A": "x\0"}},
        {"command": ("a\0",)},
        {"command": ("\udcff",)},
        {"command": ("x" * MAX_LINE,)},
        {"message": "x" * (MAX_TEXT + 1)},
        {"identity": Identity("a\0", "b")},
        {"deny": ("x" * (MAX_PATH + 1),)},
    ],
    ids=str,
)
def test_a_config_that_would_be_refused_is_not_sent(change: dict[str, object]) -> None:
    with pytest.raises(WireError):
        encode_event(Go(replace(CONFIG, **change)))  # type: ignore[arg-type]


@given(st.lists(ANY_TEXT, max_size=200).map(tuple), ANY_TEXT)
def test_a_report_is_shortened_and_never_refused(paths: tuple[str, ...], message: str) -> None:
    for report in (Saved("", False, True, paths, message), Salvaged("", "", True, paths, paths)):
        line = encode_event(report)
        assert len(line) <= MAX_LINE
        parsed = parse_event(line)
        assert isinstance(parsed, Saved | Salvaged)
        assert len(parsed.left_out) <= min(len(paths), MAX_ITEMS)
    failed = parse_event(encode_event(Failed("save", message)))
    assert isinstance(failed, Failed)
    assert len(failed.message) <= MAX_TEXT


@pytest.mark.parametrize("path", ["\x01" * 900, "\U0001f600" * 900, "x" * 900])
def test_the_longest_report_fits_into_a_line(path: str) -> None:
    for report in (
        Saved("", False, True, (path,) * 500, path * 9),
        Salvaged("", "", True, (path,) * 500, (path,) * 500),
    ):
        parsed = parse_event(encode_event(report))
        assert isinstance(parsed, Saved | Salvaged)
        assert parsed.left_out
        assert set(parsed.left_out) == {path[:MAX_PATH]}


def test_a_short_report_is_not_changed_and_broken_names_stay_recognisable() -> None:
    report = parse_event(encode_event(Saved("", False, True, ("na\udcefve.pem", "key.pem"), "two")))
    assert report == Saved("", False, True, ("na\\udcefve.pem", "key.pem"), "two")


@given(st.binary(max_size=300))
def test_random_lines_raise_nothing_but_wire_error(line: bytes) -> None:
    with pytest.raises(WireError):
        parse_event(line)


@pytest.mark.parametrize(
    "line", [b'{"type":["ready"]}', b'{"type":"stop"}', b"{}", b'{"type":"ready"}' + b" " * MAX_LINE]
)
def test_unknown_and_oversized_lines_are_refused(line: bytes) -> None:
    with pytest.raises(WireError):
        parse_event(line)
