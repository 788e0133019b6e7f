"""What may be a secret, and reading the files that hold them: by tables, and with whatever hypothesis thinks of."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.credentials.formats import jwt_expiry_ms, read_logins
from coding_agents.credentials.secrets import parse_env_file, require_name
from coding_agents.credentials.values import MAX_BYTES, require_credential, secret_text
from coding_agents.errors import CredentialError
from coding_agents.model.provider import LoginFormat
from support.logins import HOUR, NOW, SECRET, claude_file, jwt

_OPENCODE = (
    b'{"a":{"type":"api","key":"sk-2"},"b":{"type":"oauth","access":"at-2","refresh":"rt-2","expires":5}}'
)
FORMATS: tuple[LoginFormat, ...] = ("claude", "codex", "copilot", "gemini", "opencode")


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "a b",
        "a\r\nX-Admin: 1",
        "a\nb",
        "a\0b",
        "a\tb",
        "schlüssel",
        "a\x7f",
        "a\u2028b",
        "x" * (MAX_BYTES + 1),
    ],
)
def test_what_could_end_a_header_is_no_credential(bad: str) -> None:
    with pytest.raises(CredentialError) as caught:
        require_credential(bad, source="X_KEY")
    assert "X_KEY" in caught.value.message
    assert not bad or bad not in caught.value.message
    assert caught.value.hint


@given(st.text())
def test_a_credential_is_one_printable_ascii_word(text: str) -> None:
    try:
        require_credential(text, source="it")
    except CredentialError:
        assert not text or any(not "!" <= character <= "~" for character in text)
    else:
        assert all("!" <= character <= "~" for character in text)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"abc\n", "abc"),
        (b"abc\r\n", "abc"),
        (b"abc", "abc"),
        ("pässwort 1".encode(), "pässwort 1"),
        (b" a ", " a "),
    ],
)
def test_a_secret_is_taken_without_its_newline(data: bytes, text: str) -> None:
    assert secret_text(data, source="it") == text


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"), (b"\n", "empty"), (b"one\ntwo\n", "more than one line"), (b"a\n\n", "more than one line"),
        (b"s3\0cret", "cannot be printed"), (b"s3\x1b[2Jcret", "cannot be printed"), (b"s3\rcret", "cannot be printed"),
        (b"s3\xffcret", "not UTF-8"), (b"s3cret" * 4000, "longer than"),
    ],
)  # fmt: skip
def test_what_is_no_secret_is_refused_without_showing_it(data: bytes, why: str) -> None:
    with pytest.raises(CredentialError, match=why) as caught:
        secret_text(data, source="standard input")
    assert "s3" not in caught.value.message + caught.value.details + caught.value.hint
    assert caught.value.__cause__ is None


def test_an_env_file_is_read_line_by_line() -> None:
    data = b"# mine\n\nA=one\nexport B='two words'\r\n C = \"3\" \nD=x=y#z\n"
    assert parse_env_file(data, origin="f") == {"A": "one", "B": "two words", "C": "3", "D": "x=y#z"}


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"A=1\nsk-ant-loose\n", "f:2 is not"), (b"A=1\nA=2\n", "f:2 sets A"), (b"A=\n", "A (f:1) is empty"),
        (b"\n\n1A=x\n", "f:3 is not"), (b"A=a\0b", "A (f:1) has characters"), (b"\xff=x", "f:1 is not"),
        (b"A B=x", "f:1 is not"), (b"A=\xff", "A (f:1) is not UTF-8"), (b"\n" * 10_001, "more than 10000"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named_and_not_shown(data: bytes, where: str) -> None:
    with pytest.raises(CredentialError) as caught:
        parse_env_file(data, origin="f")
    assert where in caught.value.message
    assert "sk-ant" not in caught.value.message


@given(st.binary())
def test_no_env_file_breaks_the_reader(data: bytes) -> None:
    try:
        found = parse_env_file(data, origin="f")
    except CredentialError:
        return
    for name, value in found.items():
        require_name(name)
        assert value
        assert value.isprintable()


@pytest.mark.parametrize(
    ("layout", "data", "entry", "found"),
    [
        ("claude", claude_file(), "", [("oauth", SECRET, "refresh-0", NOW + HOUR, "")]),
        ("claude", b'{"mcpOAuth": {"x": 1}}', "", []),
        ("codex", b'{"auth_mode":"apikey","OPENAI_API_KEY":"sk-1","tokens":null}', "",
         [("api-key", "sk-1", "", None, "")]),
        (
            "codex",
            json.dumps({"OPENAI_API_KEY": None, "last_refresh": "2026-11-01T00:00:00Z", "tokens": {
                "id_token": "i", "access_token": jwt(exp=NOW // 1000), "refresh_token": "rt-1",
                "account_id": "a-1"}}).encode(),
            "",
            [("oauth", jwt(exp=NOW // 1000), "rt-1", NOW, "a-1")],
        ),
        ("gemini", b'{"access_token":"ya29.x","refresh_token":"1//r","expiry_date":1799999999999,"scope":"s"}', "",
         [("oauth", "ya29.x", "1//r", 1799999999999, "")]),
        ("copilot", b'// of the program\n{"copilot_tokens":{"https://github.com:me":"gho_x"},"banner":"never"}', "",
         [("oauth", "gho_x", "", None, "")]),
        ("copilot", b'{"copilotTokens":{"https://github.com:me":"gho_y"}}', "", [("oauth", "gho_y", "", None, "")]),
        (
            "copilot",
            b'{"lastLoggedInUser":{"host":"https://github.com","login":"me"},"copilotTokens":{"https://github.com:a":'
            b'"gho_a","https://x.ghe.com:me":"gho_x","https://github.com.evil:me":"gho_e","https://github.com:me":"gho_m"}}',
            "",
            [("oauth", "gho_m", "", None, ""), ("oauth", "gho_a", "", None, "")],
        ),
        ("opencode", _OPENCODE, "a",
         [("api-key", "sk-2", "", None, "")]),
        ("opencode", _OPENCODE, "b",
         [("oauth", "at-2", "rt-2", 5, "")]),
        ("opencode", b'{"a":{"type":"wellknown","key":"A","token":"t"}}', "a", []),
        ("opencode", b"{}", "a", []),
    ],
)  # fmt: skip
def test_each_programs_login_is_read(
    layout: LoginFormat, data: bytes, entry: str, found: list[tuple[object, ...]]
) -> None:
    logins = read_logins(layout, data, entry)
    assert [(one.kind, one.secret, one.refresh, one.expires_ms, one.account) for one in logins] == found
    assert not [
        one for one in logins if one.secret in repr(one) or (one.refresh and one.refresh in repr(one))
    ]


@given(st.sampled_from(FORMATS), st.binary() | st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["claudeAiOauth", "tokens", "accessToken", "expiresAt", "access_token", "expiry_date", "x"]),
        inner)).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_file_breaks_a_reader(layout: LoginFormat, data: bytes) -> None:
    try:
        found = read_logins(layout, data, "x")
    except (msgspec.MsgspecError, ValueError):
        return
    assert all(one.secret for one in found)


@given(st.text())
def test_no_token_breaks_the_reader_of_jwts(token: str) -> None:
    assert jwt_expiry_ms(token) is None or token.count(".") == 2


@pytest.mark.parametrize(
    "claims", [{}, {"exp": "soon"}, {"exp": -1}, {"exp": 0}, {"exp": 1e300}, {"exp": None}]
)
def test_a_jwt_without_a_sound_end_has_none(claims: dict[str, object]) -> None:
    assert jwt_expiry_ms(jwt(**claims)) is None
