"""The one request line of a git:// connection (gitprotocol-pack(5), "Git Transport"), strictly parsed.

There are two services and three kinds of places, of which the guest chooses a number at most; no path, host or extra
parameter of its choosing is ever used for anything. The protocol version is accepted and ignored: we always speak v0.
"""

from __future__ import annotations

import re
from enum import Enum

import msgspec

from coding_agents.gitsync.pktline import PktlineError, Splitter

MAX_REQUEST = 256

WORKSPACE = "workspace"
"""The place of the relay; `origin`, `origin/1`, … are those of `gitsync.origin_place`."""

_REQUEST = re.compile(
    rb"(git-upload-pack|git-receive-pack) /(workspace|origin(?:/[1-9][0-9]?)?)\0host=coding-agents\0"
    rb"(?:\0version=[12]\0)?"
)


class Service(Enum):
    """What the guest may ask the relay for."""

    FETCH = "git-upload-pack"
    PUSH = "git-receive-pack"


class ServiceRequest(msgspec.Struct, frozen=True):
    """A parsed request line; `rest` are bytes of the conversation that came with it."""

    service: Service
    rest: bytes
    place: str = WORKSPACE


class RequestReader:
    """Reads the request line, however it is cut into chunks."""

    def __init__(self) -> None:
        self._splitter = Splitter(limit=MAX_REQUEST)

    def feed(self, data: bytes) -> ServiceRequest | None:
        """Take more bytes; the request once it is complete. Raises PktlineError for any other line."""
        self._splitter.add(data)
        complete, payload = self._splitter.take()
        if not complete:
            return None
        match = _REQUEST.fullmatch(payload or b"")
        if match is None:
            raise PktlineError(
                "only git://coding-agents/workspace and what this session calls origin are served here"
            )
        service, place = match[1].decode("ascii"), match[2].decode("ascii")
        return ServiceRequest(Service(service), self._splitter.rest, place)
