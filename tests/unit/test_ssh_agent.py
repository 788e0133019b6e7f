"""The filter in front of the user's ssh-agent: logins with named keys at named hosts, and nothing else at all."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.brokers.sshagent.filter import AgentFilter, Allowed, broken
from coding_agents.brokers.sshagent.known import host_keys, known_line
from coding_agents.brokers.sshagent.wire import (
    EXTENSION,
    IDENTITIES,
    MAX_REQUEST,
    SIGN_REQUEST,
    SIGN_RESPONSE,
    AgentError,
    Bind,
    Frames,
    Identities,
    SignRequest,
    checked_signature,
    fingerprint,
    identities_message,
    packed,
    parse_identities,
    parse_request,
)


def key(name: str, kind: bytes = b"ssh-ed25519") -> bytes:
    return packed(kind) + packed(name.encode().ljust(32, b"."))


MINE, OTHER, HOST, EVIL = key("mine"), key("other"), key("host"), key("evil")
SESSION = b"s" * 32
ALLOWED = (Allowed(fingerprint(MINE), "git.example", frozenset({HOST})),)
BIND = Bind(HOST, SESSION, packed(b"ssh-ed25519") + packed(b"x" * 64), forwarding=False)


def login(
    signer: bytes = MINE,
    *,
    session: bytes = SESSION,
    method: bytes = b"publickey",
    service: bytes = b"ssh-connection",
    algorithm: bytes = b"ssh-ed25519",
    named: bytes | None = None,
    host: bytes = b"",
    kind: int = 50,
    user: bytes = b"git",
    after: bytes = b"",
) -> bytes:
    data = packed(session) + bytes([kind]) + packed(user) + packed(service) + packed(method) + b"\1"
    data += packed(algorithm) + packed(signer if named is None else named)
    return data + (packed(host) if host else b"") + after


def sign(data: bytes, signer: bytes = MINE, flags: int = 0) -> bytes:
    return bytes([SIGN_REQUEST]) + packed(signer) + packed(data) + flags.to_bytes(4, "big")


def signable(message: bytes, *, bind: Bind | None = BIND, allowed: tuple[Allowed, ...] = ALLOWED) -> Allowed:
    one = AgentFilter(allowed)
    if bind is not None:
        one.bound(bind)
    request = parse_request(message)
    assert isinstance(request, SignRequest)
    assert request.message() == message
    return one.require_signable(request)


HOSTBOUND = b"publickey-hostbound-v00@openssh.com"


def test_a_login_with_a_named_key_at_its_host_is_signed() -> None:
    assert signable(sign(login())) == ALLOWED[0]
    assert signable(sign(login(method=HOSTBOUND, host=HOST))) == ALLOWED[0]


def test_an_rsa_key_signs_with_sha_2_alone() -> None:
    rsa = key("rsa", b"ssh-rsa")
    allowed = (Allowed(fingerprint(rsa), "git.example", frozenset({HOST})),)
    for flags, name in ((2, b"rsa-sha2-256"), (4, b"rsa-sha2-512")):
        assert signable(sign(login(rsa, algorithm=name), rsa, flags), allowed=allowed)
    for flags, name in ((0, b"ssh-rsa"), (2, b"rsa-sha2-512"), (6, b"rsa-sha2-512"), (1, b"ssh-rsa")):
        with pytest.raises(AgentError):
            parse_request(sign(login(rsa, algorithm=name), rsa, flags))


SSHSIG = b"SSHSIG" + packed(b"git") + packed(b"") + packed(b"sha512") + packed(b"h" * 64)


@pytest.mark.parametrize(
    "message",
    [
        b"", b"\x00", sign(b""), sign(SSHSIG), sign(packed(SSHSIG)), sign(login(kind=51)), sign(login(session=b"")),
        sign(login(session=b"s" * 65)), sign(login(service=b"ssh-userauth")), sign(login(method=b"hostbased")),
        sign(login(method=b"password")), sign(login(named=OTHER)), sign(login(algorithm=b"ssh-rsa")),
        sign(login(after=b"x")), sign(login(host=HOST)), sign(login(method=HOSTBOUND)), sign(login(user=b"")),
        sign(login(user=b"\x1b[2J")), sign(login(user=b"x" * 256)), sign(login()) + b"x", sign(login())[:-1],
        sign(login(), flags=2), sign(login().replace(b"publickey\1", b"publickey\0")), b"\x0b\0",
        bytes([SIGN_REQUEST]), bytes([SIGN_REQUEST]) + b"\xff" * 4,
        *(bytes([kind]) + packed(MINE) for kind in (*range(11), 12, *range(14, 27), 28, 255)),
        bytes([EXTENSION]) + packed(b"query"), bytes([EXTENSION]) + packed(b"session-bind@openssh.org"),
        BIND.message() + b"x", BIND.message()[:-1], BIND.message()[:-1] + b"\2",
    ],
)  # fmt: skip
def test_whatever_else_an_agent_could_do_is_refused(message: bytes) -> None:
    with pytest.raises(AgentError):
        parse_request(message)


@pytest.mark.parametrize(
    ("message", "bind"),
    [
        (sign(login()), None),  # nobody has said where it logs in to
        (sign(login(session=b"t" * 32)), BIND),  # another host's session, after a named one was shown
        (sign(login(OTHER), OTHER), BIND),  # a key that was not named
        (sign(login(method=HOSTBOUND, host=EVIL)), BIND),
    ],
)
def test_a_signature_for_elsewhere_is_refused(message: bytes, bind: Bind | None) -> None:
    with pytest.raises(AgentError):
        signable(message, bind=bind)


@pytest.mark.parametrize(
    "bind",
    [Bind(EVIL, SESSION, b"x", forwarding=False), Bind(HOST, SESSION, b"x", forwarding=True),
     Bind(HOST, b"", b"x", forwarding=False), Bind(HOST, b"s" * 65, b"x", forwarding=False)],
)  # fmt: skip
def test_a_session_of_no_named_host_binds_nothing(bind: Bind) -> None:
    one = AgentFilter(ALLOWED)
    with pytest.raises(AgentError):
        one.bound(bind)


def test_a_connection_is_bound_once() -> None:
    one = AgentFilter((*ALLOWED, Allowed(fingerprint(OTHER), "b.example", frozenset({EVIL}))))
    one.bound(BIND)
    with pytest.raises(AgentError, match="already"):
        one.bound(Bind(EVIL, SESSION, b"x", forwarding=False))


def test_a_key_is_for_its_own_host_and_not_for_that_of_another() -> None:
    allowed = (*ALLOWED, Allowed(fingerprint(OTHER), "b.example", frozenset({EVIL})))
    assert signable(sign(login()), allowed=allowed).host == "git.example"
    with pytest.raises(AgentError, match="not for this host"):
        signable(sign(login(OTHER), OTHER), allowed=allowed)


def test_keys_that_were_not_named_are_not_listed() -> None:
    answer = identities_message(((MINE, b"a"), (OTHER, b"b")))
    one = AgentFilter((*ALLOWED, Allowed(fingerprint(OTHER), "b.example", frozenset({EVIL}))))
    mine = (MINE, b"git.example")  # comments stay on the host, too
    assert AgentFilter(ALLOWED).identities(answer) == identities_message((mine,))
    assert one.identities(answer) == identities_message((mine, (OTHER, b"b.example")))
    one.bound(BIND)
    assert one.identities(answer) == identities_message((mine,))


def test_an_entry_whose_host_nobody_knows_is_for_no_session() -> None:
    with pytest.raises(AgentError, match="no key"):
        AgentFilter((Allowed(fingerprint(MINE), "git.example", frozenset()),)).bound(BIND)


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x05", bytes([IDENTITIES]) + b"\xff\xff\xff\xff",
     identities_message(((MINE, b"a"),)) + b"x", bytes([IDENTITIES]) + b"\0\0\0\1"],
)  # fmt: skip
def test_an_agent_that_says_nonsense_lists_nothing(answer: bytes) -> None:
    with pytest.raises(AgentError):
        parse_identities(answer)


@pytest.mark.parametrize(
    "answer", [b"", b"\x05", b"\x06", bytes([SIGN_RESPONSE]), bytes([SIGN_RESPONSE]) + packed(b"")]
)
def test_only_a_signature_is_passed_on(answer: bytes) -> None:
    with pytest.raises(AgentError):
        checked_signature(answer)


def test_a_broken_signature_differs() -> None:
    assert broken(BIND).message() != BIND.message()
    assert broken(BIND).session == BIND.session
    assert broken(Bind(HOST, SESSION, b"", forwarding=False)).signature


MESSAGES = [b"\x0b", BIND.message(), sign(login()), sign(login(method=HOSTBOUND, host=HOST))]


@given(st.sampled_from(MESSAGES), st.data())
def test_a_changed_message_is_refused_or_means_what_it_says(message: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(message)))
    until = data.draw(st.integers(at, min(at + 8, len(message))))
    changed = message[:at] + data.draw(st.binary(max_size=8)) + message[until:]
    one = AgentFilter(ALLOWED)
    one.bound(BIND)
    try:
        request = parse_request(changed)
        if isinstance(request, SignRequest):
            one.require_signable(request)
    except AgentError:
        return
    assert isinstance(request, Identities) or request.message() == changed
    if isinstance(request, SignRequest):
        assert request.key == MINE
        assert request.data.startswith(packed(SESSION) + b"\x32")


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.integers(1, 7))
def test_messages_are_the_same_however_they_are_cut(messages: list[bytes], size: int) -> None:
    stream = b"".join(map(packed, messages))
    frames = Frames(MAX_REQUEST)
    found = [one for at in range(0, len(stream), size) for one in frames.feed(stream[at : at + size])]
    assert found == messages


@pytest.mark.parametrize("size", [0, MAX_REQUEST + 1, 0xFFFFFFFF])
def test_a_message_out_of_bounds_ends_the_connection(size: int) -> None:
    with pytest.raises(AgentError):
        Frames(MAX_REQUEST).feed(size.to_bytes(4, "big"))


def hashed(name: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def test_keys_of_a_host_by_name_or_hash_but_never_by_pattern() -> None:
    line = known_line("x", HOST).partition(" ")[2]
    for names in ("git.example", "a,git.example,b", hashed("git.example")):
        assert host_keys(f"# comment\n\n{names} {line}", "git.example") == (HOST,)
    for names in ("*.example", "git.example.evil.example", "!git.example,git.example", "[git.example]:2222",
                  hashed("other.example"), "|1|x|y", "|1|x", "@cert-authority git.example"):  # fmt: skip
        assert host_keys(f"{names} {line}", "git.example") == ()
    assert host_keys(f"git.example {line}@revoked * {line}", "git.example") == ()
    assert host_keys("git.example ssh-rsa " + line.split()[1], "git.example") == ()
    assert host_keys("git.example ssh-ed25519 !!!\ngit.example\n", "git.example") == ()
