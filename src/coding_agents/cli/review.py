"""`coding-agents review`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import examples, json_option
from coding_agents.cli.session_arg import find_session, session_argument

if TYPE_CHECKING:
    from coding_agents.app.review import Review
    from coding_agents.supervisor.context import SessionContext


@click.command(
    "review",
    epilog=examples(
        "review demo-shop-session-1",
        'review demo-shop-session-1 --accept ci:.github/workflows/ci.yml --reason "wanted"',
        "review demo-shop-session-1 --html review.html",
        "review --rules",
    ),
)
@session_argument(required=False)
@click.option("--rules", is_flag=True, help="List every rule, with its severity and reason.")
@click.option("--accept", multiple=True, metavar="ID|RULE:PATH", help="Accept a finding as known and wanted.")
@click.option("--withdraw", multiple=True, metavar="ID|RULE:PATH", help="Accept a finding no longer.")
@click.option("--reason", metavar="TEXT", help="Why --accept accepts.")
@click.option("--into", metavar="BRANCH", help="Also look at what merging into BRANCH would change there.")
@click.option("--sarif", is_flag=True, help="Print SARIF 2.1.0, for tools that show findings.")
@click.option("--html", metavar="FILE", help="Write a page with findings, commits and changes.")
@json_option("Print one object; with --rules a list.")
@click.pass_obj
def command(
    app: AppContext,
    name: str | None,
    rules: bool,
    accept: tuple[str, ...],
    withdraw: tuple[str, ...],
    reason: str | None,
    into: str | None,
    sarif: bool,
    html: str | None,
    as_json: bool,
) -> None:
    """Show what to look at before using what came back of a session; of a running one in its work tree as it stands.

    Nothing of it is run. Whatever is found, the exit status is 0: `blocking` in the object of --json says
    whether a finding asks for a person's word. What --accept accepts holds for this very content only: when the agent
    changes it, it is a finding again.
    """
    from coding_agents.errors import UsageError

    if rules:
        _show_rules(app, as_json=as_json)
        return
    if name is None:
        raise UsageError("NAME is missing", hint="`coding-agents list -a` shows the sessions.")
    if sarif and as_json:
        raise UsageError("--sarif and --json are two forms of the same", hint="Choose one.")
    if bool(accept) != (reason is not None):
        raise UsageError(
            "--accept and --reason need each other", hint='Say why: --accept ID --reason "wanted".'
        )
    session = find_session(app, name)
    found = _review(session, into)
    if accept or withdraw:
        found = _give_word(app, session, found, accept=accept, withdraw=withdraw, reason=reason or "")
    if html is not None:
        _write_page(app, session, found, html)
    _show(app, found, as_json=as_json, sarif=sarif, quiet=html is not None or bool(accept or withdraw))


def _review(session: SessionContext, into: str | None) -> Review:
    from coding_agents.app.review import review

    if into is None:
        return review(session)
    from coding_agents.app.merge import review_into

    return review_into(session, into)


def _give_word(
    app: AppContext,
    session: SessionContext,
    found: Review,
    *,
    accept: tuple[str, ...],
    withdraw: tuple[str, ...],
    reason: str,
) -> Review:
    import time

    from msgspec.structs import replace

    from coding_agents.app import accepting

    if withdraw:
        for one in accepting.withdraw(session, found, withdraw):
            app.output.say(f"withdrawn {one.id}  {one.rule} {one.path or '(the branch)'}")
    if accept:
        now_ms = time.time_ns() // 1_000_000
        for one in accepting.accept(session, found, accept, reason=reason, now_ms=now_ms):
            app.output.say(f"accepted  {one.id}  {one.rule} {one.path or '(the branch)'}")
    return replace(found, accepted=accepting.accepted_of(session))


def _show(app: AppContext, found: Review, *, as_json: bool, sarif: bool, quiet: bool) -> None:
    from coding_agents.cli.review_view import lines_of, verdict

    if as_json:
        app.output.result_json(found.to_public())
    elif sarif:
        from coding_agents.cli.review_sarif import to_sarif

        app.output.result_json(to_sarif(found))
    elif quiet:
        app.output.say(verdict(found))
    else:
        app.output.result("\n".join(lines_of(found)))


def _show_rules(app: AppContext, *, as_json: bool) -> None:
    from coding_agents.gitsync.findings.rules import load_rules
    from coding_agents.terminal.table import render_table

    texts = load_rules().texts()
    if as_json:
        app.output.result_json(
            [{"rule": one.id, "severity": one.severity.value, "reason": one.reason} for one in texts]
        )
        return
    rows = [(one.severity.value, one.id, one.reason) for one in texts]
    app.output.result(render_table(("SEVERITY", "RULE", "REASON"), rows))


def _write_page(app: AppContext, session: SessionContext, found: Review, name: str) -> None:
    """The page at `name`. Raises StoreError."""
    from datetime import UTC, datetime

    from coding_agents.app.review_page import page_of
    from coding_agents.cli.review_html import to_html
    from coding_agents.store.files import write_atomic

    page = page_of(session, found)
    made = datetime.now(UTC).isoformat(timespec="minutes")
    write_atomic(app.env.cwd / name, to_html(found, page, made=made).encode("utf-8"))
