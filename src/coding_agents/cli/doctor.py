"""`coding-agents doctor`."""

from __future__ import annotations

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import json_option


@click.command("doctor")
@json_option("Print one object with all checks.")
@click.pass_obj
def command(app: AppContext, as_json: bool) -> int:
    """Check this machine for what sessions need. Exits with 1 when something would stop a launch."""
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
