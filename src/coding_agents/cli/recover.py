"""`coding-agents recover`."""

from __future__ import annotations

from pathlib import Path

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.session_arg import find_session, session_argument
from coding_agents.errors import UsageError


@click.command("recover")
@session_argument(required=False)
@click.option(
    "--repo",
    metavar="PATH",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where NAME's repository is now, or another that is to have its work.",
)
@click.option(
    "--engine-gone",
    is_flag=True,
    help="The engine that NAME was launched on is gone for good: bring back what was saved before.",
)
@click.pass_obj
def command(app: AppContext, name: str | None, repo: Path | None, engine_gone: bool) -> int:
    """Bring back work that sessions left unsaved, committed or not. Without NAME: of every ended session."""
    from coding_agents.app.recover import recover, recover_all
    from coding_agents.cli.ending_view import show_end
    from coding_agents.supervisor.context import SessionContext

    if name is not None:
        session = find_session(app, name)
        show_end(app, session, recover(session, repo=repo, engine_gone=engine_gone))
        return 0
    if repo is not None or engine_gone:
        option = "--repo" if repo is not None else "--engine-gone"
        raise UsageError(f"{option} needs the NAME of a session", hint="See `coding-agents list -a`.")
    results = recover_all(app.env, app.store)
    if not results:
        app.output.say("nothing to recover: the work of every ended session is in its repository")
    status = 0
    for result in results:
        app.output.say(f"{result.record.name}:")
        if result.ended is not None:
            show_end(app, SessionContext(app.env, app.store, result.record), result.ended)
        elif result.error is not None:
            status = app.output.fail(result.error, as_json=False)
    return status
