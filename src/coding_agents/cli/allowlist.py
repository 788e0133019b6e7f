"""`coding-agents allowlist`: what sessions of network mode `squid` may reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import examples, json_option
from coding_agents.cli.session_arg import complete_session, find_session

if TYPE_CHECKING:
    from coding_agents.supervisor.context import SessionContext

_Command = TypeVar("_Command", bound=Callable[..., object])


@click.group("allowlist")
def command() -> None:
    """Show and change what sessions of network mode squid may reach.

    A RULE is a host (api.example.org), all names below one (*.example.org, which leaves out example.org itself), either
    with :PORT, or a part of plain HTTP (GET,HEAD http://mirror.example.org/debian/). Without a port it is 443 for TLS
    and 80 for plain HTTP. Your own rules are in ~/.config/coding-agents/network-allowlist.txt; sessions that run follow
    it within two seconds.
    """


def _of_session(function: _Command) -> _Command:
    return click.option(
        "--session",
        "name",
        default="",
        metavar="NAME",
        shell_complete=complete_session,
        help="Of this session alone (default: of all).",
    )(function)


@command.command(epilog=examples("allowlist show", "allowlist show --session NAME --json"))
@_of_session
@json_option("Print a list of objects.")
@click.pass_obj
def show(app: AppContext, name: str, as_json: bool) -> None:
    """Show all rules with where each comes from."""
    from coding_agents.app.allowlist import rules_of
    from coding_agents.terminal.table import render_table

    rules = rules_of(app.env, _session(app, name))
    rows = [(rule.text, "allow", rule.source) for rule in rules.opened]
    rows += [(rule.text, "close", rule.source) for rule in rules.closed]
    if as_json:
        app.output.result_json([dict(zip(("rule", "effect", "source"), row, strict=True)) for row in rows])
        return
    if not rules.opened:
        app.output.say("no rule allows anything: every request is refused")
    app.output.result(render_table(("RULE", "EFFECT", "SOURCE"), rows))


@command.command(
    epilog=examples(
        "allowlist add api.example.org '*.example.org'", "allowlist add --session NAME pypi.example.org"
    )
)
@click.argument("rules", nargs=-1, required=True, metavar="RULE...")
@_of_session
@click.pass_obj
def add(app: AppContext, rules: tuple[str, ...], name: str) -> None:
    """Allow what these rules say, all or none of them."""
    from coding_agents.app import allowlist

    new = allowlist.add(app.env, _session(app, name), rules)
    app.output.say(f"allowed {', '.join(new)}" if new else "all of that was allowed already")


@command.command(epilog=examples("allowlist remove api.example.org"))
@click.argument("rules", nargs=-1, required=True, metavar="RULE...")
@_of_session
@click.pass_obj
def remove(app: AppContext, rules: tuple[str, ...], name: str) -> None:
    """Take back rules that you have added, all or none of them. Connections that stand are not broken off."""
    from coding_agents.app import allowlist

    gone = allowlist.remove(app.env, _session(app, name), rules)
    app.output.say(f"removed {', '.join(gone)}")


@command.command(
    epilog=examples("allowlist explain https://api.github.com", "allowlist explain http://1.2.3.4/")
)
@click.argument("url")
@_of_session
@json_option("Print one object.")
@click.pass_obj
def explain(app: AppContext, url: str, name: str, as_json: bool) -> None:
    """Tell whether URL may be asked for, and which rule says so or why not. Nothing is sent anywhere."""
    from coding_agents.app.allowlist import explained, rules_of
    from coding_agents_guest.records import asdict

    found = explained(rules_of(app.env, _session(app, name)), url)
    if as_json:
        app.output.result_json(asdict(found))
        return
    said = f"allowed by {found.rule}" if found.allowed else f"refused: {found.explained}"
    app.output.result(said + (f" ({found.rule})" if found.rule and not found.allowed else ""))
    for note in found.notes:
        app.output.say(note)


@command.command(epilog=examples("allowlist suggest NAME"))
@click.argument("name", shell_complete=complete_session)
@json_option("Print a list of objects.")
@click.pass_obj
def suggest(app: AppContext, name: str, as_json: bool) -> None:
    """Propose rules for what session NAME was refused, as narrow as they can be. None is applied: read, then add."""
    import shlex

    from coding_agents.app.allowlist import proposal_of, rules_of
    from coding_agents.audit.query import Query, Reading
    from coding_agents.model.audit import RecordType

    session = find_session(app, name)
    rules, wanted = rules_of(app.env, session), Query(types=frozenset({RecordType.EGRESS}))
    with session.audit_path.open("rb") as lines:
        found = proposal_of(Reading(lines).matching(wanted), rules)
    if as_json:
        app.output.result_json([{"rule": one.rule, "times": one.times} for one in found])
        return
    if not found:
        app.output.say("nothing was refused for want of a rule")
        return
    for one in found:
        app.output.result(f"{shlex.quote(one.rule)}  # refused {one.times} times")
    app.output.say(
        f"allow one: coding-agents allowlist add RULE, for this session alone with --session {name}"
    )


def _session(app: AppContext, name: str) -> SessionContext | None:
    return find_session(app, name) if name else None
