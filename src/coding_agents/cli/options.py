"""Options and statuses that several verbs have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from coding_agents.errors import CodingAgentsError, UsageError

AS_JSON = "coding_agents.as_json"
# As docker run: a status that commands inside rarely end with.
OWN_FAILURE = 125


def examples(*lines: str) -> str:
    """The end of a verb's help: lines that can be typed as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  coding-agents {line}" for line in lines)


def json_option(help: str) -> Callable[[Any], Any]:
    """`--json` as the parameter `as_json`. Errors of the verb are then told in JSON, too."""
    return click.option("--json", "as_json", is_flag=True, callback=_remember, help=help)


def _remember(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    ctx.meta[AS_JSON] = value
    return value


@contextmanager
def passing_status(passes: bool = True) -> Iterator[None]:
    """Around a verb that ends with the status of a command inside: our own failures but usage end with 125."""
    try:
        yield
    except UsageError:
        raise
    except CodingAgentsError as error:
        if passes:
            error.exit_status = OWN_FAILURE
        raise
