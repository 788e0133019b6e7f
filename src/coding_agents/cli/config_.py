"""`config`: show the effective settings and where each comes from, and change the user's own."""

from __future__ import annotations

import json

import click

from coding_agents.cli.completing import complete_key
from coding_agents.cli.context import AppContext
from coding_agents.cli.options import examples, json_option

_JSON = json_option("Print JSON.")


@click.group()
def command() -> None:
    """Show and change settings."""


@command.command()
@_JSON
@click.pass_obj
def show(app: AppContext, as_json: bool) -> None:
    """Print every setting with its value and where it was set, as a launch here would use them."""
    from msgspec.structs import asdict

    from coding_agents.config.describe import shown_settings
    from coding_agents.config.load import find_project
    from coding_agents.terminal.table import render_table

    shown = list(shown_settings(app.settings(project=find_project(app.env.cwd))))
    if as_json:
        app.output.result_json([asdict(setting) for setting in shown])
        return
    rows = [
        (item.key, item.value, item.source + (", managed" if item.managed else ""), item.where)
        for item in shown
    ]
    app.output.result(render_table(("KEY", "VALUE", "SOURCE", "WHERE"), rows))


@command.command(
    name="set", epilog=examples("config set network.mode restricted", "config set limits.memory 4g")
)
@click.argument("key", shell_complete=complete_key)
@click.argument("value", nargs=-1, required=True)
@click.pass_obj
def set_(app: AppContext, key: str, value: tuple[str, ...]) -> None:
    """Set KEY to VALUE in your own settings file; the items of a list are given one after the other."""
    from coding_agents.config.edit import set_setting

    written = set_setting(app.env.user_config, key, value)
    app.output.say(f"{key} = {written} in {app.env.user_config}")


@command.command()
@click.pass_obj
def path(app: AppContext) -> None:
    """Print where your own settings file is."""
    app.output.result(str(app.env.user_config))


@command.command()
@click.pass_obj
def schema(app: AppContext) -> None:
    """Print the JSON schema of a settings file, for editors."""
    from coding_agents.config.describe import json_schema

    app.output.result(json.dumps(json_schema(), indent=2))
