"""`coding-agents exec`."""

from __future__ import annotations

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.dashes import CommandAfterDashes
from coding_agents.cli.options import examples, passing_status
from coding_agents.cli.session_arg import find_session, session_argument


@click.command(
    "exec",
    cls=CommandAfterDashes,
    epilog=examples("exec NAME -- git log --oneline -5", "exec NAME -- make test"),
)
@session_argument()
@click.option(
    "--raw", is_flag=True, help="Pass the command's output on byte by byte, control characters too."
)
@click.pass_obj
def command(app: AppContext, name: str, raw: bool, command: tuple[str, ...]) -> int:
    """Run COMMAND as the agent's user in a running session and exit with its status."""
    from coding_agents.app.inside import run_inside
    from coding_agents.errors import UsageError

    if not command:
        raise UsageError("no command to run", hint=f"Write it after --: coding-agents exec {name} -- CMD.")
    with passing_status():
        return run_inside(find_session(app, name), command, raw=raw)
