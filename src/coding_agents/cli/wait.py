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

    status = wait(find_session(app, name)).exit_status
    return 125 if status is None else status
