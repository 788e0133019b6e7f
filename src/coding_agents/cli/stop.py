"""`coding-agents stop`."""

from __future__ import annotations

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.session_arg import find_session, session_argument


@click.command("stop")
@session_argument()
@click.pass_obj
def command(app: AppContext, name: str) -> None:
    """Save a session's work and stop it. Its volume stays until `remove`."""
    from coding_agents.app.stop import stop
    from coding_agents.cli.ending_view import show_end

    session = find_session(app, name)
    app.output.progress(f"saving and stopping {session.record.name}")
    show_end(app, session, stop(session, timeout_s=app.settings().session_stop_timeout))
