"""The one request line of a git:// connection (gitprotocol-pack(5), "Git Transport"), strictly parsed.

There are two services and one repository; no path, host or extra parameter of the guest's choosing is
ever used for anything. The protocol version is accepted and ignored: the relay always speaks v0.
"""

from __future__ import annotations

import re
from enum import Enum

import msgspec

from coding_agents.gitsync.pktline import PktlineError, Splitter

MAX_REQUEST = 256

_REQUEST = re.compile(
    rb"(git-upload-pack|git-receive-pack) /workspace\0host=coding-agents\0(?:\0version=[12]\0)?"
)


class Service(Enum):
    """What the guest may ask the relay for."""

    FETCH = "git-upload-pack"
    PUSH = "git-receive-pack"


class ServiceRequest(msgspec.Struct, frozen=True):
    """A parsed request line; `rest` are bytes of the conversation that came with it."""

    service: Service
    rest: bytes


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
            raise PktlineError("only git://coding-agents/workspace is served here")
        return ServiceRequest(Service(match[1].decode("ascii")), self._splitter.rest)
