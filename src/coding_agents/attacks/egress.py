"""Attacks on the way out of network mode `squid`: what a program inside can ask the proxy for, and get round it."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress
from typing import Any

_PROXY = ("127.0.0.1", 3128)
_TIMEOUT_S = 8.0


def ask(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Send each to the proxy: `head` as it is; after a 200, `hello` names a host to TLS, `first` is sent as it is.

    Gives for each the status (0: none), the proxy's reason, and what came in the end (text, with `tls` in place of
    TLS that spoke: an answer of the host's, or an alert).
    """
    return [_ask(**one) for one in requests]


def _ask(head: str, hello: str | None = None, first: str = "", ech: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"status": 0, "reason": "", "came": ""}
    try:
        with socket.create_connection(_PROXY, timeout=_TIMEOUT_S) as proxy:
            proxy.sendall(head.encode("latin-1"))
            answer = _until(proxy, b"\r\n\r\n")
            found["status"] = int(answer.split()[1]) if answer.startswith(b"HTTP/1.") else 0
            for line in answer.split(b"\r\n"):
                name, _, value = line.partition(b": ")
                if name.lower() == b"x-coding-agents-reason":
                    found["reason"] = value.decode("latin-1")
            while not head.startswith("CONNECT ") and (piece := proxy.recv(1 << 16)):
                answer += piece
            if found["status"] == 200 and (hello is not None or first):
                proxy.sendall(first.encode("latin-1") if hello is None else client_hello(hello, ech=ech))
                answer = proxy.recv(1 << 16)
            kind = {22: "tls: handshake", 21: "tls: alert"}.get(answer[0]) if answer else None
            found["came"] = kind or answer[:2000].decode("latin-1")
    except OSError as error:
        found["came"] = type(error).__name__
    return found


def client_hello(host: str, *, ech: bool = False) -> bytes:
    """What a TLS client says first when it means `host` ("": it names none); `ech` hides another one in it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=host or None)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    return _with_extension(hello, 0xFE0D, bytes(32)) if ech else hello


def fetch(host: str, path: str = "/", *, port: int = 443, tunnel: str = "") -> str:
    """The body of a page over TLS through the proxy, or the proxy's refusal; no authority is asked about the host."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(_PROXY, timeout=_TIMEOUT_S) as proxy:
        place = f"{tunnel or host}:{port}"
        proxy.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        head = _until(proxy, b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            return head.decode("latin-1")
        with context.wrap_socket(proxy, server_hostname=host) as secure:
            secure.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := secure.recv(1 << 16):
                answer += piece
    return answer.partition(b"\r\n\r\n")[2].decode("latin-1")


def without_the_proxy(names: list[str], addresses: list[str]) -> dict[str, str]:
    """The errors of whoever does not ask the proxy: resolving names, TCP, UDP, ICMP, over IPv4 and IPv6."""
    found = {f"resolve {name}": _error(lambda name=name: socket.getaddrinfo(name, 443)) for name in names}
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for kind, name in ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")):
            found[f"{name} {address}"] = _error(lambda f=family, k=kind, a=address: _connect(f, k, a))
        found[f"dns {address}"] = _error(lambda f=family, a=address: _query(f, a))
    return found


def _connect(family: socket.AddressFamily, kind: socket.SocketKind, address: str) -> None:
    with socket.socket(family, kind) as one:
        one.settimeout(2)
        one.connect((address, 443))
        one.send(b"x")


def _query(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.settimeout(2)
        one.sendto(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\7example\0\0\1\0\1", (address, 53))
        one.recv(512)


def _error(attempt: Any) -> str:
    try:
        attempt()
    except OSError as error:
        return type(error).__name__ if not error.errno else f"{type(error).__name__} {error.errno}"
    return "done"


def _until(one: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data and (piece := one.recv(1 << 16)):
        data += piece
    return data


def _with_extension(hello: bytes, kind: int, value: bytes) -> bytes:
    """The same hello with one more extension (RFC 8446 §4.1.2), all its lengths corrected."""
    body = bytearray(hello[9:])
    at = 34
    at += 1 + body[at]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    extensions = bytes(body[at + 2 :]) + struct.pack("!HH", kind, len(value)) + value
    body[at:] = struct.pack("!H", len(extensions)) + extensions
    message = b"\1" + len(body).to_bytes(3, "big") + bytes(body)
    return hello[:3] + struct.pack("!H", len(message)) + message
