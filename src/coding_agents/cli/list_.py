"""`coding-agents list`."""

from __future__ import annotations

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import json_option
from coding_agents.errors import UsageError


@click.command("list")
@click.option("-a", "--all", "ended", is_flag=True, help="Also sessions that have ended.")
@click.option(
    "--watch", "watched", is_flag=True, help="Show them every two seconds, with age, tokens and cost."
)
@json_option("Print a list of session objects.")
@click.pass_obj
def command(app: AppContext, ended: bool, watched: bool, as_json: bool) -> None:
    """Show sessions with their state, branch and network."""
    from coding_agents.app.sessions import observe_all
    from coding_agents.model.session import SessionRecord, to_public
    from coding_agents.terminal.table import render_table

    if watched:
        from coding_agents.cli.watch import watch

        if as_json or not app.env.stdout_tty:
            raise UsageError(
                "--watch needs a terminal, and no --json", hint="Run `list --json` as often as you like."
            )
        watch(app, ended=ended)
        return
    found = observe_all(app.env, app.store, ended=ended)
    for silence in dict.fromkeys(one.silence for one in found if one.silence):
        app.output.say(f"{silence}: the states of its sessions are the last known ones")
    if as_json:
        app.output.result_json(
            [
                to_public(one.record, one.state)
                if isinstance(one.record, SessionRecord)
                else one.record.to_public()
                for one in found
            ]
        )
        return
    rows = [
        (one.record.name, one.state, one.record.branch, one.record.network, one.record.saved.where)
        if isinstance(one.record, SessionRecord)
        else (one.record.id, "failed", "", "", one.record.reason)
        for one in found
    ]
    if not rows:
        app.output.say("no sessions" if ended else "no running sessions; -a shows those that have ended")
        return
    app.output.result(render_table(("NAME", "STATE", "BRANCH", "NETWORK", "WORK"), rows))
