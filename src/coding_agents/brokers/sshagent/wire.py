"""The messages of ssh-agent(1) that a session may have a use for (draft-ietf-sshm-ssh-agent), read strictly. No IO.

A message is its type and content, without the length in front of it (`Frames` takes that off).
"""

from __future__ import annotations

import base64
import hashlib

import msgspec

MAX_REQUEST = 32 * 1024
MAX_REPLY = 256 * 1024
"""Bytes of a message; the second is OpenSSH's own bound (AGENT_MAX_LEN)."""
MAX_KEYS = 2048  # as in OpenSSH

FAILURE, SUCCESS = b"\x05", b"\x06"
REQUEST_IDENTITIES, IDENTITIES, SIGN_REQUEST, SIGN_RESPONSE, EXTENSION = 11, 12, 13, 14, 27
SESSION_BIND = b"session-bind@openssh.com"
_USERAUTH_REQUEST = 50  # RFC 4252, section 5
_METHODS = (b"publickey", b"publickey-hostbound-v00@openssh.com")
# What a flag of the request asks for, and which algorithms a key of that type signs with.
_SHA2 = {2: b"rsa-sha2-256", 4: b"rsa-sha2-512"}
_MAX_TEXT = 255


class AgentError(ValueError):
    """A message is not understood, and so not let through. The text repeats nothing of it."""


class Identities(msgspec.Struct, frozen=True):
    """A request for the public keys that the agent holds."""


class Bind(msgspec.Struct, frozen=True):
    """The client tells with which host it has agreed on a session; `signature` is that host's, over `session`.

    See PROTOCOL.agent of OpenSSH, section 1: the agent checks the signature.
    """

    host_key: bytes
    session: bytes
    signature: bytes
    forwarding: bool

    def message(self, signature: bytes | None = None) -> bytes:
        """The message, with another signature where one is given."""
        parts = (self.host_key, self.session, self.signature if signature is None else signature)
        return (
            bytes([EXTENSION])
            + packed(SESSION_BIND)
            + b"".join(map(packed, parts))
            + bytes([self.forwarding])
        )


class SignRequest(msgspec.Struct, frozen=True):
    """A signature that logs `user` in, in the session `session`; `host_key` is the host that it is bound to, or b""."""

    key: bytes
    data: bytes
    flags: int
    session: bytes
    user: str
    host_key: bytes

    def message(self) -> bytes:
        """The message, made anew of what was understood."""
        return bytes([SIGN_REQUEST]) + packed(self.key) + packed(self.data) + self.flags.to_bytes(4, "big")


Request = Identities | Bind | SignRequest


class Frames:
    """Takes the lengths off a stream of messages, however it is cut."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole by now. Raises AgentError for one of no byte or more than the limit."""
        self._buffer += data
        whole = []
        while len(self._buffer) >= 4:
            size = int.from_bytes(self._buffer[:4], "big")
            if not 0 < size <= self._limit:
                raise AgentError("a message of the agent's protocol with a length out of bounds")
            if len(self._buffer) < 4 + size:
                break
            whole.append(bytes(self._buffer[4 : 4 + size]))
            del self._buffer[: 4 + size]
        return whole


def packed(data: bytes) -> bytes:
    """A string of SSH (RFC 4251, section 5); as a whole message, what goes on the wire."""
    return len(data).to_bytes(4, "big") + data


def parse_request(message: bytes) -> Request:
    """The request in `message`. Raises AgentError for all that a session has no use for."""
    kind, rest = message[0] if message else 0, _Fields(message[1:])
    if kind == REQUEST_IDENTITIES:
        rest.end()
        return Identities()
    if kind == SIGN_REQUEST:
        return _sign_request(rest)
    if kind == EXTENSION and rest.string() == SESSION_BIND:
        bind = Bind(rest.string(), rest.string(), rest.string(), rest.boolean())
        rest.end()
        return bind
    raise AgentError("the agent lists keys and signs logins for a session, and does nothing else")


def parse_identities(message: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Keys and comments in the agent's answer. Raises AgentError."""
    fields = _Fields(message[1:])
    if message[:1] != bytes([IDENTITIES]) or (count := fields.number()) > MAX_KEYS:
        raise AgentError("the agent has not answered with its keys")
    found = tuple((fields.string(), fields.string()) for _ in range(count))
    fields.end()
    return found


def identities_message(keys: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The answer with these keys and comments."""
    listed = b"".join(packed(key) + packed(comment) for key, comment in keys)
    return bytes([IDENTITIES]) + len(keys).to_bytes(4, "big") + listed


def checked_signature(message: bytes) -> bytes:
    """The agent's answer to a request to sign, when it is a signature. Raises AgentError."""
    fields = _Fields(message[1:])
    if message[:1] != bytes([SIGN_RESPONSE]) or not fields.string():
        raise AgentError("the agent does not sign: the key may be locked, or its user has said no")
    fields.end()
    return message


def fingerprint(key: bytes) -> str:
    """As `ssh-add -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def key_type(key: bytes) -> bytes:
    """The type that a public key names. Raises AgentError."""
    return _Fields(key).string()


def _sign_request(fields: _Fields) -> SignRequest:
    key, data, flags = fields.string(), fields.string(), fields.number()
    fields.end()
    signed = _Fields(data)
    session = signed.string()
    if not 16 <= len(session) <= 64 or signed.byte() != _USERAUTH_REQUEST:
        raise AgentError("only what logs in to a host is signed, nothing else")
    user, service, method, has_signature = signed.string(), signed.string(), signed.string(), signed.byte()
    algorithm, same_key = signed.string(), signed.string()
    host_key = signed.string() if method == _METHODS[1] else b""
    signed.end()
    if service != b"ssh-connection" or method not in _METHODS or has_signature != 1 or same_key != key:
        raise AgentError("only what logs in to a host with this very key is signed, nothing else")
    rsa = key_type(key) == b"ssh-rsa"
    if flags not in ((2, 4) if rsa else (0,)) or algorithm != (_SHA2[flags] if rsa else key_type(key)):
        raise AgentError("the signature is asked for with an algorithm that does not go with the key")
    if method == _METHODS[1] and not host_key:
        raise AgentError("the login names no host")
    return SignRequest(key, data, flags, session, _text(user), host_key)


def _text(data: bytes) -> str:
    text = data.decode("ascii", "replace")
    if not 0 < len(text) <= _MAX_TEXT or not text.isascii() or not text.isprintable():
        raise AgentError("the name of the account is not plain text")
    return text


class _Fields:
    """Reads one field after another. Raises AgentError where one is not whole."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise AgentError("a message of the agent's protocol ends early")
        self._at += size
        return taken

    def byte(self) -> int:
        return self._take(1)[0]

    def number(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def string(self) -> bytes:
        return self._take(self.number())

    def boolean(self) -> bool:
        if (value := self.byte()) > 1:
            raise AgentError("a message of the agent's protocol holds what is neither true nor false")
        return bool(value)

    def end(self) -> None:
        if self._at != len(self._data):
            raise AgentError("a message of the agent's protocol goes on after its end")
