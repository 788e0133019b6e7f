"""A decision in words: for `coding-agents allowlist explain` on the host and `coding-agents-why` inside. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from coding_agents_guest.egress.rules import PLAIN, REASONS, TUNNEL, Decision, Request, Rules
from coding_agents_guest.records import dataclass

_PORTS = {TUNNEL: 443, PLAIN: 80}


@dataclass(frozen=True)
class Explained:
    """Whether a URL may be asked for, by which rule, or why not, and what else there is to know."""

    url: str
    allowed: bool
    rule: str
    reason: str
    explained: str
    notes: tuple[str, ...]


def explain(rules: Rules, url: str) -> Explained:
    """What the proxy decides about `url`, a bare host means its TLS port. Raises ValueError for what is no URL.

    >>> explain(Rules(), "https://example.org").reason
    'not-listed'
    """
    request = request_of(url)
    found = rules.decide(request)
    notes = tuple(_notes(rules, request, found))
    return Explained(url, found.allowed, found.rule, found.reason, REASONS.get(found.reason, ""), notes)


def request_of(url: str) -> Request:
    """The request that a client makes for `url`. Raises ValueError."""
    if not url.isascii() or not url.isprintable() or " " in url:  # a client would read another one
        raise ValueError("a URL is of visible ASCII characters")
    parts = urlsplit(url if "://" in url else f"{TUNNEL}://{url}")
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("a URL of the web is like https://api.example.org/path")
    port = _PORTS[parts.scheme] if parts.port is None else parts.port
    if parts.scheme == TUNNEL:
        return Request(TUNNEL, parts.hostname, port)
    return Request(PLAIN, parts.hostname, port, "GET", parts.path or "/")


def _notes(rules: Rules, request: Request, found: Decision) -> Iterator[str]:
    host = request.host.lower()
    if found.reason == "not-listed":
        if any(rule.below and rule.host == host for rule in rules.opened):
            yield f"*.{host} allows the names below it, not {host} itself"
        yield f"a person can allow it on the host: coding-agents allowlist add {host}"
    if found.reason == "closed" and found.rule.startswith("model:"):
        yield "the agent reaches its model by the way it was given; --allow of this very host opens it, too"
    if found.allowed and request.scheme == TUNNEL:
        yield "the TLS client must name this host (SNI), and its addresses must be of the public internet"
