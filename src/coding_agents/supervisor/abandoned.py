"""A start whose verb died before it opened the gate: its container would wait there for ever, and so would `wait`."""

from __future__ import annotations

import asyncio

from coding_agents.errors import CodingAgentsError
from coding_agents.model.session import Phase, SessionRecord
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


def phase_at_gate(record: SessionRecord) -> Phase | None:
    """What a session is whose container has ended at its closed gate, where nothing of the agent's has run.

    As it was before ("stopped"); after a launch nothing that could be used ("failed"). None when the end is to be
    settled as any: the gate was open, or what an earlier start left was never settled (somebody restarted it).
    """
    if record.phase != "starting" or record.started_at:
        return None
    if (
        record.exit_status is not None
    ):  # written by the one who settled the last start, and taken away by the next
        return "stopped"
    return None if record.enforced else "failed"
