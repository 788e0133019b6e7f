"""`coding-agents wait`."""

from __future__ import annotations

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.session_arg import find_session, session_argument


@click.command("wait")
@session_argument()
@click.pass_obj
def command(app: AppContext, name: str) -> int:
    """Wait for a session to end, then exit with its agent's status (125 when that is not known)."""
    from coding_agents.app.stop import wait
    from coding_agents.cli.ringing import ring_end

    session = find_session(app, name)
    end = wait(session)
    ring_end(app, session, end)
    status = end.exit_status
    return 125 if status is None else status
