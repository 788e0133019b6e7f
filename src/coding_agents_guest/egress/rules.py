"""What a session may reach: rules in the spelling of `network-allowlist.txt`, and the decision on one request. Pure.

A rule is `[METHODS ][http://|https://]HOST[:PORT][/PATH]`. HOST is a name, or `*.NAME` for all names below it but not
NAME itself. Without a port it is 443 for tunnels and 80 for plain HTTP. Methods and a path can be seen in plain HTTP
alone, so they need `http://`; PATH is a prefix that ends at a `/` or at the path's own end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from coding_agents_guest.egress.hosts import MAX_NAME, HostError, parse_host, parse_port
from coding_agents_guest.records import dataclass

TUNNEL, PLAIN = "https", "http"
_DEFAULT_PORT = {TUNNEL: 443, PLAIN: 80}
_METHOD = re.compile(r"[A-Z]{1,20}")
_PATH = re.compile(r"/[A-Za-z0-9/._~!$&'()*+,;=:@-]*")
# Escapes (RFC 3986 §2.1) that are malformed, or of controls, `#`, `%`, `.`, `/`, `;`, `?`, `\\`: what somebody decodes
# could become part of a path's way.
_AMBIGUOUS = re.compile(r"%(?![2-7a-f][0-9a-f])|%(?:2[35ef]|3[bf]|5c|7f)|\\", re.IGNORECASE)
_ESCAPE = re.compile(rb"%(..)")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST_ALONE = re.compile(rf"(\*\.)?((?:{_LABEL}\.)+(?!(?:[0-9]+|0x[0-9a-f]*)$){_LABEL})")
_IGNORED = re.compile(r"(?<=/)/+|;[^/]*")  # by some servers
MAX_RULE = 1024
"""The longest rule, in characters."""


class RuleError(ValueError):
    """A text that is no rule; the message says why, and how to write it."""


@dataclass(frozen=True)
class Rule:
    """One rule: `text` as it was written, and where it comes from (`builtin`, `user`, `launch`, `agent`, …).

    `host` is without its `*.`, which `below` stands for. `scheme` is empty for both kinds, `port` 0 for their own,
    `methods` and `path` are empty for all.
    """

    text: str
    source: str
    host: str
    below: bool = False
    scheme: str = ""
    port: int = 0
    methods: tuple[str, ...] = ()
    path: str = ""

    @property
    def name(self) -> str:
        """How the record and people name it."""
        return f"{self.source}:{self.text}"


@dataclass(frozen=True)
class Request:
    """What is asked for: a tunnel to `host` and `port`, or a plain request with `method` and `path` (no query)."""

    scheme: str
    host: str
    port: int
    method: str = "CONNECT"
    path: str = ""


@dataclass(frozen=True)
class Decision:
    """Whether a request may be made; `rule` is the name of what decided, `reason` a word of REASONS for a refusal."""

    allowed: bool
    rule: str = ""
    reason: str = ""


REASONS = {
    "not-listed": "no rule allows this host",
    "closed": "a rule closes this host",
    "port": "the host is listed, but not with this port",
    "scheme": "the host is listed, but not for this kind of request",
    "method": "the host is listed, but not for this method",
    "path": "the host is listed, but not with this path",
    "ip-literal": "addresses are refused; name a host",
    "bad-host": "this is no name of a host",
    "malformed": "the request is malformed",
    "not-tls": "a tunnel carries TLS; this does not begin with a ClientHello",
    "no-sni": "the TLS client names no host (SNI)",
    "sni": "the TLS client names another host than the tunnel leads to",
    "ech": "the TLS client hides the host that it means (encrypted ClientHello)",
    "address": "the name leads to an address that is not of the public internet",
    "unresolved": "the name leads nowhere",
    "unreachable": "the host does not answer",
    "host-proxy": "the host's own proxy does not let it through",
    "busy": "too many requests at once, or in too short a time",
    "budget": "the session has used up what it may send or receive",
    "unrecorded": "what is asked for cannot be recorded now",
    "not-ready": "the proxy has not been told its rules yet",
}
"""Why a request is refused, by the word that records and answers carry."""


def parse_rule(text: str, source: str) -> Rule:
    """The rule that `text` spells. Raises RuleError.

    >>> parse_rule("*.GitHub.com", "user").host
    'github.com'
    """
    if (plain := _HOST_ALONE.fullmatch(text)) and len(plain[2]) <= MAX_NAME:
        return Rule(text, source, plain[2], bool(plain[1]))  # nearly all there are, and lists can be long
    if len(text) > MAX_RULE or not text.isprintable():
        raise RuleError("a rule is one line of printable characters, at most 1024")
    words = text.split()
    if not 1 <= len(words) <= 2:
        raise RuleError("a rule is a host, with methods before it at most")
    methods = tuple(words[0].split(",")) if len(words) == 2 else ()
    if not all(_METHOD.fullmatch(method) for method in methods):
        raise RuleError(f"not methods: {words[0][:80]!a}; write them like GET,HEAD")
    scheme, separator, rest = words[-1].rpartition("://")
    scheme = scheme.lower()
    if separator and scheme not in _DEFAULT_PORT:
        raise RuleError(f"not a scheme: {scheme[:80]!a}; there are http:// and https://")
    place, slash, path = rest.partition("/")
    path = slash + path
    if (path or methods) and scheme != PLAIN:
        raise RuleError(
            "methods and paths can be seen in plain HTTP alone: begin with http://, or leave them out"
        )
    if path and (not _PATH.fullmatch(path) or _climbs(path)):
        raise RuleError(f"not a path: {path[:80]!a}; a plain prefix, without %, ?, # and ..")
    host, port = _place(place)
    below = host.startswith("*.")
    try:
        name = parse_host(host[2:] if below else host)
    except HostError as error:
        raise RuleError(str(error)) from error
    canonical = " ".join(
        [*([",".join(methods)] if methods else []), _spelled(scheme, below, name, port, path)]
    )
    return Rule(canonical, source, name, below, scheme, port, methods, "" if path == "/" else path)


class Rules:
    """All rules of a session, for many decisions: `opened` allow, `closed` refuse whatever else allows.

    One of `closed` that has no port closes all ports, and one with a path whatever could be read as below it.
    """

    def __init__(self, opened: Iterable[Rule] = (), closed: Iterable[Rule] = ()) -> None:
        self.opened = tuple(opened)
        self.closed = tuple(closed)
        self._opened = _indexed(self.opened)
        self._closed = _indexed(self.closed)

    def decide(self, request: Request) -> Decision:
        """Whether `request` may be made. Total: what is no request is refused.

        >>> Rules([parse_rule("example.org", "user")]).decide(Request("https", "www.example.org", 443)).reason
        'not-listed'
        """
        try:
            host = parse_host(request.host)
        except HostError as error:
            return Decision(False, "", error.reason)
        if request.scheme not in _DEFAULT_PORT:
            return Decision(False, "", "scheme")
        for rule in _about(self._closed, host):
            if not _why_not(rule, request, closes=True):
                return Decision(False, rule.name, "closed")
        reason = "not-listed"
        for rule in _about(self._opened, host):
            why = _why_not(rule, request)
            if not why:
                return Decision(True, rule.name)
            reason = why
        return Decision(False, "", reason)


_Index = dict[str, list[Rule]]


def _indexed(rules: Iterable[Rule]) -> _Index:
    index: _Index = {}
    for rule in rules:
        index.setdefault(f"*.{rule.host}" if rule.below else rule.host, []).append(rule)
    return index


def _about(index: _Index, host: str) -> Iterable[Rule]:
    """The rules whose host is `host`, the nearest first."""
    yield from index.get(host, ())
    rest = host
    while "." in rest:
        rest = rest.partition(".")[2]
        yield from index.get(f"*.{rest}", ())


def _why_not(rule: Rule, request: Request, *, closes: bool = False) -> str:
    """Why the rule, whose host is that of the request, says nothing about it; empty when it does.

    One that `closes` speaks of all ports where it has none, and of whatever path could be read as below its own.
    """
    if rule.scheme and rule.scheme != request.scheme:
        return "scheme"
    if request.port != (rule.port or (request.port if closes else _DEFAULT_PORT[request.scheme])):
        return "port"
    if rule.methods and request.method not in rule.methods:
        return "method"
    if rule.path and not (_may_be_below if closes else _below)(request.path, rule.path):
        return "path"
    return ""


def _below(path: str, prefix: str) -> bool:
    """Whether `path` is `prefix` or below it, in every reading of it: what could be read as climbing is not."""
    return _starts(path, prefix) and _plain(path) is not None


def _may_be_below(path: str, prefix: str) -> bool:
    """Whether it is in any reading: with escapes, doubled slashes, parameters, or one that climbs."""
    plain = _plain(path)
    return plain is None or _starts(_IGNORED.sub("", plain), prefix)


def _starts(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else f"{prefix}/")


@lru_cache(maxsize=256)
def _plain(path: str) -> str | None:
    """The path without escapes; None for one that could be read as another."""
    if _AMBIGUOUS.search(path):
        return None
    try:  # strict: a second spelling of `.` in UTF-8 is none
        plain = _ESCAPE.sub(lambda found: bytes((int(found[1], 16),)), path.encode()).decode()
    except UnicodeError:
        return None
    return None if _climbs(plain) else plain


def _climbs(path: str) -> bool:
    """Whether a part is `.` or `..` to somebody: with parameters, or to who drops dots and spaces at its end."""
    return any(part.startswith(".") and not part.split(";", 1)[0].strip(". ") for part in path.split("/"))


def _place(text: str) -> tuple[str, int]:
    host, colon, port = text.partition(":")
    if not colon:
        return host, 0
    try:
        return host, parse_port(port)
    except ValueError as error:
        raise RuleError(f"{error}; addresses cannot be listed, write HOST or HOST:PORT") from error


def _spelled(scheme: str, below: bool, host: str, port: int, path: str) -> str:
    return "".join(
        (f"{scheme}://" if scheme else "", "*." if below else "", host, f":{port}" if port else "", path)
    )
