"""`coding-agents prune`."""

from __future__ import annotations

import time

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import examples

_UNITS = {"m": 60, "h": 3600, "d": 86400}


@click.command("prune", epilog=examples("prune --dry-run", "prune --older-than 14d"))
@click.option(
    "--older-than",
    default="0m",
    metavar="T",
    help="Only sessions made longer ago: 90m, 12h, 14d (default: all that ended).",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.pass_obj
def command(app: AppContext, older_than: str, dry_run: bool) -> None:
    """Remove ended sessions and what they left. Work is salvaged first; what cannot be saved is kept."""
    from coding_agents.app.prune import prune
    from coding_agents.cli.ending_view import name_few

    age_s = parse_age(older_than)
    now_ms = time.time_ns() // 1_000_000
    found = False
    for one in prune(app.env, app.store, now_ms=now_ms, older_than_s=age_s, dry_run=dry_run):
        found = True
        verb = "kept" if one.kept else "would remove" if dry_run else "removed"
        app.output.result(f"{verb} {one.what}" + (f": {one.kept}" if one.kept else ""))
        if one.left_out:
            app.output.say(f"gone     {name_few(one.left_out)}: left out of its work")
    if not found:
        app.output.say("nothing to remove")


def parse_age(text: str) -> int:
    """`90m`, `12h` or `14d` in seconds. Raises UsageError."""
    from coding_agents.errors import UsageError

    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or unit not in _UNITS or len(number) > 6:
        raise UsageError(f"not an age: {text!r}", hint="Write it like 90m, 12h or 14d.")
    return int(number) * _UNITS[unit]
