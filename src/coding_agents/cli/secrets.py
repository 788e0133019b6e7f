"""`coding-agents secrets`: named secrets of the user."""

from __future__ import annotations

import time
from pathlib import Path

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.dashes import CommandAfterDashes
from coding_agents.cli.options import examples, json_option
from coding_agents.cli.secret_input import read_secret, tell_kept


@click.group("secrets")
def command() -> None:
    """Keep secrets for MCP servers, and name the programs that have them."""


@command.command(
    "set",
    cls=CommandAfterDashes,
    epilog=examples("secrets set DB_PASSWORD", "secrets set JIRA_TOKEN -- op read op://team/jira/token"),
)
@click.argument("name")
@click.pass_obj
def set_(app: AppContext, name: str, command: tuple[str, ...] = ()) -> None:
    """Set the secret NAME: typed without echo, or from standard input. With COMMAND it is what that prints."""
    from coding_agents.credentials.secrets import Secrets, require_name

    require_name(name)
    secrets, now_ms = Secrets(app.env), time.time_ns() // 1_000_000
    if command:
        secrets.set_program(name, command, now_ms=now_ms)
        app.output.say(f"{name} is what {Path(command[0]).name} prints, asked whenever it is needed")
        return
    tell_kept(app, secrets.set({name: read_secret(app, f"Secret {name}")}, now_ms=now_ms))


@command.command("list")
@json_option("Print a list of objects.")
@click.pass_obj
def list_(app: AppContext, as_json: bool) -> None:
    """Show the names of all secrets, where each is kept and since when; never a value."""
    from msgspec.structs import asdict

    from coding_agents.credentials.secrets import Secrets
    from coding_agents.terminal.table import render_table

    found = Secrets(app.env).list()
    if as_json:
        app.output.result_json([asdict(secret) for secret in found])
        return
    rows = [
        (one.name, one.provider, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(one.set_ms / 1000)))
        for one in found
    ]
    app.output.result(render_table(("NAME", "PROVIDER", "SET"), rows))


@command.command("remove", epilog=examples("secrets remove DB_PASSWORD"))
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def remove(app: AppContext, names: tuple[str, ...]) -> None:
    """Forget these secrets, all or none."""
    from coding_agents.credentials.secrets import Secrets

    Secrets(app.env).remove(names)
    app.output.say(f"removed {', '.join(names)}")


@command.command("import", epilog=examples("secrets import ~/.config/coding-agents/mcp-secrets.env"))
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def import_(app: AppContext, file: Path) -> None:
    """Set all secrets of FILE, lines NAME=value, or none when one of them is wrong. FILE stays as it is."""
    from coding_agents.credentials.private import read_private
    from coding_agents.credentials.secrets import Secrets, parse_env_file
    from coding_agents.errors import CredentialError

    try:
        data = read_private(file, home=app.env.home, follow=True)
    except FileNotFoundError as error:
        raise CredentialError(
            f"there is no file {file}", hint="Name a file with lines NAME=value."
        ) from error
    values = parse_env_file(data, origin=str(file))
    provider = Secrets(app.env).set(values, now_ms=time.time_ns() // 1_000_000)
    if values:
        tell_kept(app, provider)
    app.output.say(f"set {', '.join(values) or 'nothing'}; {file} still holds them: remove it")
