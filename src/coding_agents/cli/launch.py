"""`coding-agents launch`: parse the command line into a LaunchRequest and show how it went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from coding_agents.cli.completing import complete_agent, offers
from coding_agents.cli.context import AppContext
from coding_agents.cli.dashes import CommandAfterDashes
from coding_agents.cli.options import examples, json_option, passing_status
from coding_agents.errors import UsageError
from coding_agents.model.protection import BEST_AVAILABLE

if TYPE_CHECKING:
    from coding_agents.app.launch_request import LaunchRequest


@click.command(
    "launch",
    cls=CommandAfterDashes,
    epilog=examples(
        "launch --agent claude",
        'launch --agent claude -b fix-login -d -p "Fix the login form"',
        "launch --agent demo --network-proxy restricted ~/src/shop -- make test",
    ),
)
@click.argument("source", required=False, default=".")
@click.option(
    "--agent",
    metavar="NAME",
    shell_complete=complete_agent,
    help="The agent to run: claude (default), codex, copilot, gemini, opencode, demo, or one of your own manifests.",
)
@click.option(
    "-b", "--branch", metavar="B", help="Branch <agent>/B for the agent's work (default: session-N)."
)
@click.option("--name", metavar="N", help="Name the session <agent>-N.")
@click.option(
    "-p", "--prompt", metavar="TEXT", help="Run headless on this task and exit with the agent's status."
)
@click.option("-d", "--detach", is_flag=True, help="Return as soon as the agent runs.")
@click.option(
    "--rm", is_flag=True, help="Remove the session when it ends, after its work is saved and verified."
)
@click.option(
    "-y",
    "--force",
    is_flag=True,
    help="Do not ask: rename an existing branch of this name that has commits of its own.",
)
@click.option("--empty", is_flag=True, help="Work in a fresh repository instead of SOURCE.")
@click.option(
    "--clean", is_flag=True, help="Start from HEAD, without uncommitted changes and untracked files."
)
@click.option(
    "--include",
    multiple=True,
    metavar="GLOB",
    help="Copy ignored files that match, too, such as build/*.json (repeatable).",
)
@click.option(
    "--network-proxy",
    "network",
    metavar="MODE",
    shell_complete=offers("allow-all", "squid", "restricted"),
    help="allow-all (default), squid (listed hosts through a proxy) or restricted.",
)
@click.option(
    "--allow",
    multiple=True,
    metavar="RULE",
    help="With squid: also allow this host, or *.NAME for all below one (repeatable).",
)
@click.option("--cpu", metavar="N", help="CPUs, such as 0.5 (default 4).")
@click.option("--memory", metavar="SIZE", help="Memory, with no swap beside it (default 8g).")
@click.option("--pids", metavar="N", help="Processes and threads (default 4096).")
@click.option(
    "--disk",
    metavar="SIZE",
    help="A file system of this size for all that the session writes: 5g (default: none).",
)
@click.option("--disk-read", metavar="RATE", help="Bytes read from the disk a second: 50m (default: none).")
@click.option("--disk-write", metavar="RATE", help="Bytes written to the disk a second: 50m (default: none).")
@click.option(
    "--bandwidth", metavar="RATE", help="What passes the network a second, each way: 10mbit (default: none)."
)
@click.option(
    "--time-limit", "time_limit", metavar="T", help="Save and stop after this time: 90m, 2h (default: none)."
)
@click.option(
    "--allow-ptrace", is_flag=True, help="Let debuggers (gdb, strace) trace what the agent itself runs."
)
@click.option(
    "--best-effort",
    multiple=True,
    metavar="NAME",
    shell_complete=offers(*BEST_AVAILABLE),
    help="Let a protection be missing although you asked for it, such as swap (repeatable).",
)
@click.option(
    "--max-tokens",
    metavar="N",
    help="Save and stop after so many tokens of the model, such as 5m (default: none).",
)
@click.option(
    "--max-cost", metavar="X", help="Save and stop after so many dollars, by model.prices (default: none)."
)
@click.option(
    "--engine",
    metavar="NAME",
    shell_complete=offers("auto", "docker", "podman"),
    help="auto (default), docker or podman.",
)
@click.option(
    "--runtime",
    metavar="NAME",
    shell_complete=offers("auto", "runc", "crun", "runsc"),
    help="auto (default: the engine's own), runc, crun, or runsc (gVisor, restricted only).",
)
@click.option(
    "--message",
    metavar="TEXT",
    help="Message of the commit that saves what is uncommitted (default: Save work of the coding agent).",
)
@click.option("--as-agent", is_flag=True, help="Let commits be by the agent; it commits yours in any case.")
@click.option("--no-push", is_flag=True, help="Leave the work in the session's volume at the end.")
@click.option(
    "--allow-origin-push",
    is_flag=True,
    help="Let the session push its own branch to origin unasked, where nothing is found in it.",
)
@click.option("--dotnet-preview", metavar="CHANNEL", help="Install this .NET SDK first: 11.0, or preview.")
@click.option("--dry-run", is_flag=True, help="Print the plan that would be carried out, and make nothing.")
@json_option("Print the session as one JSON object (with -d or --dry-run).")
@click.option("--trace", is_flag=True, help="Print how long each step took.")
@click.pass_obj
def command(
    app: AppContext,
    /,
    source: str,
    command: tuple[str, ...],
    as_json: bool,
    trace: bool,
    **options: Any,  # exactly the fields of LaunchOptions, by name
) -> int:
    """Run an agent on a copy of a repository, in a container that it cannot leave.

    SOURCE is the path of a git repository (default: the current directory) or a git URL, which the host
    clones. COMMAND after -- replaces the agent's own command. The work comes back as the branch
    <agent>/<branch> of the repository.
    """
    from coding_agents.app.launch_request import LaunchOptions, parse_request

    given = LaunchOptions(source=source, command=command, **options)
    if as_json and not (given.detach or given.dry_run):
        raise UsageError(
            "--json needs -d or --dry-run", hint="In the foreground the output is the command's own."
        )
    with passing_status(given.task and not (given.detach or given.dry_run)):
        return _launch(app, parse_request(app.env, given), as_json=as_json, show_trace=trace)


def _launch(app: AppContext, request: LaunchRequest, *, as_json: bool, show_trace: bool) -> int:
    from coding_agents.app.gather import gathering
    from coding_agents.app.steps import Trace
    from coding_agents.cli.narrator import ConsoleNarrator

    trace, narrator = Trace(), ConsoleNarrator(app)
    with gathering(request, app.env, trace, narrator) as facts:
        from coding_agents.cli.launch_view import run_launch  # takes as long as the engine to answer
    return run_launch(
        app,
        request,
        narrator,
        facts(),
        trace=trace,
        as_json=as_json,
        show_trace=show_trace,
    )
