"""`coding-agents review`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import json_option
from coding_agents.cli.session_arg import find_session, session_argument

if TYPE_CHECKING:
    from coding_agents.app.review import Review


@click.command("review")
@session_argument()
@json_option("Print one object.")
@click.pass_obj
def command(app: AppContext, name: str, as_json: bool) -> None:
    """Show what to look at before using what came back of a session; of a running one in its work tree as it stands.

    Nothing of it is run. Whatever is found, the exit status is 0: `blocking` in the object of --json says
    whether a finding asks for a person's word.
    """
    from coding_agents.app.review import review

    found = review(find_session(app, name))
    if as_json:
        app.output.result_json(found.to_public())
        return
    app.output.result("\n".join(_lines(found)))


def _lines(found: Review) -> Iterator[str]:
    from coding_agents.terminal.escape import escape
    from coding_agents.terminal.table import render_table

    base = found.base[:12] if found.base else "nothing"
    yield f"branch   {escape(found.branch)}, from {base}: {found.commits} commit(s), {found.files} file(s)"
    for other in found.others:
        yield f"beside   {escape(other.ref)}"
    if not found.findings:
        yield "findings none"
        return
    yield render_table(*_table(found)).rstrip("\n")
    if found.blocking:
        yield "blocking: look at what is marked `block` before you merge, build or open the branch"


def _table(found: Review) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    # The branch as a whole has no path; an empty cell would make the next one look like one.
    rows = [(one.severity.value, one.rule, one.path or "-", one.detail) for one in found.findings]
    if not any(one.ref for one in found.findings):
        return ("SEVERITY", "RULE", "PATH", "DETAIL"), [*rows]
    where = [one.ref or found.branch for one in found.findings]
    wider = [(*row[:2], place, *row[2:]) for row, place in zip(rows, where, strict=True)]
    return ("SEVERITY", "RULE", "WHERE", "PATH", "DETAIL"), [*wider]
