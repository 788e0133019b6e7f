"""What a shell is offered for values of options."""

from __future__ import annotations

from collections.abc import Callable

import click

from coding_agents.errors import CodingAgentsError


def offers(*values: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Completion from a fixed list; the value itself is checked as a setting."""

    def complete(_ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
        return [value for value in values if value.startswith(start)]

    return complete


def complete_agent(_ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
    """The agents that there are manifests of."""
    from coding_agents.config.environ import read_environment
    from coding_agents.images.manifests import list_manifests

    try:
        manifests = list_manifests(read_environment().config_dir / "agents")
    except CodingAgentsError:
        return []  # a shell that completes is no place for an error
    return [manifest.name for manifest in manifests if manifest.name.startswith(start)]


def complete_key(_ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
    """The keys of settings."""
    from coding_agents.model.settings import BY_KEY

    return [key for key in BY_KEY if key.startswith(start)]
