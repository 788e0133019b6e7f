"""The pkt-line framing of git's wire protocol, and the command section of a push (no IO).

Formats: gitprotocol-common(5) "pkt-line", gitprotocol-pack(5) "Reference Update Request and Packfile
Transfer" and "Report Status". The bytes come from a hostile guest: every length is bounded, and what
cannot be parsed is an error, never skipped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from coding_agents.model.refs import Oid, RefUpdate

MAX_PKT = 65520
"""Longest pkt-line including its four length digits."""
MAX_SECTION = 64 * 1024
"""Longest command section that we read."""
MAX_COMMANDS = 64
MAX_OPTIONS = 16

FLUSH = b"0000"
_LENGTH = re.compile(rb"[0-9a-f]{4}", re.IGNORECASE)
_COMMAND = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64}) ([0-9a-f]{40}|[0-9a-f]{64}) ([^\x00\n]+)")
_SHALLOW = re.compile(rb"shallow (?:[0-9a-f]{40}|[0-9a-f]{64})")
_SIDEBAND_DATA = 1
_SIDEBAND_PROGRESS = 2
_SIDEBAND_MAX = 65515  # a side-band-64k packet less length and channel


class PktlineError(Exception):
    """The guest does not speak git's protocol, or exceeds a bound of ours. Never leaves the relay."""


class PushCommands(msgspec.Struct, frozen=True):
    """A parsed command section. `raw` is exactly what was read, to be forwarded; `rest` came after it.

    `options` are those of `git push -o`, which are part of `raw`.
    """

    updates: tuple[RefUpdate, ...]
    capabilities: frozenset[str]
    raw: bytes
    rest: bytes
    options: tuple[str, ...] = ()


class Splitter:
    """Cuts a byte stream into pkt-lines, of which all that are taken may be `limit` bytes long."""

    def __init__(self, *, limit: int) -> None:
        self._buffer = bytearray()
        self._limit = limit
        self._seen = 0

    def add(self, data: bytes) -> None:
        """Take more bytes from the stream."""
        self._buffer += data

    def take(self) -> tuple[bool, bytes | None]:
        """(True, payload or None for flush) when a whole packet is there, else (False, None).

        Raises PktlineError for a malformed length, or when the packets exceed the limit.
        """
        header = bytes(self._buffer[:4])
        if len(header) == 4 and _LENGTH.fullmatch(header) is None:
            raise PktlineError("malformed packet length from the guest")
        size = int(header, 16) if len(header) == 4 else 4
        if size in (1, 2, 3) or size > MAX_PKT:
            raise PktlineError("malformed packet length from the guest")
        if self._seen + max(size, 4) > self._limit:
            raise PktlineError(f"the guest's request is longer than {self._limit} bytes")
        if len(header) < 4 or len(self._buffer) < size:
            return False, None
        payload = None if size == 0 else bytes(self._buffer[4:size])
        consumed = max(size, 4)
        del self._buffer[:consumed]
        self._seen += consumed
        return True, payload

    @property
    def rest(self) -> bytes:
        """Bytes that were added and not taken."""
        return bytes(self._buffer)


