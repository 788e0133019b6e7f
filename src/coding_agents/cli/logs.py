"""`coding-agents logs`."""

from __future__ import annotations

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import examples
from coding_agents.cli.session_arg import find_session, session_argument
from coding_agents.errors import UsageError


@click.command("logs", epilog=examples("logs -f NAME", "logs --tail 50 NAME", "logs --tools NAME"))
@session_argument()
@click.option("-f", "--follow", is_flag=True, help="Go on until the session ends.")
@click.option("--tail", type=click.IntRange(1, 1_000_000), metavar="N", help="Only the last N lines.")
@click.option("--raw", is_flag=True, help="Pass the output on byte by byte, control characters too.")
@click.option("--tools", is_flag=True, help="Instead the tools that the agent says it has called.")
@click.pass_obj
def command(app: AppContext, name: str, follow: bool, tail: int | None, raw: bool, tools: bool) -> int:
    """Show what a session's command has printed."""
    if tools:
        if follow or raw:
            raise UsageError("--tools goes with --tail alone", hint="Leave --follow and --raw out.")
        _show_tools(app, name, tail)
        return 0
    from coding_agents.app.inside import show_output

    session = find_session(app, name)
    return show_output(
        session.engine.logs_command(session.record.container_id, follow=follow, tail=tail), raw=raw
    )


def _show_tools(app: AppContext, name: str, tail: int | None) -> None:
    """From the audit log; nobody but the agent has seen these calls."""
    from collections import deque

    from coding_agents.audit.query import Query, Reading
    from coding_agents.cli.audit import log_lines, time_text
    from coding_agents.model.audit import RecordType

    asked = Query(types=frozenset({RecordType.TOOL_CALL}))
    with log_lines(app.store.find_log(name)) as lines:
        calls = deque(Reading(lines).matching(asked), maxlen=tail)
    if not calls:
        app.output.say("the agent has told of no tool calls")
    for call in calls:
        about = str(call.detail.get("about", ""))
        app.output.result(f"{time_text(call)}  {call.subject}  {about}".rstrip())
