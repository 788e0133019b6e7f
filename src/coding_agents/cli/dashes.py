"""A click command whose words after `--` are somebody else's command line, kept as they are."""

from __future__ import annotations

import click


class CommandAfterDashes(click.Command):
    """Passes everything after the first `--` to the callback as `command` (a tuple of words)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours, command = args, []
        if "--" in args:
            at = args.index("--")
            ours, command = args[:at], args[at + 1 :]
            if not command:
                raise click.UsageError("a command must follow --", ctx)
        rest = super().parse_args(ctx, list(ours))
        ctx.params["command"] = tuple(command)
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]
