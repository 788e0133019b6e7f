"""`coding-agents verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coding_agents.cli.completing import offers
from coding_agents.cli.context import AppContext
from coding_agents.cli.options import examples, json_option

if TYPE_CHECKING:
    from coding_agents.verify.model import Report


@click.command("verify", epilog=examples("verify --quick", "verify --baseline --html report.html"))
@click.option("--quick", is_flag=True, help="Leave out the bombs.")
@click.option(
    "--baseline", is_flag=True, help="Try the same in containers as everybody starts them, for contrast."
)
@click.option("--html", metavar="FILE", help="Write a page that can be sent to somebody.")
@click.option("--all", "every", is_flag=True, help="List every check, not only what was not stopped.")
@click.option(
    "--engine",
    metavar="NAME",
    shell_complete=offers("auto", "docker", "podman"),
    help="auto (default), docker or podman.",
)
@json_option("Print one object with all checks.")
@click.pass_obj
def command(
    app: AppContext,
    quick: bool,
    baseline: bool,
    html: str | None,
    every: bool,
    engine: str | None,
    as_json: bool,
) -> int:
    """Attack sessions of its own from inside, and tell what stopped each attack.

    It works for a throw-away user with a throw-away repository, and sends no packet off this machine. Exits with 39
    when an attack is not stopped.
    """
    from coding_agents.app.verify import Options, verify
    from coding_agents.cli.narrator import ConsoleNarrator
    from coding_agents.errors import BreachError
    from coding_agents.verify.report import to_json, to_lines

    report = verify(app.env, Options(quick=quick, baseline=baseline, engine=engine), ConsoleNarrator(app))
    if html is not None:
        _write(app, html, report)
    if as_json:
        app.output.result_json(to_json(report))
    else:
        app.output.result("\n".join(to_lines(report, every=every)))
    if report.breaches:
        names = sorted({one.id for one in report.breaches})
        raise BreachError(f"{len(names)} attack(s) were not stopped: {', '.join(names[:10])}")
    return 0


def _write(app: AppContext, name: str, report: Report) -> None:
    """The page at `name`. Raises StoreError."""
    from datetime import UTC, datetime

    from coding_agents.errors import StoreError
    from coding_agents.verify.html import to_html

    path = app.env.cwd / name
    try:
        path.write_text(to_html(report, made=datetime.now(UTC).date().isoformat()), "utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
