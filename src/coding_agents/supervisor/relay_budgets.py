"""The budgets of a session's relay, from the settings as they are when its supervisor or a salvage starts."""

from __future__ import annotations

from pathlib import Path

from coding_agents.config.load import load_settings
from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.relay_limits import DEFAULT_LIMITS, RelayLimits
from coding_agents.supervisor.context import SessionContext


def relay_limits(session: SessionContext) -> RelayLimits:
    """What the user's, the organisation's and the repository's settings allow.

    The defaults where the settings cannot be read: a mistake in a file, which may have come with the work itself,
    must not keep work from being saved; every launch tells of it.
    """
    tree = session.record.repo.work_tree
    try:
        settings = load_settings(session.env, project=Path(tree) if tree else None)
    except CodingAgentsError:
        return DEFAULT_LIMITS
    return RelayLimits(
        push_bytes=settings.relay_push,
        object_bytes=settings.relay_object,
        disk_bytes=settings.relay_disk,
        unpacked_bytes=settings.relay_unpacked,
        refs=settings.relay_refs,
    )
