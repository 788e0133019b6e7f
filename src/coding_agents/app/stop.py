"""Ending a session: stop it, wait for it. The supervisor saves; here it is asked and believed."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from coding_agents.model.session import Saved
from coding_agents.model.spending import Spent
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.protocol import Op

_REMOVED_S = 10.0
_GATE_STOP_S = 10  # nothing but our own program runs there
SETTLE_S = 900.0  # a salvage of a large volume comes on top of the stop timeout


class Ended(msgspec.Struct, frozen=True):
    """How a session ended: the agent's status (None: lost), where the work is, whether `--rm` took the rest.

    `spent` is what it has used of its model.
    """

    exit_status: int | None
    saved: Saved
    removed: bool
    spent: Spent = Spent()


def stop(session: SessionContext, *, timeout_s: int) -> Ended:
    """Save and stop; returns when the work is settled. A session that has ended already is no error."""
    answer = session.supervisor().ask(Op.STOP, timeout_s=timeout_s + SETTLE_S, stop_timeout_s=timeout_s)
    return _ended(session, answer)


def stop_at_gate(session: SessionContext) -> None:
    """Stop a start whose gate stays closed: there is nothing to save. The caller holds the session's lock."""
    record, engine = session.record, session.engine
    for container in (record.container_id, record.holder_id):
        if container:
            engine.stop(container, timeout_s=_GATE_STOP_S)
    session.update(phase="stopped", started_at="")
    session.supervisor().quit()


def wait(session: SessionContext, *, timeout_s: float | None = None) -> Ended:
    """Wait until the session has ended and its work is settled. Raises AnswerLostError after `timeout_s`."""
    return _ended(session, session.supervisor().ask(Op.WAIT, timeout_s=timeout_s))


def salvage(session: SessionContext) -> Ended:
    """Compare the volume of an ended session with what is home, and bring home what is missing."""
    return _ended(session, session.supervisor().ask(Op.SALVAGE, timeout_s=SETTLE_S))


def _until_removed(session: SessionContext) -> None:
    """The supervisor of a `--rm` session removes its own directory as its last act."""
    deadline = time.monotonic() + _REMOVED_S
    while session.directory.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def _ended(session: SessionContext, answer: dict[str, Any]) -> Ended:
    """What the supervisor answers, once the session's directory is gone where `--rm` removes that."""
    saved = dict(answer["saved"])
    saved.update({key: tuple(saved.get(key, ())) for key in ("left_out", "nested")})
    removed = bool(answer.get("removed"))
    if removed:
        _until_removed(session)
    spent = Spent(**answer.get("spent", {}))
    return Ended(answer.get("exit_status"), Saved(**saved), removed, spent)
