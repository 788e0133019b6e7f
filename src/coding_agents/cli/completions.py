"""`completions`: the script that teaches a shell to complete our command line."""

from __future__ import annotations

import click

from coding_agents.cli.context import AppContext

_PROGRAM = "coding-agents"
_VARIABLE = "_CODING_AGENTS_COMPLETE"
_HOW = {
    "bash": 'eval "$(coding-agents completions bash)"   in ~/.bashrc',
    "zsh": 'eval "$(coding-agents completions zsh)"   in ~/.zshrc',
    "fish": "coding-agents completions fish | source   in ~/.config/fish/config.fish",
}


@click.command(epilog="\b\nIn your shell's start file:\n" + "\n".join(f"  {line}" for line in _HOW.values()))
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_obj
def command(app: AppContext, shell: str) -> None:
    """Print the completion script of SHELL, to be read by the shell's start file."""
    app.output.result(completion_script(shell))
    if app.env.stdout_tty:
        app.output.say(f"To use it: {_HOW[shell]}")


def completion_script(shell: str) -> str:
    """The script for bash, zsh or fish; it asks `coding-agents` itself what may follow."""
    from click.shell_completion import ShellComplete, get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise AssertionError(f"click has no completion for {shell}")
    completion = kind(click.Command(_PROGRAM), {}, _PROGRAM, _VARIABLE)
    # The base class's: that of bash first runs a bash to learn its version, which we need not know.
    return ShellComplete.source(completion)
