"""Requests of a guest's git and answers of the host's: read in one way or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.brokers.credential.answer import (
    MAX_ANSWER,
    AnswerError,
    Credential,
    guest_lines,
    parse_answer,
)
from coding_agents.brokers.credential.request import (
    MAX_REQUEST,
    CredentialRequest,
    RequestError,
    fill_input,
    parse_request,
)

ASKED = b"protocol=https\nhost=git.example\npath=team/one.git\n"
REQUEST = CredentialRequest("git.example", ("team", "one.git"))
ANSWER = b"protocol=https\nhost=git.example\npath=team/one.git\nusername=me\npassword=s3cret\n"


@pytest.mark.parametrize(
    "data",
    [
        ASKED,
        ASKED + b"\n",
        b"capability[]=authtype\ncapability[]=state\n" + ASKED + b'wwwauth[]=Basic realm="G\xc3\xa4st"\n\n',
        b"protocol=https\nhost=git.example:443\npath=team/one.git",
    ],
)
def test_what_git_asks_is_understood(data: bytes) -> None:
    assert parse_request(data) == REQUEST


def test_an_account_may_be_asked_for() -> None:
    assert parse_request(ASKED + b"username=me\n").username == "me"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", b"protocol=https\nhost=git.example\n", b"protocol=https\npath=team/one\n",
        # CVE-2020-5260: a value that holds a line of its own.
        b"protocol=https\nhost=evil.example\npath=team/one\nhost=git.example\n",
        b"protocol=https\nhost=git.example\npath=x\n\nhost=evil.example\n",
        # CVE-2024-52006: what some helpers take for the end of a line.
        b"protocol=https\nhost=git.example\rhost=evil.example\npath=team/one\n",
        b"protocol=https\r\nhost=git.example\r\npath=team/one\r\n",
        b"protocol=https\nhost=git.example\0\npath=team/one\n", ASKED + b"wwwauth[]=\0\n",
        # CVE-2024-50349: what only looks like the host.
        b"protocol=https\nhost=git.example%2eevil.example\npath=team/one\n",
        b"protocol=https\nhost=git.example\npath=team%2fone\n", b"protocol=https\nhost=git.example\npath=%0ahost=x\n",
        b"protocol=http\nhost=git.example\npath=team/one\n", b"protocol=HTTPS\nhost=git.example\npath=team/one\n",
        b"protocol=\nhost=git.example\npath=team/one\n", b"protocol=https \nhost=git.example\npath=team/one\n",
        b"protocol=https\nhost=Git.example\npath=team/one\n", b"protocol=https\nhost=me@git.example\npath=team/one\n",
        b"protocol=https\nhost=git.example/team\npath=one\n", b"protocol=https\nhost= git.example\npath=team/one\n",
        b"protocol=https\nhost=git.example.\npath=team/one\n", b"protocol=https\nhost=\npath=team/one\n",
        b"protocol=https\nhost=-x.example\npath=team/one\n", b"protocol=https\nhost=git.example\npath=../one\n",
        b"protocol=https\nhost=git.example\npath=team/../../one\n", b"protocol=https\nhost=git.example\npath=/team\n",
        b"protocol=https\nhost=git.example\npath=team//one\n", b"protocol=https\nhost=git.example\npath=te\xc3\xa4m\n",
        b"protocol=https\nhost=git.example\npath=te am\n", b"protocol=https\nhost=git.example\npath=a?b\n",
        b"url=https://git.example/team/one\n", ASKED + b"url=https://evil.example\n", ASKED + b"password=x\n",
        ASKED + b"Host=evil.example\n", ASKED + b"host =evil.example\n", ASKED + b"line\n", ASKED + b"=x\n",
        ASKED + b"username=\x1b[2J\n", ASKED + b"username=a b\n", ASKED + b"credential=x\n",
        ASKED + b"wwwauth[]=x\n" * 100, ASKED + b"wwwauth[]=" + b"x" * MAX_REQUEST,
    ],
)  # fmt: skip
def test_what_could_mean_another_place_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        parse_request(data)
    assert "evil" not in str(refused.value)
    assert str(refused.value).isprintable()


LINES = st.sampled_from([*ASKED.splitlines(), b"host=evil.example", b"", b"path=a/b", b"username=me", b"x"])
MUTATED = st.lists(LINES | st.binary(max_size=12), max_size=8).map(b"\n".join)


@given(MUTATED | st.binary(max_size=200))
def test_a_request_is_asked_for_anew_and_in_one_reading(data: bytes) -> None:
    try:
        request = parse_request(data)
    except RequestError:
        return
    asked = fill_input(request)
    assert parse_request(asked) == CredentialRequest(request.host, request.path)
    assert asked.count(b"\n") == 4
    assert asked.isascii()
    assert b"host=%b\n" % request.host.encode() in data + b"\n" or b":443" in data


def test_the_guest_does_not_choose_the_account() -> None:
    request = parse_request(ASKED + b"username=admin\n")
    assert b"username" not in fill_input(request)
    assert b"username=me\n" in fill_input(request, "me")
    with pytest.raises(AnswerError, match="another account than admin"):
        parse_answer(ANSWER, request)
    assert parse_answer(ANSWER, REQUEST, "me").username == "me"
    with pytest.raises(AnswerError, match="another account"):
        parse_answer(ANSWER, REQUEST, "you")


def test_only_the_credential_is_passed_on() -> None:
    told = parse_answer(
        ANSWER + b"password_expiry_utc=1900000000\noauth_refresh_token=more\nstate[]=x\n", REQUEST
    )
    assert guest_lines(told) == b"username=me\npassword=s3cret\npassword_expiry_utc=1900000000\n"
    assert "s3cret" not in repr(told)


def test_a_host_that_asks_without_the_path_is_answered() -> None:
    assert parse_answer(ANSWER.replace(b"path=team/one.git\n", b""), REQUEST) == Credential("me", "s3cret")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"garbage", b"\xff\xfe\n", ANSWER.replace(b"git.example", b"evil.example"),
        ANSWER.replace(b"https", b"http"), ANSWER.replace(b"one.git", b"two.git"),
        ANSWER.replace(b"password=s3cret\n", b""), ANSWER.replace(b"username=me\n", b""),
        ANSWER + b"password=other\n", ANSWER.replace(b"s3cret", b"s3\rcret"), ANSWER.replace(b"s3cret", b"s3\x1bcret"),
        ANSWER + b"quit=1\n", ANSWER + b"a line without a value\n", ANSWER.replace(b"s3cret", b"x" * 20_000),
        ANSWER + b"x=" + b"x" * MAX_ANSWER, ANSWER.replace(b"username=me", b"username="),
    ],
)  # fmt: skip
def test_an_answer_to_another_question_is_none(data: bytes) -> None:
    with pytest.raises(AnswerError) as refused:
        parse_answer(data, REQUEST)
    assert "s3cret" not in str(refused.value)


@given(st.lists(st.sampled_from(ANSWER.splitlines()) | st.binary(max_size=20), max_size=8).map(b"\n".join))
def test_no_answer_makes_the_guest_read_more_lines(data: bytes) -> None:
    try:
        told = parse_answer(data, REQUEST)
    except AnswerError:
        return
    assert guest_lines(told).count(b"\n") == 2 + bool(told.expires)
