"""`coding-agents pull`."""

from __future__ import annotations

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import json_option
from coding_agents.cli.session_arg import find_session, session_argument


@click.command("pull")
@session_argument()
@json_option("Print where the work is as JSON.")
@click.pass_obj
def command(app: AppContext, name: str, as_json: bool) -> None:
    """Bring the work of a running session home, without its noticing.

    Its commits go to its branch; its work tree as it stands, committed or not, to a ref beside it.
    """
    from coding_agents.app.pull import pull

    session = find_session(app, name)
    pulled = pull(session)
    if as_json:
        app.output.result_json(
            {"branch": session.record.branch, "integrated": pulled.saved.integrated, "ref": pulled.ref,
             "tip": pulled.tip or "", "note": pulled.saved.note}
        )  # fmt: skip
        return
    if pulled.tip is None:
        app.output.say(f"session {session.record.name} has no work yet")
        return
    note = f" ({pulled.saved.note})" if pulled.saved.note else ""
    app.output.say(f"commits   {pulled.saved.integrated or 'none yet'}{note}")
    app.output.say(f"all work  {pulled.ref}")