class CommandReader:
    """Reads the command section of a push, however it is cut into chunks; push options only where `options` says so."""

    def __init__(self, *, options: bool = False) -> None:
        self._splitter = Splitter(limit=MAX_SECTION)
        self._raw = bytearray()
        self._updates: list[RefUpdate] = []
        self._capabilities: frozenset[str] | None = None
        self._with_options = options
        self._options: list[str] | None = None

    def feed(self, data: bytes) -> PushCommands | None:
        """Take more bytes; the commands once the section is complete. Raises PktlineError."""
        self._splitter.add(data)
        while True:
            complete, payload = self._splitter.take()
            if not complete:
                return None
            if payload is None:
                self._raw += FLUSH
                if self._options is None and "push-options" in (self._capabilities or ()):
                    self._options = []  # a section of its own follows (gitprotocol-pack(5))
                    continue
                return PushCommands(
                    tuple(self._updates),
                    self._capabilities or frozenset(),
                    bytes(self._raw),
                    self._splitter.rest,
                    tuple(self._options or ()),
                )
            self._raw += pkt(payload)
            if self._options is None:
                self._line(payload)
            else:
                self._option(payload)

    def _option(self, payload: bytes) -> None:
        if self._options is None or len(self._options) == MAX_OPTIONS:
            raise PktlineError(f"a push with more than {MAX_OPTIONS} options is refused")
        self._options.append(payload.removesuffix(b"\n").decode("utf-8", "surrogateescape"))

    def _line(self, payload: bytes) -> None:
        line, separator, capabilities = payload.partition(b"\0")
        line = line.removesuffix(b"\n")
        if line.startswith(b"push-cert"):
            raise PktlineError("push certificates are refused")
        if _SHALLOW.fullmatch(line) and not separator:
            return
        match = _COMMAND.fullmatch(line)
        if match is None or len(match[1]) != len(match[2]):
            raise PktlineError("malformed push command from the guest")
        if (self._capabilities is None) != bool(separator):
            raise PktlineError("capabilities belong to the first push command, and only to it")
        if separator:
            self._capabilities = _parse_capabilities(capabilities, options=self._with_options)
        if len(self._updates) == MAX_COMMANDS:
            raise PktlineError(f"a push of more than {MAX_COMMANDS} refs is refused")
        self._updates.append(
            RefUpdate(_oid(match[1]), _oid(match[2]), match[3].decode("utf-8", "surrogateescape"))
        )


def pkt(payload: bytes) -> bytes:
    """One pkt-line. `payload` is at most MAX_PKT - 4 bytes."""
    return b"%04x" % (len(payload) + 4) + payload


def refusal_report(commands: PushCommands, reasons: Sequence[str]) -> bytes:
    """What receive-pack would answer if it refused each update with the reason at the same place.

    The client shows `! [remote rejected] BRANCH -> BRANCH (REASON)`. A client that asked for no report
    gets none.
    """
    return report(commands, reasons)


def report(commands: PushCommands, reasons: Sequence[str]) -> bytes:
    """receive-pack's answer: for each update why it is refused, or "" where it was done. See `refusal_report`."""
    body = b""
    if commands.capabilities & {"report-status", "report-status-v2"}:
        lines = [b"unpack ok\n"]
        for update, reason in zip(commands.updates, reasons, strict=True):
            ref = update.ref.encode("utf-8", "surrogateescape")
            lines.append(b"ng " + ref + b" " + _one_line(reason) + b"\n" if reason else b"ok " + ref + b"\n")
        body = b"".join(pkt(line) for line in lines) + FLUSH
    if "side-band-64k" not in commands.capabilities:
        return body
    pieces = (body[start : start + _SIDEBAND_MAX] for start in range(0, len(body), _SIDEBAND_MAX))
    return b"".join(pkt(bytes([_SIDEBAND_DATA]) + piece) for piece in pieces) + FLUSH


def progress(commands: PushCommands, text: str) -> bytes:
    """Packets that a client shows as lines `remote: TEXT`; nothing for one that takes none (side-band-64k)."""
    if "side-band-64k" not in commands.capabilities:
        return b""
    lines = text.encode("utf-8", "backslashreplace")
    pieces = (lines[start : start + _SIDEBAND_MAX] for start in range(0, len(lines), _SIDEBAND_MAX))
    return b"".join(pkt(bytes([_SIDEBAND_PROGRESS]) + piece) for piece in pieces)


def keepalive(commands: PushCommands) -> bytes:
    """A packet that says nothing and shows that we are there, as receive-pack's own."""
    return pkt(bytes([_SIDEBAND_DATA])) if "side-band-64k" in commands.capabilities else b""


def error_packet(reason: str) -> bytes:
    """An `ERR` packet, which a git client shows as `fatal: remote error: REASON`."""
    return pkt(b"ERR " + _one_line(reason))


def _one_line(text: str) -> bytes:
    return " ".join(text.split()).encode("utf-8", "backslashreplace")[:400]


def _parse_capabilities(raw: bytes, *, options: bool) -> frozenset[str]:
    try:
        names = frozenset(raw.decode("ascii").split())
    except UnicodeDecodeError:
        raise PktlineError("malformed capabilities from the guest") from None
    if "push-options" in names and not options:
        raise PktlineError("push options are refused")
    return names


def _oid(raw: bytes) -> Oid | None:
    text = raw.decode("ascii")
    return Oid.parse(text) if text.strip("0") else None
