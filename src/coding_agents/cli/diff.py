"""`coding-agents diff`."""

from __future__ import annotations

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.session_arg import find_session, session_argument


@click.command("diff")
@session_argument()
@click.option("--stat", is_flag=True, help="Only the changed files with their numbers of lines.")
@click.pass_obj
def command(app: AppContext, name: str, stat: bool) -> None:
    """Show what a session has changed so far; of a running one its work tree as it stands."""
    from coding_agents.app.work import current_range, diff
    from coding_agents.terminal.escape import escape

    session = find_session(app, name)
    commits = current_range(session)
    if commits.unsaved:
        app.output.say(f"{escape(commits.unsaved)}; this shows what was pushed before")
    if commits.tip is None:
        app.output.say(f"session {session.record.name} has no commits yet")
        return
    for piece in diff(session, commits, stat=stat):
        app.output.result(piece)
