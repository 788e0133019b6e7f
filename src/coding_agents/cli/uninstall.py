"""`coding-agents uninstall`."""

from __future__ import annotations

import sys

import click

from coding_agents.cli.context import AppContext


@click.command("uninstall")
@click.option("-y", "--force", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@click.pass_obj
def command(app: AppContext, force: bool, dry_run: bool) -> None:
    """Remove everything that coding-agents made on this machine, after its sessions are removed."""
    from coding_agents.app.uninstall import inventory, uninstall
    from coding_agents.errors import UsageError

    items = inventory(app.env, app.store)
    for item in items:
        app.output.result(f"would remove {item.what}" if dry_run else f"to be removed: {item.what}")
    if dry_run:
        return
    if not force:
        if not app.env.stdin_tty:
            raise UsageError("nobody to ask", hint="Use -y.")
        app.output.say("Remove all of this? [y/N]")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return
    for line in uninstall(app.env, items):
        app.output.result(line)
