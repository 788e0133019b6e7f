"""`coding-agents logs`."""

from __future__ import annotations

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import examples
from coding_agents.cli.session_arg import find_session, session_argument


@click.command("logs", epilog=examples("logs -f NAME", "logs --tail 50 NAME"))
@session_argument()
@click.option("-f", "--follow", is_flag=True, help="Go on until the session ends.")
@click.option("--tail", type=click.IntRange(1, 1_000_000), metavar="N", help="Only the last N lines.")
@click.option("--raw", is_flag=True, help="Pass the output on byte by byte, control characters too.")
@click.pass_obj
def command(app: AppContext, name: str, follow: bool, tail: int | None, raw: bool) -> int:
    """Show what a session's command has printed."""
    from coding_agents.app.inside import show_output

    session = find_session(app, name)
    return show_output(
        session.engine.logs_command(session.record.container_id, follow=follow, tail=tail), raw=raw
    )
