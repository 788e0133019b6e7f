"""The argument NAME of every verb that works on one session."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from coding_agents.cli.context import AppContext
from coding_agents.errors import CodingAgentsError

if TYPE_CHECKING:
    from coding_agents.supervisor.context import SessionContext


def complete_session(_ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
    """The sessions that a shell may offer, by name; one whose record cannot be read by its id."""
    from coding_agents.config.environ import read_environment
    from coding_agents.model.session import SessionRecord
    from coding_agents.store.sessions import SessionStore

    try:
        sessions = SessionStore(read_environment().state_dir).list()
    except CodingAgentsError:
        return []  # a shell that completes is no place for an error
    names = (one.name if isinstance(one, SessionRecord) else one.id for one in sessions)
    return [name for name in names if name.startswith(start)]


def session_argument(*, required: bool = True) -> Callable[[Any], Any]:
    """NAME as the parameter `name`."""
    return click.argument("name", required=required, shell_complete=complete_session)


def find_session(app: AppContext, name: str) -> SessionContext:
    """The session called NAME: by name, container name or unambiguous id prefix. Raises SessionNotFoundError.

    One whose time is up is ended, whatever the verb.
    """
    from coding_agents.app.sessions import wake_overdue
    from coding_agents.supervisor.context import SessionContext

    session = SessionContext.find(app.env, app.store, name)
    wake_overdue(app.env, app.store, session.record)
    return session
