"""`coding-agents doctor`."""

from __future__ import annotations

import shlex
import sys

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import json_option


@click.command("doctor")
@click.option("--fix", is_flag=True, help="First load our AppArmor profiles, as root or by sudo.")
@click.option("-y", "yes", is_flag=True, help="With --fix: do not ask.")
@json_option("Print one object with all checks.")
@click.pass_obj
def command(app: AppContext, fix: bool, yes: bool, as_json: bool) -> int:
    """Check this machine for what sessions need. Exits with 1 when something would stop a launch."""
    if fix:
        _load_apparmor(app, yes=yes)
    from msgspec.structs import asdict

    from coding_agents.app.doctor import examine
    from coding_agents.terminal.table import render_table

    checks = examine(app.env, app.store)
    ok = all(check.status != "fail" for check in checks)
    if as_json:
        app.output.result_json({"ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        app.output.result(
            render_table(("CHECK", "STATUS", "DETAIL"), [(c.id, c.status, c.detail) for c in checks])
        )
        for check in checks:
            if check.fix and check.status in ("fail", "warn"):
                app.output.say(f"{check.id}: {check.fix}")
    return 0 if ok else 1


def _load_apparmor(app: AppContext, *, yes: bool) -> None:
    """Show what would be run, ask, and run it."""
    from coding_agents.app.apparmor import load, nothing_to_load, plan_loading
    from coding_agents.cli.narrator import ConsoleNarrator
    from coding_agents.engine.find import find_engine
    from coding_agents.errors import CodingAgentsError

    try:
        info = find_engine(app.settings().engine, app.env.environ).info
    except CodingAgentsError:
        info = None  # the checks tell why; an engine that is started later finds the profiles
    if reason := nothing_to_load(info):
        app.output.say(f"apparmor: {reason}")
        return
    loading = plan_loading(app.env)
    app.output.say("apparmor: to load our profiles, these commands are run:")
    for line in loading.shown():
        app.output.say(f"  {line}")
    if not yes and not ConsoleNarrator(app).confirm("Run them?"):
        app.output.say("apparmor: nothing was run; on a terminal answer y, or give -y")
        return
    load(loading, say=app.output.say, again=f"{shlex.quote(sys.argv[0])} doctor --fix -y")
