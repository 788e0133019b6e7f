"""`coding-agents paste`."""

from __future__ import annotations

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.session_arg import find_session, session_argument


@click.command("paste")
@session_argument()
@click.argument("file", required=False)
@click.pass_obj
def command(app: AppContext, name: str, file: str | None) -> None:
    """Bring an image into a running session and type its path into the agent's terminal, without Enter.

    Without FILE it is the image on the clipboard.
    """
    from coding_agents.app.pasting import paste, read_image
    from coding_agents.terminal.clipboard import clipboard_image

    session = find_session(app, name)
    content = clipboard_image(app.env.environ) if file is None else read_image(app.env.cwd / file)
    app.output.result(paste(session, content))
