"""`coding-agents connect`."""

from __future__ import annotations

from contextlib import suppress

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.session_arg import find_session, session_argument


@click.command("connect")
@session_argument()
@click.option("--control", is_flag=True, help="Type as well when somebody else is connected already.")
@click.pass_obj
def command(app: AppContext, name: str, control: bool) -> int:
    """Attach to a session's terminal; a second viewer only reads. Ctrl-b d leaves it running."""
    from coding_agents.app.inside import attach
    from coding_agents.app.start import start
    from coding_agents.app.steps import Trace
    from coding_agents.cli.launch_view import after_leaving, say_given
    from coding_agents.cli.ringing import notices_shown
    from coding_agents.errors import CodingAgentsError, UsageError

    if not (app.env.stdin_tty and app.env.stdout_tty):
        raise UsageError("connect needs a terminal", hint="Use `coding-agents logs` or `exec` in scripts.")
    session = find_session(app, name)
    if start(session, Trace()) is not None:
        app.output.say(f"started session {session.record.name}")
        say_given(app, session)
    status = attach(session, control=control, notices=notices_shown(app))
    with suppress(CodingAgentsError):  # it may have been removed meanwhile
        after_leaving(app, session)
    return status
