"""The argument NAME of every verb that works on one session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coding_agents.cli.context import AppContext

if TYPE_CHECKING:
    from coding_agents.supervisor.context import SessionContext


def find_session(app: AppContext, name: str) -> SessionContext:
    """The session called NAME: by name, container name or unambiguous id prefix. Raises SessionNotFoundError."""
    from coding_agents.supervisor.context import SessionContext

    return SessionContext.find(app.env, app.store, name)
