"""What a TLS client says first: the host that it names, read from bytes as they come. Pure.

A hello can be cut into many records and many packets (RFC 8446 §5.1). Nothing is believed that another reader could
understand otherwise: the server decides by the very bytes that were read here, since they are what it is sent.
"""

from __future__ import annotations

from functools import lru_cache

from coding_agents_guest.egress.hosts import HostError, parse_host
from coding_agents_guest.records import dataclass

MAX_HELLO = 16 * 1024
"""How many bytes are read until the hello must be whole. Clients send 0.2 to 2 KiB."""

_MOST_RECORDS = 64  # that a hello is cut into: each packet has us read it again. Clients need one, or two
_HANDSHAKE_3 = b"\x16\x03"  # a handshake record of TLS 1.x, whose minor version says nothing (RFC 8446 §5.1)
_CLIENT_HELLO = b"\x01"
_CHANGE, _ALERT, _HANDSHAKE, _ENCRYPTED = 20, 21, 22, 23  # types of records (RFC 8446 §5.1)
_IN_THE_CLEAR = (_CHANGE, _ALERT, _HANDSHAKE)
_MOST_CLEAR = 256 * 1024  # hellos and, before TLS 1.3, certificates of a client
_SERVER_NAME, _HOST_NAME = 0, 0  # RFC 6066 §3
_HIDING = (0xFE0D, 0xFE0A, 0xFE09, 0xFE08, 0xFFCE)  # ECH (RFC 9849 §5), its drafts, and ESNI before it
_EARLY_DATA = 42  # RFC 8446 §4.2.10


