"""`coding-agents start`."""

from __future__ import annotations

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.session_arg import find_session, session_argument


@click.command("start")
@session_argument()
@click.option("--trace", "show_trace", is_flag=True, help="Print how long each step took.")
@click.pass_obj
def command(app: AppContext, name: str, show_trace: bool) -> None:
    """Start a stopped session again, in the workspace as it was left.

    Its COMMAND is run again. The task of -p is not: the agent is opened on a terminal, for `connect`.
    """
    from coding_agents.app.model import model_told
    from coding_agents.app.start import start
    from coding_agents.app.steps import Trace
    from coding_agents.cli.banner import banner
    from coding_agents.cli.launch_view import render_trace
    from coding_agents.supervisor.credentials_kept import read_given as credentials_given
    from coding_agents.supervisor.registry_kept import read_given

    session, trace = find_session(app, name), Trace()
    enforced = start(session, trace)
    if enforced is None:
        app.output.say(f"session {session.record.name} is running already")
        return
    indexes = dict.fromkeys(one.kind for one in read_given(session.directory))
    given = credentials_given(session.directory)
    for line in banner(session.record, model=model_told(session), registries=indexes, given=given):
        app.output.say(line)
    if session.record.mode == "tmux":
        app.output.say(f"agent    waits on its terminal: `coding-agents connect {session.record.name}`")
    if show_trace:
        app.output.say(render_trace(trace))
