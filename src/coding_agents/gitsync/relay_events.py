"""What a relay has to tell: facts for the audit log, and refs that moved."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.relay_repo import Identity
from coding_agents.model.refs import Oid
from coding_agents.policy.decide import Allow, Decision


class RelayEvent(msgspec.Struct, frozen=True):
    """A fact for the audit log: type push, push-refused, fetch or fetch-refused; outcome allowed, denied or
    failed. What is denied the guest can cause as often as it likes."""

    type: str
    outcome: str
    tier: int
    rule: str
    subject: str
    detail: Mapping[str, str]


class TipChange(msgspec.Struct, frozen=True):
    """A ref of the relay moved. `archived` names the ref that keeps `old` when `new` does not contain it."""

    identity: Identity
    ref: str
    old: Oid | None
    new: Oid
    archived: str | None


class Recorder:
    """Puts events on record by way of `record`, which raises when it cannot."""

    def __init__(self, record: Callable[[RelayEvent], Awaitable[None]]) -> None:
        self._record = record

    async def attempt(self, event: RelayEvent) -> bool:
        """Whether `event` is on record."""
        try:
            await self._record(event)
        except (CodingAgentsError, OSError):
            return False
        return True

    async def decided(self, decision: Decision, kind: str, subject: str, detail: Mapping[str, str]) -> bool:
        """Whether `decision` is on record as an event of type `kind`."""
        outcome = "allowed" if isinstance(decision, Allow) and kind != "push-refused" else "denied"
        return await self.attempt(
            RelayEvent(
                kind, outcome, decision.tier, decision.rule, subject, {**detail, "reason": decision.reason}
            )
        )
