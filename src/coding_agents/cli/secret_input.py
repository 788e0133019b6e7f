"""Reading a secret: from a terminal without echo, else from standard input. Never from the command line."""

from __future__ import annotations

import sys

import click

from coding_agents.cli.context import AppContext


def read_secret(app: AppContext, what: str) -> str:
    """The secret that the user types or pipes in. Raises CredentialError."""
    from coding_agents.credentials.values import MAX_BYTES, secret_text

    if app.env.stdin_tty:
        typed: str = click.prompt(what, hide_input=True, err=True, default="", show_default=False)
        return secret_text(typed.encode("utf-8", "surrogateescape"), source="what you typed")
    return secret_text(sys.stdin.buffer.read(MAX_BYTES + 3), source="standard input")


def tell_kept(app: AppContext, provider: str) -> None:
    """How a secret is kept, honestly."""
    where = app.env.config_dir / "secrets.json"
    if provider == "age":
        app.output.say(f"kept in {where}, encrypted with age")
    else:
        app.output.say(
            f"kept in {where}, not encrypted: your own programs, root and backups can read it. "
            "`coding-agents config set secrets.age_identity FILE` encrypts what is set from then on"
        )
