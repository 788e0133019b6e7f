"""`coding-agents images`: build, list and prune."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coding_agents.cli.completing import complete_agent, offers
from coding_agents.cli.context import AppContext
from coding_agents.cli.options import json_option

if TYPE_CHECKING:
    from coding_agents.engine.api import Engine

_ENGINE = click.option(
    "--engine",
    metavar="NAME",
    shell_complete=offers("auto", "docker", "podman"),
    help="auto (default), docker or podman.",
)


@click.group("images")
def command() -> None:
    """Build, list and prune the images that sessions run in."""


@command.command()
@click.argument("agents", nargs=-1, metavar="[AGENT|base]...", shell_complete=complete_agent)
@_ENGINE
@click.pass_obj
def build(app: AppContext, agents: tuple[str, ...], engine: str | None) -> None:
    """Build the images of these agents (default: of the configured one) unless they are up to date."""
    from coding_agents.app.images import build_images

    wanted = agents or (app.settings().agent,)
    for ref in build_images(app.env, _engine(app, engine), app.settings(), wanted, say=app.output.say):
        app.output.result(f"{ref.ref} {ref.id}")


@command.command("list")
@_ENGINE
@json_option("Print a list of objects.")
@click.pass_obj
def list_(app: AppContext, engine: str | None, as_json: bool) -> None:
    """Show the images of all agents: present, outdated or missing."""
    from msgspec.structs import asdict

    from coding_agents.images.listing import list_images
    from coding_agents.terminal.table import render_table

    found = list_images(_engine(app, engine), app.env.agents_dir, app.env.pins_dir)
    if as_json:
        app.output.result_json([asdict(image) for image in found])
        return
    rows = [(image.ref, image.state, f"{image.size_bytes / 1e6:.0f} MB") for image in found]
    app.output.result(render_table(("IMAGE", "STATE", "SIZE"), rows))


@command.command()
@_ENGINE
@click.option("--all", "unused", is_flag=True, help="Also current images that no container uses.")
@click.pass_obj
def prune(app: AppContext, engine: str | None, unused: bool) -> None:
    """Remove images of ours that a newer build has replaced."""
    from coding_agents.images.listing import prune_images

    pruned = prune_images(
        _engine(app, engine), unused=unused, user_dir=app.env.agents_dir, pins_dir=app.env.pins_dir
    )
    for name in pruned.removed:
        app.output.result(f"removed {name}")
    for name in pruned.in_use:
        app.output.say(f"kept {name}: a container uses it")
    if not pruned.removed and not pruned.in_use:
        app.output.say("nothing to remove")


def _engine(app: AppContext, choice: str | None) -> Engine:
    from coding_agents.engine.find import find_engine

    return find_engine(app.settings(flags={"engine": choice}).engine, app.env.environ)
