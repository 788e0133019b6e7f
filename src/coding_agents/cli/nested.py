"""`coding-agents nested`."""

from __future__ import annotations

from pathlib import Path

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import examples, json_option
from coding_agents.cli.session_arg import find_session, session_argument


@click.command(
    "nested", epilog=examples("nested demo-shop-session-1", "nested demo-shop-session-1 libs/parser")
)
@session_argument()
@click.argument("path", required=False)
@click.option(
    "--into",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Another place than PATH in the session's repository.",
)
@json_option("Print the list, or what was taken over, as JSON.")
@click.pass_obj
def command(app: AppContext, name: str, path: str | None, into: Path | None, as_json: bool) -> None:
    """List the repositories inside a session's work tree that came back, or take one over.

    Changed submodules come back as refs of their own repository, others that the agent made as refs of the
    session's. With PATH its commits go to a branch of the repository at PATH, which is made when nothing is there; no
    file is checked out.
    """
    from coding_agents.app.nested import nested_of, take
    from coding_agents.errors import UsageError
    from coding_agents.terminal.escape import escape

    session = find_session(app, name)
    found = nested_of(session)
    if path is None:
        if into is not None:
            raise UsageError("--into needs PATH", hint="Name the repository to take over.")
        if as_json:
            app.output.result_json([{"path": one.path, "ref": one.ref, "tip": one.tip} for one in found])
            return
        for one in found:
            app.output.result(f"{escape(one.path)}\t{one.tip[:12]}\t{one.ref}\n")
        if not found:
            app.output.say(f"no repository inside the work tree of {session.record.name} has come back")
        return
    taken = take(session, found, path, into=into)
    if as_json:
        app.output.result_json(
            {"path": path, "into": str(taken.into), "branch": taken.branch, "made": taken.made}
        )
        return
    what = "new repository" if taken.made else "repository"
    app.output.say(
        f"branch {taken.branch} is in the {what} at {escape(str(taken.into))}; no file was checked out"
    )
