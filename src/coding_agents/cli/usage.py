"""A command line that click refuses, told as every other error of ours: what, with its value, and one thing to do."""

from __future__ import annotations

import click

from coding_agents.errors import UsageError


def usage_error(error: click.ClickException) -> UsageError:
    """What click found wrong, in our form."""
    text = error.message if isinstance(error, click.NoSuchOption) else error.format_message()
    message = " ".join(text.split()).rstrip(".")
    return UsageError(message[:1].lower() + message[1:], hint=_hint(error))


def _hint(error: click.ClickException) -> str:
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    if ctx is None:
        return "See `coding-agents --help`."
    if isinstance(error, click.NoSuchOption) and error.possibilities:
        return f"Did you mean {' or '.join(sorted(error.possibilities)[:3])}?"
    of_option = isinstance(error, click.BadParameter) and isinstance(error.param, click.Option)
    of_option = of_option or isinstance(error, click.NoSuchOption | click.BadOptionUsage)
    if of_option or isinstance(ctx.command, click.Group):
        return f"See `{ctx.command_path} --help`."
    return f"Write it like: {' '.join((ctx.command_path, *ctx.command.collect_usage_pieces(ctx)))}"
