"""Pushes to origin that wait for a person: find them over all sessions, and say yes or no."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from coding_agents.config.environ import HostEnvironment
from coding_agents.errors import ApprovalError
from coding_agents.model.approval import Approval
from coding_agents.model.session import SessionRecord
from coding_agents.proc.git import REMOTE_ENV
from coding_agents.store.approvals import ApprovalStore
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.protocol import Op

_PUSH_S = 1500.0  # one push may wait for another one, and each may take ten minutes


class Asked(msgspec.Struct, frozen=True):
    """A push that was asked for, as it is now, and its session."""

    session: SessionContext
    approval: Approval

    @property
    def name(self) -> str:
        return self.session.record.name

    def to_public(self) -> dict[str, object]:
        """Its object in `approvals --json`."""
        return self.approval.to_public(self.name)


def asked_for(env: HostEnvironment, store: SessionStore, *, decided: bool = False) -> list[Asked]:
    """Those that wait, with `decided` all that are still known, the oldest first. Raises StoreError."""
    found = [one for one in _all(env, store) if decided or one.approval.state == "pending"]
    return sorted(found, key=lambda one: (one.approval.created_ms, one.approval.id))


def find_asked(env: HostEnvironment, store: SessionStore, text: str) -> Asked:
    """The one with this id, or with the only id that begins like this. Raises ApprovalError."""
    matches = [one for one in _all(env, store) if text and one.approval.id.startswith(text)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = ", ".join(one.approval.id for one in matches)
        raise ApprovalError(f"{text[:40]!r} is the beginning of {ids}", hint="Write more of the id.")
    raise ApprovalError(f"no push {text[:40]!r} was asked for")


def decide(asked: Asked, *, grant: bool, reason: str = "") -> Approval:
    """Approve exactly what `asked` was when it was read, or deny it; what has become of it.

    With a yes it has been pushed when this returns, or it is said why not. The supervisor does it, which is started
    when the session has ended; what of our environment leads to credentials counts for it. Raises ApprovalError.
    """
    env = asked.session.env.environ
    answer: dict[str, Any] = asked.session.supervisor().ask(
        Op.DECIDE,
        timeout_s=_PUSH_S,
        id=asked.approval.id,
        binding=asked.approval.binding,
        grant=grant,
        reason=reason,
        env={name: env[name] for name in REMOTE_ENV if name in env},
    )
    return asked.approval.evolve(
        state=answer["state"], reason=str(answer["reason"]), said=str(answer["said"])
    )


def _all(env: HostEnvironment, store: SessionStore) -> Iterator[Asked]:
    now_ms = time.time_ns() // 1_000_000
    for record in store.list():
        if isinstance(record, SessionRecord):
            session = SessionContext(env, store, record)
            for approval in ApprovalStore(session.directory).list():
                yield Asked(session, approval.at(now_ms))
