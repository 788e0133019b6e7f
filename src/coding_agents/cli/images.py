"""`coding-agents images`: build, list, update and prune."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coding_agents.cli.completing import complete_agent, offers
from coding_agents.cli.context import AppContext
from coding_agents.cli.options import json_option
from coding_agents.errors import UsageError

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
    """Build, list, update and prune the images that sessions run in."""


@command.command()
@click.argument("agents", nargs=-1, metavar="[AGENT|base|proxy]...", shell_complete=complete_agent)
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
    """Show the images of all agents, and those with packages of MCP servers: present, outdated or missing."""
    from msgspec.structs import asdict

    from coding_agents.app.mcp import trusted_packages
    from coding_agents.images.listing import list_images, list_layers
    from coding_agents.terminal.table import render_table

    chosen = _engine(app, engine)
    found = list_images(chosen, app.env.agents_dir, app.env.pins_dir)
    found += list_layers(chosen, trusted_packages(app.env))
    if as_json:
        app.output.result_json([asdict(image) for image in found])
        return
    rows = [(image.ref, image.state, f"{image.size_bytes / 1e6:.0f} MB") for image in found]
    app.output.result(render_table(("IMAGE", "STATE", "SIZE"), rows))


@command.command()
@click.argument("agents", nargs=-1, metavar="[AGENT]...", shell_complete=complete_agent)
@click.option("--check", "only_look", is_flag=True, help="Only tell what there is.")
@click.option("--version", metavar="V", help="This version instead of the newest (of one agent).")
@click.option("--rollback", is_flag=True, help="Back to what was in use before the latest update.")
@_ENGINE
@click.pass_obj
def update(
    app: AppContext,
    agents: tuple[str, ...],
    only_look: bool,
    version: str | None,
    rollback: bool,
    engine: str | None,
) -> None:
    """Give these agents (default: the configured one) the newest version that npm has.

    The new image is built beside the one in use and given a task in a session of its own, with a scripted model. Only
    when that works does it take the other's place, for launches from then on; --rollback undoes it.
    """
    from coding_agents.app.images import updater
    from coding_agents.cli.narrator import ConsoleNarrator
    from coding_agents.model.packages import release_key

    wanted = agents or (app.settings().agent,)
    if rollback and (only_look or version):
        raise UsageError("--rollback excludes --check and --version", hint="Leave one of them out.")
    if version is not None and (len(wanted) != 1 or release_key(version) is None):
        hint = "Name one agent and write it like 1.2.3."
        raise UsageError(f"--version is for one version of one agent, not {version[:80]!r}", hint=hint)
    updates = updater(app.env, _engine(app, engine), app.settings(), ConsoleNarrator(app))
    for agent in wanted:
        if rollback:
            done = updates.roll_back(agent)
        else:
            done = updates.update(agent, version=version or "", only_look=only_look)
        for package, after in done.after.items():
            app.output.result(_told(done.state, agent, package, done.before.get(package, ""), after))


def _told(state: str, agent: str, package: str, before: str, after: str) -> str:
    """One package as a line of the result."""
    which = f"{agent}: {package} {before}"
    if before == after:
        return f"{which} is the newest" if state in ("newest", "available", "updated") else f"{which} stays"
    return f"{which} -> {after}" + (" is available" if state == "available" else f", {state}")


@command.command()
@_ENGINE
@click.option("--all", "unused", is_flag=True, help="Also current images that no container uses.")
@click.pass_obj
def prune(app: AppContext, engine: str | None, unused: bool) -> None:
    """Remove images of ours that a newer build has replaced, and packages of MCP servers that you trust no more."""
    from coding_agents.app.mcp import trusted_packages
    from coding_agents.images.listing import prune_images

    pruned = prune_images(
        _engine(app, engine),
        unused=unused,
        user_dir=app.env.agents_dir,
        pins_dir=app.env.pins_dir,
        packages=trusted_packages(app.env),
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
