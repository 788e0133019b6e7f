"""`coding-agents agents`: list, show and check."""

from __future__ import annotations

import click

from coding_agents.cli.completing import complete_agent
from coding_agents.cli.context import AppContext
from coding_agents.cli.options import json_option

_BROKEN = 21  # as for any manifest that is invalid


@click.group("agents")
def command() -> None:
    """List, show and check the agents that there are manifests of."""


@command.command("list")
@json_option("Print a list of objects.")
@click.pass_obj
def list_(app: AppContext, as_json: bool) -> None:
    """Show all agents with their versions, and whose account they would use."""
    from msgspec.structs import asdict

    from coding_agents.app.agents import list_agents
    from coding_agents.terminal.table import render_table

    found = list(list_agents(app.env))
    if as_json:
        app.output.result_json([asdict(one) for one in found])
        return
    rows = [
        (one.name, one.title, next(iter(one.versions.values()), ""), one.age, one.problem or one.login)
        for one in found
    ]
    app.output.result(render_table(("AGENT", "TITLE", "VERSION", "PINNED", "LOGIN"), rows))
    if stale := " ".join(one.name for one in found if one.stale_days):
        app.output.say(f"pinned long ago; is there a newer one? coding-agents images update {stale}")


@command.command()
@click.argument("name", shell_complete=complete_agent)
@json_option("Print one object.")
@click.pass_obj
def show(app: AppContext, name: str, as_json: bool) -> None:
    """Print the manifest of an agent."""
    from datetime import date

    from msgspec import to_builtins

    from coding_agents.app.agents import manifest_text
    from coding_agents.app.pins import origin_told
    from coding_agents.terminal.escape import escape

    source, text = manifest_text(app.env, name)
    if as_json:
        app.output.result_json(to_builtins(source.manifest))
        return
    if pinned := origin_told(app.env, source, date.today()):
        now = ", ".join(" ".join(one.shown) for one in source.manifest.packages.values())
        app.output.say(f"{now}: {pinned}")
    app.output.say(f"{source.path}:")
    app.output.result(escape(text.rstrip("\n"), keep="\n\t"))


@command.command()
@click.argument("names", nargs=-1, metavar="[AGENT]...", shell_complete=complete_agent)
@click.pass_obj
def check(app: AppContext, names: tuple[str, ...]) -> int:
    """Check manifests, and what images are made from (default: of all agents); 21 when one cannot be used."""
    from coding_agents.app.agents import check_agents, list_agents
    from coding_agents.terminal.escape import escape

    found = list(check_agents(app.env, names) if names else list_agents(app.env))
    for one in found:
        app.output.result(f"fail  {one.name}: {escape(one.problem)}" if one.problem else f"ok    {one.name}")
    return _BROKEN if any(one.problem for one in found) else 0
