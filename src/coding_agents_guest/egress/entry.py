"""What is told of one request: how it began, and how it ended, with the bytes of both ways."""

from __future__ import annotations

import time

from coding_agents_guest.egress.ledger import Account, Ledger, Limits
from coding_agents_guest.egress.outbox import Outbox
from coding_agents_guest.egress.rules import Request

_MAX_TEXT = 300


class Entry:
    """One request under way. The path is told without its query, which may hold a credential; headers are not told."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._began = time.monotonic()
        self._outcome, self._reason, self._note = "allowed", "", ""
        self.request: Request | None = None
        self.account = Account(Ledger(Limits()))
        self.rule = self.address = self.sni = ""
        self.status = 0

    def of(self, request: Request) -> Request:
        self.request = request
        return request

    def refused(self, reason: str, note: str = "") -> None:
        self._outcome, self._reason, self._note = "denied", reason, note

    def failed(self, reason: str, note: str = "") -> None:
        self._outcome, self._reason, self._note = "failed", reason, note

    def tell_of_begin(self) -> None:
        """It takes longer: tell that it was begun."""
        self._tell("begun")

    def end(self) -> None:
        self._tell(self._outcome)

    def _tell(self, outcome: str) -> None:
        request = self.request
        event: dict[str, object] = {
            "outcome": outcome,
            "scheme": request.scheme if request is not None else "",
            "method": request.method if request is not None else "",
            "host": _text(request.host if request is not None else ""),
            "port": request.port if request is not None else 0,
            "path": _text(request.path if request is not None else ""),
            "rule": _text(self.rule),
            "reason": self._reason,
            "note": _text(self._note),
            "sni": self.sni,
            "address": self.address,
            "status": self.status,
            "up": self.account.up,
            "down": self.account.down,
            "ms": int((time.monotonic() - self._began) * 1000),
        }
        told = {key: value for key, value in event.items() if value or key in ("up", "down", "ms")}
        self._outbox.put(told, passed=bool(self.account.up or self.account.down))


def _text(text: str) -> str:
    """Printable ASCII, bounded: what a guest wrote comes into the record in one reading only."""
    return ascii(text[:_MAX_TEXT])[1:-1]
