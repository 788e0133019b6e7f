"""`coding-agents tell`."""

from __future__ import annotations

import sys

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import examples
from coding_agents.cli.session_arg import find_session, session_argument


@click.command("tell", epilog=examples('tell NAME "Now run the tests"', "tell NAME -"))
@session_argument()
@click.argument("text", metavar="TEXT")
@click.pass_obj
def command(app: AppContext, name: str, text: str) -> None:
    """Give the agent of a running session its next prompt; TEXT is - for standard input."""
    from coding_agents.app.tell import tell

    if text == "-":
        text = sys.stdin.buffer.read().decode("utf-8", "replace")
    session = find_session(app, name)
    tell(session, text)
    app.output.say(f"told {session.record.name}")
