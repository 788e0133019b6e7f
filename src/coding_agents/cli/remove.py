"""`coding-agents remove`."""

from __future__ import annotations

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.session_arg import find_session


@click.command("remove")
@click.argument("name")
@click.option("--force", is_flag=True, help="Stop the session first when it runs.")
@click.pass_obj
def command(app: AppContext, name: str, force: bool) -> None:
    """Remove a session: its container, volumes and record, after its work is known to be in the repository.

    The branch is deleted only when another branch contains it.
    """
    from coding_agents.app.remove import remove
    from coding_agents.cli.ending_view import name_few

    removed = remove(find_session(app, name), force=force)
    kept = f"; its work is {removed.kept_ref}" if removed.kept_ref else ""
    gone = "; its merged branch was deleted" if removed.branch_deleted else ""
    app.output.say(f"removed session {removed.name}{kept}{gone}")
    if removed.left_out:
        app.output.say(f"gone     {name_few(removed.left_out)}: left out of its work")
