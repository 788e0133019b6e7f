"""The command line's front door: a lazy group that imports a verb's module only when it is chosen.

The verbs are listed here with their one-line help, so that `--help` imports none of them. Expected
errors are shown by `Output.fail`; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Never

import click

from coding_agents import __version__
from coding_agents.cli.options import AS_JSON
from coding_agents.cli.output import Output
from coding_agents.errors import CodingAgentsError, ReaderGoneError, Terminated, UsageError
from coding_agents.terminal.streams import ResultStream

# Loading our modules makes many objects and no garbage; at the interpreter's own threshold of 700 the collector
# takes a tenth of the start of a launch to find none.
_GC_THRESHOLD = 50_000

# verb → (module below coding_agents.cli, help line). The order is the order of `--help`.
VERBS: dict[str, tuple[str, str]] = {
    "launch": ("launch", "Run an agent on a copy of a repository, in a container that it cannot leave."),
    "list": ("list_", "Show sessions with their state, branch and network."),
    "connect": ("connect", "Attach to a session's terminal; a second viewer reads only."),
    "exec": ("exec_", "Run a command in a running session."),
    "tell": ("tell", "Give the agent of a running session its next prompt."),
    "cp": ("cp", "Copy files into a running session or out of it."),
    "paste": ("paste", "Bring an image into a running session and name it to the agent."),
    "start": ("start", "Start a stopped session again."),
    "stop": ("stop", "Save a session's work and stop it."),
    "wait": ("wait", "Wait for a session to end and exit with its status."),
    "logs": ("logs", "Show what a session's command has printed."),
    "diff": ("diff", "Show what a session has changed so far."),
    "pull": ("pull", "Bring the work of a running session home, without its noticing."),
    "review": ("review", "Show what to look at before using a session's branch."),
    "merge": ("merge", "Merge a session's commits into a branch of yours, after a look at them."),
    "approvals": ("approvals", "List, approve and deny pushes of sessions to origin."),
    "nested": ("nested", "List and take over repositories from inside a session's work tree."),
    "remove": ("remove", "Remove a session after its work is saved."),
    "recover": ("recover", "Bring back work that a session left unsaved."),
    "prune": ("prune", "Remove ended sessions and what they left."),
    "login": ("login", "Choose the account that an agent's model is asked with."),
    "secrets": ("secrets", "Keep secrets for MCP servers, and name the programs that have them."),
    "agents": ("agents", "List, show and check the agents."),
    "images": ("images", "Build, list, update and prune the images."),
    "mcp": ("mcp", "List, trust and convert the MCP servers of a repository."),
    "allowlist": ("allowlist", "Show and change what sessions of network mode squid may reach."),
    "audit": ("audit", "Verify and query a session's audit log."),
    "config": ("config_", "Show and set settings."),
    "verify": ("verify", "Attack sessions of its own from inside, and tell what stopped each attack."),
    "doctor": ("doctor", "Check this machine for what sessions need."),
    "completions": ("completions", "Print shell completions."),
    "uninstall": ("uninstall", "Remove everything that coding-agents made on this machine."),
}


class LazyGroup(click.Group):
    """A group whose verbs are imported when they are asked for, never for `--help`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"coding_agents.cli.{VERBS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in VERBS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # A guess for what goes wrong before the verb's own `--json` is parsed, which then knows better.
        ours = args[: args.index("--")] if "--" in args else args
        ctx.meta[AS_JSON] = "--json" in ours
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb. Its errors are told here, where its parsed options are known."""
        try:
            return super().invoke(ctx)
        except CodingAgentsError as error:
            return _fail(error, as_json=ctx.meta[AS_JSON])
        except click.UsageError as error:
            # click does not say whose option lacks its value
            if error.ctx is None and ctx.invoked_subcommand:
                verb = self.get_command(ctx, ctx.invoked_subcommand)
                error.ctx = click.Context(verb, ctx, ctx.invoked_subcommand) if verb else ctx
            raise

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            close = _close_match(args[0])
            hint = f"Did you mean {close}?" if close else "`coding-agents --help` lists all of them."
            raise UsageError(f"no such command {args[0]!r}", hint=hint)
        return super().resolve_command(ctx, args)


def _close_match(word: str) -> str:
    from coding_agents.model.suggest import close_to

    return next(iter(close_to(word, VERBS)), "")


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="coding-agents")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run AI coding agents unattended in a container that they cannot leave.

    Their work comes back as a git branch that nothing on this machine has executed.
    """
    from coding_agents.cli.context import AppContext
    from coding_agents.config.environ import read_environment

    ctx.obj = AppContext(read_environment())


def main(argv: Sequence[str] | None = None) -> Never:
    """Run the command line and exit with its status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    gc.set_threshold(_GC_THRESHOLD)
    _open_missing_streams()
    sys.stdout = ResultStream.around(sys.stdout)
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_run(arguments))


def _open_missing_streams() -> None:
    """Give us the standard streams that we were started without (`>&-`).

    Else the next file that we open, a socket or a file of record, would be standard output to all that follows.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)
            if fd != number:
                os.dup2(fd, number)
                os.close(fd)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _run(arguments: list[str]) -> int:
    try:
        status = cli.main(arguments, prog_name="coding-agents", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        Output(sys.stdout, sys.stderr).say(error.format_message())
        return UsageError.exit_status
    except click.ClickException as error:
        from coding_agents.cli.usage import usage_error

        ctx = error.ctx if isinstance(error, click.UsageError) else None
        return _fail(usage_error(error), as_json=ctx is not None and ctx.meta[AS_JSON])
    except Terminated as error:
        _tell_notes(error)
        return 143
    except (KeyboardInterrupt, click.Abort) as error:
        _tell_notes(error.__cause__ or error)
        return 130
    except ReaderGoneError:
        return 141
    except CodingAgentsError as error:  # of `--help` and `--version`: all others are told by the group
        return _fail(error, as_json=False)
    return status if isinstance(status, int) else 0


def _fail(error: CodingAgentsError, *, as_json: bool) -> int:
    return Output(sys.stdout, sys.stderr).fail(error, as_json=as_json)


def _tell_notes(error: BaseException) -> None:
    """What the interrupted verb has to say of what it leaves."""
    for note in getattr(error, "__notes__", ()):
        Output(sys.stdout, sys.stderr).say(note)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def launch_agent() -> Never:
    """`launch-agent …` and `run-agent …`."""
    main(["launch", *sys.argv[1:]])


def list_agents() -> Never:
    """`list-agents …`."""
    main(["list", *sys.argv[1:]])


def connect_agent() -> Never:
    """`connect-agent …`."""
    main(["connect", *sys.argv[1:]])


def remove_agent() -> Never:
    """`remove-agent …`."""
    main(["remove", *sys.argv[1:]])


def run_claude() -> Never:
    """`run-claude …`: launch with the agent claude."""
    main(["launch", "--agent", "claude", *sys.argv[1:]])


def run_codex() -> Never:
    """`run-codex …`: launch with the agent codex."""
    main(["launch", "--agent", "codex", *sys.argv[1:]])


def run_copilot() -> Never:
    """`run-copilot …`: launch with the agent copilot."""
    main(["launch", "--agent", "copilot", *sys.argv[1:]])


def run_gemini() -> Never:
    """`run-gemini …`: launch with the agent gemini."""
    main(["launch", "--agent", "gemini", *sys.argv[1:]])


def run_opencode() -> Never:
    """`run-opencode …`: launch with the agent opencode."""
    main(["launch", "--agent", "opencode", *sys.argv[1:]])
