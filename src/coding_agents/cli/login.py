"""`coding-agents login`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coding_agents.cli.completing import complete_agent
from coding_agents.cli.context import AppContext
from coding_agents.cli.dashes import CommandAfterDashes
from coding_agents.cli.options import examples
from coding_agents.cli.secret_input import read_secret, tell_kept

if TYPE_CHECKING:
    from coding_agents.model.manifest import AgentManifest
    from coding_agents.model.provider import LoginKind


@click.command(
    "login",
    cls=CommandAfterDashes,
    epilog=examples(
        "login claude",
        "login claude --container",
        "login claude --token",
        "login claude --env WORK_ANTHROPIC_KEY",
        "login codex -- op read op://team/openai/key",
    ),
)
@click.argument("agent", shell_complete=complete_agent)
@click.option("--api-key", is_flag=True, help="An API key: typed, piped in, or from --env or COMMAND.")
@click.option("--token", is_flag=True, help="The same with an account's token, as of `claude setup-token`.")
@click.option(
    "--env", "variable", metavar="NAME", help="Take it from this variable of the host, whenever asked."
)
@click.option(
    "--tokens",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Take over a login made for coding-agents alone, from the file that the agent's program wrote.",
)
@click.option(
    "--container",
    is_flag=True,
    help="Log in anew for coding-agents alone: the agent's program asks, in a container that is thrown away.",
)
@click.option("--remove", is_flag=True, help="Forget what was chosen and is kept for it.")
@click.pass_obj
def command(
    app: AppContext,
    agent: str,
    api_key: bool,
    token: bool,
    variable: str | None,
    tokens: Path | None,
    container: bool,
    remove: bool,
    command: tuple[str, ...] = (),
) -> None:
    """Choose the account that AGENT's model is asked with; COMMAND is to print its key.

    Without options: the login of the agent's own program on this host if there is one, else a new one is made as with
    --container where the agent has accounts, else an API key is asked for.
    """
    from coding_agents.app import login
    from coding_agents.credentials.standing import standing
    from coding_agents.errors import UsageError

    _one_of(
        remove=remove,
        tokens=tokens is not None,
        env=bool(variable),
        container=container,
        command=bool(command),
    )
    if (api_key and token) or ((remove or tokens or container) and (api_key or token)):
        raise UsageError("these options exclude each other", hint="See `coding-agents login --help`.")
    kind: LoginKind | None = "api-key" if api_key else "oauth" if token else None
    manifest, now_ms = login.agent_with_model(app.env, agent), time.time_ns() // 1_000_000
    if remove:
        had = login.forget_login(manifest, app.env)
        app.output.say(f"forgot the login of {manifest.title}" if had else "there was none")
    elif tokens is not None:
        tell_kept(app, login.choose_tokens(manifest, app.env, tokens, now_ms=now_ms))
    elif variable:
        login.choose_variable(manifest, app.env, kind, variable)
    elif command:
        login.choose_program(manifest, app.env, kind or "api-key", command, now_ms=now_ms)
    elif container:
        _log_in_inside(app, manifest)
    elif kind or not login.choose_host_login(manifest, app.env, now_ms=now_ms):
        _make_login(app, manifest, kind, now_ms=now_ms)
    now = standing(manifest, app.env, now_ms=now_ms)
    app.output.result(f"{manifest.name}: {now.told}")
    if now.state == "bad":
        app.output.say(now.hint)


def _make_login(app: AppContext, manifest: AgentManifest, kind: LoginKind | None, *, now_ms: int) -> None:
    """There is none on this host: the one asked for, or the agent's own on a terminal."""
    has_accounts = any(one.command for one in manifest.login)
    if kind is None and has_accounts and app.env.stdin_tty and app.env.stdout_tty:
        app.output.say(
            f"to give an API key instead: Ctrl-C, then `coding-agents login {manifest.name} --api-key`"
        )
        _log_in_inside(app, manifest)
    else:
        _ask(app, manifest, kind, now_ms=now_ms)


def _log_in_inside(app: AppContext, manifest: AgentManifest) -> None:
    from coding_agents.app.login import choose_new_login
    from coding_agents.app.login_container import container_login, log_in_inside
    from coding_agents.cli.narrator import ConsoleNarrator
    from coding_agents.errors import UsageError

    login = container_login(manifest)
    if login is None:
        raise UsageError(
            f"{manifest.title} has no account that it could log in to in a container",
            hint=f"Give a key: `coding-agents login {manifest.name} --api-key`.",
        )
    if not (app.env.stdin_tty and app.env.stdout_tty):
        raise UsageError("a login in a container needs a terminal", hint="Run it in one.")
    written = log_in_inside(manifest, login, app.env, app.store, ConsoleNarrator(app))
    tell_kept(app, choose_new_login(manifest, app.env, written, now_ms=time.time_ns() // 1_000_000))


def _ask(app: AppContext, manifest: AgentManifest, kind: LoginKind | None, *, now_ms: int) -> None:
    from coding_agents.app.login import choose_key
    from coding_agents.errors import UsageError

    if kind is None and not app.env.stdin_tty:
        raise UsageError(
            f"there is no login of {manifest.title} on this host, and no terminal to ask for a key on",
            hint=f"Pipe it in: `coding-agents login {manifest.name} --api-key < FILE`.",
        )
    what = f"Token for {manifest.title}" if kind == "oauth" else f"API key for {manifest.title}"
    secret = read_secret(app, what)
    tell_kept(app, choose_key(manifest, app.env, kind or "api-key", secret, now_ms=now_ms))


def _one_of(**given: bool) -> None:
    from coding_agents.errors import UsageError

    chosen = [name for name, there in given.items() if there]
    if len(chosen) > 1:
        raise UsageError(
            f"{' and '.join(chosen)} exclude each other", hint="See `coding-agents login --help`."
        )
