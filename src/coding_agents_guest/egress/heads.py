"""The heads of what comes to the proxy: CONNECT from the agent, and plain requests from squid. Strict, and pure.

What two programs could read differently is refused: several lengths, another Host than the target's, control
characters, folded lines, spaces where none belong (RFC 9112 §2.2, §3.2, §5.1, §6.3).
"""

from __future__ import annotations

import json
import re

from coding_agents_guest.egress.hosts import parse_port
from coding_agents_guest.egress.rules import PLAIN, REASONS, TUNNEL, Request
from coding_agents_guest.records import dataclass

MAX_HEAD = 32 * 1024

_LINE = re.compile(r"([A-Z][A-Z-]{0,19}) (\S+) HTTP/1\.[01]")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_TARGET = re.compile(r"http://([^/?#@\s]+)((?:/[^?#\s]*)?)(\?[^#\s]*)?", re.IGNORECASE)
_VISIBLE = re.compile(r"[!-~]+")
# Of one connection alone (RFC 9110 §7.6.1), or of the way to us.
_OF_THIS_HOP = frozenset(
    {
        "connection", "proxy-connection", "keep-alive", "proxy-authorization", "proxy-authenticate", "te", "trailer",
        "upgrade", "via", "forwarded", "x-forwarded-for", "host", "http2-settings",
    }
)  # fmt: skip


class HeadError(ValueError):
    """A head that is not taken."""


@dataclass(frozen=True)
class Head:
    """A request as it was understood; of a plain one also the target's host and path with query, and its fields."""

    request: Request
    place: str = ""
    path: str = ""
    fields: tuple[tuple[str, str], ...] = ()

    def onward(self) -> bytes:
        """The head that a server is sent in place of a plain request's."""
        return self._head(self.path, ())

    def onward_by(self, authorization: str) -> bytes:
        """The head that another proxy is sent in its place."""
        more = (("Proxy-Authorization", authorization),) if authorization else ()
        return self._head(f"http://{self.place}{self.path}", more)

    def _head(self, target: str, more: tuple[tuple[str, str], ...]) -> bytes:
        fields = (("Host", self.place), ("Connection", "close"), *more, *self.fields)
        lines = [f"{self.request.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        return "\r\n".join((*lines, "", "")).encode("latin-1")


def end_of_head(data: bytes) -> int:
    """Where the head ends that `data` begins with, 0 while it has not. Raises HeadError for one that is too long."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD) + 4
    if end < 4 and len(data) >= MAX_HEAD:
        raise HeadError("the head of the request is too long")
    return end if end >= 4 else 0


def parse_connect(head: bytes) -> Head:
    """A CONNECT to HOST:PORT, whose name is not judged yet. Raises HeadError."""
    method, target, fields = _parse(head)
    host, colon, port = target.rpartition(":")
    if method != "CONNECT" or not colon or not host:
        raise HeadError(f"not a tunnel's target: {target[:80]!a}")
    named = [value for name, value in fields if name == "host"]
    if len(named) > 1 or (named and named[0].lower() not in (target.lower(), host.lower())):
        raise HeadError("Host names another host than the tunnel leads to")
    if any(name in ("content-length", "transfer-encoding") for name, _ in fields):
        raise HeadError("a request for a tunnel has no body")
    return Head(Request(TUNNEL, host, _port(port)))


def parse_plain(head: bytes) -> Head:
    """A request for `http://HOST[:PORT]/…`. Raises HeadError.

    What goes on in its place is made anew of what was understood, and ends the connection with its answer.
    """
    method, target, fields = _parse(head)
    found = _TARGET.fullmatch(target)
    if found is None or method == "CONNECT":
        raise HeadError(f"not the target of a plain request: {target[:80]!a}")
    host, colon, port = found[1].partition(":")
    names = [name for name, _ in fields]
    if names.count("content-length") + names.count("transfer-encoding") > 1:
        raise HeadError("a request with several lengths is not taken")
    if not all(value.lower() == "chunked" for name, value in fields if name == "transfer-encoding"):
        raise HeadError("a transfer coding is not known")
    path = found[2] or "/"
    request = Request(PLAIN, host, _port(port) if colon else 80, method, path)
    kept = tuple((name, value) for name, value in fields if name not in _OF_THIS_HOP)
    return Head(request, found[1], f"{path}{found[3] or ''}", kept)


def refusal(reason: str, request: Request | None, *, rule: str = "", status: int = 403) -> bytes:
    """A whole answer that says why, for programs and for people; what the guest sent stands in it as JSON alone."""
    host = request.host[:253] if request is not None else ""
    body = {
        "error": "refused by coding-agents",
        "reason": reason,
        "explained": REASONS.get(reason, reason),
        "host": host,
        "port": request.port if request is not None else 0,
        "rule": rule,
        "hint": _hint(reason, host),
    }
    text = json.dumps(body, indent=1).encode() + b"\n"
    words = {
        400: "Bad Request",
        403: "Forbidden",
        429: "Too Many Requests",
        502: "Bad Gateway",
        503: "Unavailable",
    }
    head = (
        f"HTTP/1.1 {status} {words[status]}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
        f"X-Coding-Agents-Reason: {reason}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + text


def _hint(reason: str, host: str) -> str:
    if reason in ("not-listed", "port", "scheme", "method", "path"):
        return f"A person can allow it on the host: coding-agents allowlist add {ascii(host)[1:-1]}"
    return "Run coding-agents-why URL for more."


def _parse(head: bytes) -> tuple[str, str, list[tuple[str, str]]]:
    """Method, target and fields (names in lower case). Raises HeadError."""
    line, *rest = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    found = _LINE.fullmatch(line)
    if found is None or not _VISIBLE.fullmatch(found[2]):
        raise HeadError(f"not a request: {line[:80]!a}")
    fields = []
    for one in rest:
        name, colon, value = one.partition(":")
        if not (colon and _NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise HeadError(f"not a header: {one[:80]!a}")
        fields.append((name.lower(), value.strip(" \t")))
    return found[1], found[2], fields


def _port(text: str) -> int:
    try:
        return parse_port(text)
    except ValueError as error:
        raise HeadError(str(error)) from error
