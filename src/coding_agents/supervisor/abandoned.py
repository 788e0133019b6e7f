"""A start whose verb died before it opened the gate: its container would wait there for ever, and so would `wait`."""

from __future__ import annotations

import asyncio

from coding_agents.errors import CodingAgentsError
from coding_agents.supervisor.context import SessionContext

_LOOK_S = 1.0
_STOP_S = 10  # nothing but our own program runs at a closed gate


async def stop_abandoned(session: SessionContext) -> None:
    """Stop the session's container if the verb that brings it up dies; return when it has, or has opened the gate.

    A verb holds the session's lock for as long as it works, and what it undoes itself it undoes under that lock.
    """
    while session.record.phase == "starting":
        if not session.store.is_busy(session.record.id) and session.reload().phase == "starting":
            engine = session.engine
            try:
                await asyncio.to_thread(engine.stop, session.record.container_id, timeout_s=_STOP_S)
            except CodingAgentsError:
                pass  # an engine that is silent now is asked again
            else:
                return
        await asyncio.sleep(_LOOK_S)


def never_began(session: SessionContext) -> bool:
    """Whether a container that has ended was still at its gate: nothing of the agent's has run in this start."""
    record = session.record
    return record.phase == "starting" and not record.started_at


def phase_without_start(session: SessionContext) -> str:
    """What a session is whose start never began: as it was before, or, for a launch, nothing that could be used."""
    return "stopped" if session.record.exit_status is not None else "failed"
