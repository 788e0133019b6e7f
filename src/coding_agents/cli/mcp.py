"""`coding-agents mcp`: what a repository would start for agents, and what a person lets it start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from coding_agents.cli.completing import complete_agent
from coding_agents.cli.context import AppContext
from coding_agents.cli.options import examples, json_option
from coding_agents.errors import McpError

if TYPE_CHECKING:
    from coding_agents.app.mcp import Trusting, Workbench
    from coding_agents.model.mcp import McpFormat

_SHOWN_FILES = 40


@click.group("mcp")
def command() -> None:
    """List, trust and convert the MCP servers of the repository you are in.

    Nothing that a repository names is started by looking at it, and only what you trust is given to an agent.
    """


@command.command("list")
@json_option("Print a list of objects.")
@click.pass_obj
def list_(app: AppContext, as_json: bool) -> None:
    """Show the servers, hooks and plugins that the repository names, each with its state."""
    from msgspec.structs import asdict

    from coding_agents.terminal.escape import escape
    from coding_agents.terminal.table import render_table

    with _workbench(app) as bench:
        seen = bench.survey()
    if as_json:
        app.output.result_json([asdict(one) for one in seen])
        return
    if not seen:
        app.output.say("the repository names no MCP server, hook or plugin")
        return
    rows = [(one.name, one.what, one.state, one.file, one.runs[:100]) for one in seen]
    app.output.result(render_table(("NAME", "WHAT", "STATE", "FILE", "RUNS"), rows))
    for one in seen:
        for line in one.detail:
            app.output.say(escape(f"{one.name or one.file}: {line}"))
    if any(one.state == "seen" for one in seen):
        app.output.say(
            "hooks and plugins are shown only: whether an agent runs them is decided by its own settings"
        )


@command.command(epilog=examples("mcp trust tracker", "mcp trust --remove tracker"))
@click.argument("name")
@click.option(
    "--file", default="", metavar="PATH", help="The file that names it, when several name one of this name."
)
@click.option("--remove", is_flag=True, help="Trust it no more.")
@click.option("-y", "yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def trust(app: AppContext, name: str, file: str, remove: bool, yes: bool) -> None:
    """Show what server NAME would run, and let agents have exactly that.

    Its definition and the files that it runs from the repository are copied; sessions run the copy. When either
    changes, it is not started until you have looked at it again. Packages that it runs by npx, uvx or pipx are pinned
    with all that they need, and installed into an image.
    """
    from coding_agents.cli.narrator import ConsoleNarrator
    from coding_agents.terminal.escape import escape

    with _workbench(app) as bench:
        if remove:
            if not bench.remove(name):
                raise McpError(f"server {name!r} is not trusted")
            app.output.say(
                f"{name} is not trusted any more; sessions that run keep it until they are started again"
            )
            return
        one = bench.look_at(name, file)
        packages = _Packages(app) if one.runner is not None else None
        if packages is not None:
            one = packages.pinned(bench, one)
        for line in _content(one):
            app.output.say(escape(line))
        if not yes and not ConsoleNarrator(app).confirm(f"Let agents run {name}?"):
            raise McpError(
                f"{name} is not trusted: nobody said yes", hint="On a terminal answer y, or give -y."
            )
        if packages is not None:
            packages.installed(one)
        record = bench.trust(one)
    app.output.say(f"{name} is trusted: sha256 {record.digest}")
    if packages is not None:
        packages.made_ready()


@command.command()
@click.option("--check", is_flag=True, help="Say what is wrong instead, and fail if anything is.")
@click.option(
    "--agent",
    metavar="NAME",
    shell_complete=complete_agent,
    help="For this agent's CLI only (default: all known ones).",
)
@click.pass_obj
def convert(app: AppContext, check: bool, agent: str | None) -> None:
    """Print the workspace's servers as the agents' CLIs read them, as if all were trusted; nothing is written."""
    from coding_agents.terminal.escape import escape

    with _workbench(app) as bench:
        problems = [one.describe() for one in bench.found.findings]
        for format in _formats(app, agent):
            content, left = bench.conversion(format)
            problems += [f"{format}: {one.name}: {one.reason}" for one in left]
            if not check:
                app.output.result(f"# {format}\n{content.decode('utf-8')}")
    for problem in problems:
        (app.output.result if check else app.output.say)(escape(problem))
    if check and problems:
        raise McpError(f"{len(problems)} finding(s) in the MCP servers of this repository")


@contextmanager
def _workbench(app: AppContext) -> Iterator[Workbench]:
    from coding_agents.app.mcp import workbench
    from coding_agents.gitsync.discover import discover

    with workbench(app.env, discover(app.env.cwd, env=app.env.for_git())) as bench:
        yield bench


class _Packages:
    """What it takes to trust a server that runs packages: an engine, with the npm and the pip of our images."""

    def __init__(self, app: AppContext) -> None:
        from coding_agents.app.images import build_settings
        from coding_agents.cli.narrator import ConsoleNarrator
        from coding_agents.engine.find import find_engine

        self._app = app
        self._settings = app.settings()
        self._engine = find_engine(self._settings.engine, app.env.environ)
        self._builds = build_settings(app.env, self._settings, ConsoleNarrator(app).progress)

    def pinned(self, bench: Workbench, one: Trusting) -> Trusting:
        from coding_agents.app.mcp_packages import with_packages

        self._app.output.say(f"asking what {one.runner.asked if one.runner is not None else ''} needs")
        return with_packages(bench, one, self._engine, self._builds)

    def installed(self, one: Trusting) -> None:
        from coding_agents.app.mcp_packages import install_packages

        if one.packages is not None:
            self._app.output.say(f"installing {one.packages.describe()}")
            install_packages(self._engine, self._builds, one.packages, self._settings.agent)

    def made_ready(self) -> None:
        """Build what a session of the configured agent would have to build."""
        from coding_agents.app.mcp_packages import make_ready
        from coding_agents.gitsync.discover import discover

        env = self._app.env
        repo = discover(env.cwd, env=env.for_git())
        make_ready(env, self._engine, self._builds, repo, self._settings.agent)


def _formats(app: AppContext, agent: str | None) -> tuple[McpFormat, ...]:
    from coding_agents.images.manifests import load_manifest
    from coding_agents.model.mcp import FORMATS

    if agent is None:
        return FORMATS
    for format in FORMATS:  # an agent that this version has no manifest of, too
        if format == agent:
            return (format,)
    manifest = load_manifest(agent, app.env.config_dir / "agents")
    if manifest.mcp is None:
        raise McpError(f"agent {agent!r} is given no MCP servers", hint="Its manifest has no [mcp] table.")
    return (manifest.mcp.format,)


def _content(one: Trusting) -> Iterator[str]:
    """Exactly what would run, a line each."""
    server = one.placed.server
    yield f"server   {server.name} of {one.placed.file}"
    if server.url:
        yield f"url      {server.url}"
    else:
        yield f"command  {server.command}"
        yield from (f"arg      {word!r}" for word in server.args)
    yield from (f"env      {name}={value!r}" for name, value in server.env.items())
    yield from (f"header   {name}: {value!r}" for name, value in server.headers.items())
    if server.bearer_token_env_var:
        yield f"token    ${{{server.bearer_token_env_var}}}"
    for file in one.pinned.files[:_SHOWN_FILES]:
        yield f"file     {file.sha256[:16]} {file.path}{' (executable)' if file.executable else ''}"
    if len(one.pinned.files) > _SHOWN_FILES:
        yield f"file     … and {len(one.pinned.files) - _SHOWN_FILES} more"
    yield from (
        f"not copied (a link, or likely a secret): {path}" for path in one.pinned.left_out[:_SHOWN_FILES]
    )
    if one.packages is not None:
        yield f"package  {one.packages.describe()}, each pinned by the hash of its bytes: {one.packages.digest}"
        yield f"program  {one.packages.program}"
    elif server.command and not one.pinned.files:
        yield "no file of the repository is copied: it runs what image, network or workspace hold when it starts"
    if one.needs:
        yield f"secrets  {', '.join(one.needs)}: they go to it alone, and it runs as a user of its own"
    if one.unstarted:
        yield f"not started: {one.unstarted}"
    yield from (f"changed  {line}" for line in one.changes)
