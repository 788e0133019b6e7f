"""Whether a session's guest program is this version's: an older one knows none of the bridge's later options."""

from __future__ import annotations

from coding_agents.errors import StoreError
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.guest_program import GuestProgram


def knows_this_versions_bridge(session: SessionContext) -> bool:
    """Whether what a session was started with is what we would start it with now."""
    try:
        program = GuestProgram.of_this_version(session.env.data_dir, keep=False)
    except StoreError:
        return False
    return program.digest == session.record.guest_digest