class HelloError(ValueError):
    """What is no acceptable hello; `reason` is a word of `rules.REASONS`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class ClientHello:
    """The host that a client names, "" for none, whether it hides another one, and whether it says more at once."""

    host: str
    encrypted: bool
    early: bool = False


def read_hello(data: bytes) -> ClientHello | None:
    """The hello that `data` begins with; None while more is needed. Raises HelloError.

    Whatever follows a whole hello is left alone.
    """
    message, at, left = b"", 0, _MOST_RECORDS
    while len(message) < _size(message):
        left -= 1
        header = data[at : at + 5]
        if not (_HANDSHAKE_3.startswith(header[:2]) and (len(header) < 5 or any(header[3:]))):
            raise HelloError("not-tls", "the tunnel does not begin with TLS")
        end = at + 5 + int.from_bytes(header[3:], "big")
        message += data[at + 5 : end]
        if message[:1] not in (b"", _CLIENT_HELLO) or _size(message) > MAX_HELLO or left < 0:
            raise HelloError("not-tls", "the first TLS message is no ClientHello")
        if len(header) < 5 or (end > len(data) and len(message) < _size(message)):
            if len(data) > MAX_HELLO:
                raise HelloError("not-tls", "the ClientHello is too long")
            return None
        at = end
    return _parse(message[4 : _size(message)])


class ClientFlight:
    """Follows what a TLS client sends until it is encrypted: each hello in it must name `host`.

    A server may ask for a second hello (RFC 8446 §4.1.4), and some then believe that one. It passes over data that
    came early, before that: of a client that announces such there is no end to what is read.
    """

    def __init__(self, host: str, *, allow_ech: bool) -> None:
        self._host = host
        self._allow_ech = allow_ech
        self._data = self._message = b""
        self._changed = self._early = False
        self._left = _MOST_CLEAR
        self.over = False

    def feed(self, data: bytes) -> None:
        """Read what goes on next; `over` tells that no more need be read. Raises HelloError."""
        data, at = self._data + data, 0
        while not self.over and len(data) - at >= 5:
            kind, size = data[at], 5 + int.from_bytes(data[at + 3 : at + 5], "big")
            if not (kind in _IN_THE_CLEAR or (kind == _ENCRYPTED and self._early)):
                self.over = True  # what is no TLS is the server's to refuse
            elif len(data) - at < size:
                break
            else:
                if kind != _ENCRYPTED:
                    self._clear(kind, data[at + 5 : at + size])
                at += size
        self._data = data[at:]

    def _clear(self, kind: int, body: bytes) -> None:
        self._left -= 5 + len(body)
        if self._left < 0:
            raise HelloError("not-tls", "the TLS client never begins to encrypt")
        self._changed |= kind == _CHANGE
        if kind == _HANDSHAKE:
            self._read(body)

    def _read(self, body: bytes) -> None:
        """One record of handshake messages, of which each may be cut anywhere."""
        self._message += body
        while self._message:
            if self._message[:1] != _CLIENT_HELLO and self._changed:
                self.over = True  # the first that TLS 1.2 encrypts
                return
            if len(self._message) < 4 or len(self._message) < (size := _size(self._message)):
                return
            message, self._message = self._message[:size], self._message[size:]
            if message[:1] == _CLIENT_HELLO:
                hello = _parse(message[4:])
                require_host(hello, self._host, allow_ech=self._allow_ech)
                self._early |= hello.early


def _size(message: bytes) -> int:
    """How long the handshake message is that `message` begins with, as far as it is known."""
    return 4 + int.from_bytes(message[1:4], "big") if len(message) >= 4 else 4


def require_host(hello: ClientHello, host: str, *, allow_ech: bool = False) -> None:
    """Raise HelloError unless the client names exactly `host`, and hides no other."""
    if not hello.host:
        raise HelloError("no-sni", "the TLS client names no host")
    if hello.host != host:
        raise HelloError("sni", f"the TLS client names {hello.host}")
    if hello.encrypted and not allow_ech:
        raise HelloError("ech", "the TLS client hides the host that it means")


@lru_cache(
    maxsize=1
)  # a tunnel's first is read when it may begin, and again as part of what the client sends
def _parse(body: bytes) -> ClientHello:
    """The fields of a ClientHello (RFC 8446 §4.1.2). Raises HelloError."""
    at = 2 + 32  # legacy_version, random
    at, _ = _vector(body, at, 1)  # legacy_session_id
    at, _ = _vector(body, at, 2)  # cipher_suites
    at, _ = _vector(body, at, 1)  # legacy_compression_methods
    if at == len(body):
        return ClientHello("", False)  # no extensions at all: a client before TLS 1.2
    at, extensions = _vector(body, at, 2)
    if at != len(body):
        raise HelloError("not-tls", "something follows the extensions of the ClientHello")
    host, encrypted, seen, at = "", False, set(), 0
    while at < len(extensions):
        kind = int.from_bytes(extensions[at : at + 2], "big")
        at, value = _vector(extensions, at + 2, 2)
        if kind in seen:
            raise HelloError("not-tls", "an extension stands in the ClientHello twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            host = _server_name(value)
        elif kind in _HIDING:
            encrypted = True
    return ClientHello(host, encrypted, _EARLY_DATA in seen)


def _server_name(value: bytes) -> str:
    """The one name of a server_name extension (RFC 6066 §3). Raises HelloError."""
    end, names = _vector(value, 0, 2)
    if end != len(value) or names[:1] != bytes([_HOST_NAME]):
        raise HelloError("sni", "the server name is malformed")
    end, name = _vector(names, 1, 2)
    if end != len(names):
        raise HelloError("sni", "the TLS client names several hosts")
    try:
        return parse_host(name.decode("ascii"))
    except (UnicodeDecodeError, HostError) as error:
        raise HelloError("sni", "the server name is no name of a host") from error


def _vector(data: bytes, at: int, width: int) -> tuple[int, bytes]:
    """The vector at `at` with a length of `width` bytes, and where it ends. Raises HelloError."""
    start = at + width
    end = start + int.from_bytes(data[at:start], "big")
    if start > len(data) or end > len(data):
        raise HelloError("not-tls", "the ClientHello is cut off within itself")
    return end, data[start:end]
