"""The budgets of a session's relay, and the rules for its origin, from the settings as a supervisor finds them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from coding_agents.config.load import load_settings
from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.relay_limits import DEFAULT_LIMITS, RelayLimits
from coding_agents.model.origin import OriginRules
from coding_agents.model.settings import Settings
from coding_agents.supervisor.context import SessionContext


def relay_limits(session: SessionContext) -> RelayLimits:
    """What the user's, the organisation's and the repository's settings allow.

    Those without the repository's where its file is not in order, and the defaults where the others are not: a mistake
    in a file, which may have come with the work itself, must neither widen anything nor keep work from being saved;
    every launch tells of it.
    """
    settings = _settings(session)
    if settings is None:
        return DEFAULT_LIMITS
    return RelayLimits(
        push_bytes=settings.relay_push,
        object_bytes=settings.relay_object,
        disk_bytes=settings.relay_disk,
        unpacked_bytes=settings.relay_unpacked,
        refs=settings.relay_refs,
    )


def origin_rules(session: SessionContext) -> OriginRules:
    """What the settings say of origin; a mistake in a file is treated alike."""
    settings = _settings(session)
    if settings is None:
        return OriginRules()
    return OriginRules(
        refs=settings.origin_fetch, protected=settings.origin_protected, wait_s=settings.origin_wait
    )


def _settings(session: SessionContext) -> Settings | None:
    tree = session.record.repo.work_tree
    for project in (Path(tree), None) if tree else (None,):
        with suppress(CodingAgentsError):
            return load_settings(session.env, project=project)
    return None
