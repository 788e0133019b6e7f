"""`coding-agents approvals`: pushes of sessions to origin that wait for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import examples, json_option
from coding_agents.errors import ApprovalError, UsageError

if TYPE_CHECKING:
    from coding_agents.app.approvals import Asked
    from coding_agents.model.approval import Approval


def complete_id(_ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
    """The ids of what waits."""
    from coding_agents.app.approvals import asked_for
    from coding_agents.config.environ import read_environment
    from coding_agents.errors import CodingAgentsError
    from coding_agents.store.sessions import SessionStore

    env = read_environment()
    try:
        ids = [one.approval.id for one in asked_for(env, SessionStore(env.state_dir))]
    except CodingAgentsError:
        return []  # a shell that completes is no place for an error
    return [one for one in ids if one.startswith(start)]


_ID = click.argument("approval_id", metavar="ID", shell_complete=complete_id)
_YES = click.option("-y", "--yes", is_flag=True, help="Do not ask once more.")


@click.group("approvals", invoke_without_command=True, epilog=examples("approvals", "approvals watch"))
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, show, approve and deny pushes of sessions to origin. Without a subcommand: list.

    An approval is for what was shown and nothing else: this address, this branch as it is there now, this commit, these
    findings. The host pushes it as you, without hooks and without following a redirect.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_, decided=False, as_json=False)


@command.command("list", epilog=examples("approvals list -a --json"))
@click.option("-a", "--all", "decided", is_flag=True, help="Also those that are decided or have expired.")
@json_option("Print a list of objects.")
@click.pass_obj
def list_(app: AppContext, decided: bool, as_json: bool) -> None:
    """Show what waits, the oldest first."""
    from coding_agents.app.approvals import asked_for
    from coding_agents.terminal.table import render_table

    found = asked_for(app.env, app.store, decided=decided)
    if as_json:
        app.output.result_json([one.to_public() for one in found])
        return
    if not found:
        app.output.say("no push waits for you")
        return
    rows = [_row(one) for one in found]
    app.output.result(render_table(("ID", "STATE", "SESSION", "TO", "BRANCH", "COMMITS", "BLOCKING"), rows))


@command.command(epilog=examples("approvals show 4f2a"))
@_ID
@json_option("Print one object.")
@click.pass_obj
def show(app: AppContext, approval_id: str, as_json: bool) -> None:
    """Show a push: where to, commits, changed files, findings, and what became of it."""
    from coding_agents.app.approvals import find_asked
    from coding_agents.cli.approvals_view import lines

    found = find_asked(app.env, app.store, approval_id)
    if as_json:
        app.output.result_json(found.to_public())
        return
    app.output.result("\n".join(lines(found)))


@command.command(epilog=examples("approvals approve 4f2a"))
@_ID
@_YES
@json_option("Print the object as it is then.")
@click.pass_obj
def approve(app: AppContext, approval_id: str, yes: bool, as_json: bool) -> None:
    """Show a push, ask, and have the host push exactly that to origin, as you."""
    from coding_agents.app.approvals import decide, find_asked
    from coding_agents.cli.approvals_view import lines

    found = find_asked(app.env, app.store, approval_id)
    if not yes:
        if not (app.env.stdin_tty and app.env.stderr_tty):
            raise UsageError(
                "there is no terminal to ask on", hint="Look at it with `approvals show`, then add -y."
            )
        from coding_agents.terminal.keys import discard_typed

        app.output.say("\n".join(lines(found)))
        discard_typed(0)
        if not click.confirm("Push this to origin?", err=True):
            app.output.say("nothing was decided")
            return
    _tell(app, found, decide(found, grant=True), as_json=as_json)


@command.command(epilog=examples("approvals deny 4f2a --reason 'tests fail'"))
@_ID
@click.option("--reason", default="", metavar="TEXT", help="What the agent is told.")
@json_option("Print the object as it is then.")
@click.pass_obj
def deny(app: AppContext, approval_id: str, reason: str, as_json: bool) -> None:
    """Refuse a push; git in the session says so, with the reason. What it brought is dropped."""
    from coding_agents.app.approvals import decide, find_asked

    found = find_asked(app.env, app.store, approval_id)
    _tell(app, found, decide(found, grant=False, reason=reason), as_json=as_json)


@command.command(epilog=examples("approvals watch"))
@click.pass_obj
def watch(app: AppContext) -> None:
    """Show what waits as it comes, and take one key for each: a approves, d denies, s skips, q leaves."""
    if not (app.env.stdin_tty and app.env.stdout_tty):
        raise UsageError(
            "there is no terminal to show it on",
            hint="Use `approvals list --json` and `approvals approve ID -y`.",
        )
    from coding_agents.cli.approvals_view import watch_approvals

    watch_approvals(app)


def _row(one: Asked) -> tuple[str, ...]:
    approval, shown = one.approval, one.approval.shown
    branch = f"{approval.branch} (force)" if approval.wanted.force else approval.branch
    return (
        approval.id, approval.state, one.name, approval.wanted.url, branch, str(shown.commit_count),
        str(shown.blocking),
    )  # fmt: skip


def _tell(app: AppContext, asked: Asked, done: Approval, *, as_json: bool) -> None:
    """What became of it. Raises ApprovalError when origin did not take what was approved."""
    if done.state == "failed":
        raise ApprovalError(
            f"push {done.id} did not reach origin: {done.reason}",
            details=done.said,
            hint="The agent is told; it can push again when that is mended.",
        )
    if as_json:
        app.output.result_json(done.to_public(asked.name))
        return
    for line in done.said.splitlines():
        app.output.say(f"origin: {line}")
    app.output.say(f"{done.state} {done.branch}: {done.wanted.new[:12]} of session {asked.name}")
