"""Where requests for packages may go, and how an index's own addresses are written for the inside. Pure.

A place keeps its whole path inside, below its name: relative links of an index then lead to the same index.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urljoin

import msgspec

from coding_agents.brokers.http.upstream import Address, parse_address
from coding_agents.model.registry import Registry, labelled, path_of

MAX_TARGET = 2048
# What needs no decoding to know where it leads (RFC 3986 2.1): no control, '%', '.', '/' or '\\' is escaped, but for
# the slash behind a scope, as npm asks for @scope%2fname.
_HARMLESS = re.compile(r"%(?!2[5ef]|5c|7f)[2-7][0-9a-f]", re.IGNORECASE)
_SCOPED = re.compile(r"(/@[A-Za-z0-9~][A-Za-z0-9~._-]*)%2f(?=[A-Za-z0-9~][A-Za-z0-9~._-]*\Z)", re.IGNORECASE)
_TARGET = re.compile(r"/[A-Za-z0-9/._~!$&'()*+,:=@-]*")
_QUERY = re.compile(r"[A-Za-z0-9/._~!$&'()*+,:;=@?%-]*")


class Place(msgspec.Struct, frozen=True):
    """One address of an index: its origin, the path that requests stay below, and its name inside."""

    label: str
    registry: Registry
    address: Address
    base: str

    def holds(self, path: str) -> bool:
        """Whether `path` is the base or below it, in every reading of it."""
        plain = plain_path(path)
        if plain is None:
            return False
        return plain == self.base or plain.startswith(f"{self.base}/")


def plain_path(path: str) -> str | None:
    """A path as everybody reads it, for a comparison; None for one that could be read in two ways."""
    plain = _HARMLESS.sub("x", _SCOPED.sub(r"\1/", path))
    parts = plain.split("/")[1:]
    if not _TARGET.fullmatch(plain) or "" in parts[:-1] or any(part in (".", "..") for part in parts):
        return None
    return plain


def is_taken(path: str) -> bool:
    """Whether a guest's path may be looked at, in place of the brokers' usual rule."""
    return len(path) <= MAX_TARGET and plain_path(path) is not None


class Places:
    """All places of one session, on `port` of the container's loopback."""

    def __init__(self, entries: Iterable[Registry], port: int) -> None:
        self._here = f"http://127.0.0.1:{port}"
        found = (
            (label, entry, parse_address(url), path_of(url))
            for label, (entry, url) in labelled(entries).items()
        )
        self.all = tuple(
            Place(label, entry, Address(address.scheme, address.host, address.port), base)
            for label, entry, address, base in found
            if address is not None
        )

    def asked(self, path: str) -> tuple[Place, str] | None:
        """The place that a guest's path names, and the path there; None for what leads to none."""
        label, _, rest = path[1:].partition("/")
        target = f"/{rest}"
        place = next((one for one in self.all if one.label == label), None)
        return (place, target) if place is not None and place.holds(target) else None

    def inward(self, url: str, *, seen_from: Place, at: str) -> str:
        """An index's address (relative to the path `at`) as the inside reaches it; "" for one that leads elsewhere."""
        try:
            whole = urljoin(f"{seen_from.address.scheme}://{seen_from.address.authority}{at}", url)
        except ValueError:
            return ""
        whole, _, fragment = whole.partition("#")
        whole, mark, query = whole.partition("?")
        address = parse_address(whole)
        if not url or address is None or not is_query(query):
            return ""
        path = path_of(whole)
        same = (one for one in self._nearest(seen_from) if _origin(one.address) == _origin(address))
        place = next((one for one in same if one.holds(path)), None)
        if place is None:
            return ""
        return f"{self._here}/{place.label}{path}{mark}{query}" + (f"#{fragment}" if fragment else "")

    def replacements(self, page_of: Place) -> dict[bytes, bytes]:
        """What is written otherwise in a page inside: beginnings of addresses that lead to a place, up to a `/`."""
        found: dict[bytes, bytes] = {}
        for place in self._nearest(page_of):
            inside, base = f"{self._here}/{place.label}{place.base}/", f"{place.base}/"
            host = f"[{place.address.host}]" if ":" in place.address.host else place.address.host
            for origin in (place.address.authority, f"{host}:{place.address.port}"):
                whole = f"{place.address.scheme}://{origin}{base}"
                found.setdefault(whole.encode(), inside.encode())
                found.setdefault(_escaped(whole), _escaped(inside))
            if _origin(place.address) == _origin(page_of.address) and place.base:
                for before in ('href="', "href='", '"url":"', '"url": "'):
                    found.setdefault(f"{before}{base}".encode(), f"{before}{inside}".encode())
        return found

    def _nearest(self, place: Place) -> list[Place]:
        """All places, that of the page first, then those of its index, the longest base first."""
        return sorted(
            self.all,
            key=lambda one: (one != place, one.registry != place.registry, -len(one.base), one.label),
        )


def is_query(query: str) -> bool:
    return len(query) <= MAX_TARGET and _QUERY.fullmatch(query) is not None


def _escaped(text: str) -> bytes:
    """As JSON may write it, too."""
    return text.replace("/", "\\/").encode()


def _origin(address: Address) -> tuple[str, str, int]:
    return address.scheme, address.host, address.port
