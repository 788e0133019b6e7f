"""`coding-agents cp`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import examples
from coding_agents.cli.session_arg import find_session
from coding_agents.errors import UsageError

if TYPE_CHECKING:
    from coding_agents.app.copying import Copied


@click.command("cp", epilog=examples("cp notes.txt NAME:/tmp", "cp NAME:build/report.html ."))
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option("--max-size", metavar="SIZE", default="1g", help="Refuse to copy more than this (default 1g).")
@click.pass_obj
def command(app: AppContext, source: str, destination: str, max_size: str) -> None:
    """Copy a file or directory into a running session or out of it; one of SRC and DST is NAME:PATH.

    A relative PATH is below the session's work tree. What comes out is placed whole or not at all: links that lead out
    of it, devices and pipes are left out, and nothing but a plain file is replaced.
    """
    from coding_agents.app.copying import copy_in, copy_out
    from coding_agents.model.limits import parse_size

    max_bytes = parse_size(max_size)
    inside, outside = _side(source), _side(destination)
    if inside is not None and outside is None:
        session, path = find_session(app, inside[0]), inside[1]
        copied = copy_out(session, path, app.env.cwd / destination, max_bytes=max_bytes)
    elif outside is not None and inside is None:
        session, path = find_session(app, outside[0]), outside[1]
        copied = copy_in(session, app.env.cwd / source, path, max_bytes=max_bytes)
    else:
        raise UsageError(
            "one of SRC and DST has to be in a session",
            hint="Write that one as NAME:PATH, and ./ before a colon in the other.",
        )
    _tell(app, copied)


def _side(text: str) -> tuple[str, str] | None:
    """Name and path of what is in a session: a colon before any slash says so."""
    name, colon, path = text.partition(":")
    return (name, path) if colon and name and "/" not in name else None


def _tell(app: AppContext, copied: Copied) -> None:
    from coding_agents.terminal.escape import escape

    files = "1 file" if copied.files == 1 else f"{copied.files} files"
    app.output.say(f"copied {files}, {copied.size_bytes} bytes, to {escape(copied.target)}")
    if copied.left_out_count:
        more = copied.left_out_count - len(copied.left_out)
        names = ", ".join(map(escape, copied.left_out)) + (f" and {more} more" if more else "")
        app.output.say(f"left out, as no plain file, or a link that leads out: {names}")
