"""How large the images are."""

from __future__ import annotations

from collections.abc import Iterator

from bench.agents import AGENTS
from bench.launches import BASE_IMAGE
from bench.rows import Row
from bench.user import User


def measure(user: User) -> Iterator[Row]:
    """The base, and what each agent's image adds to it."""
    base = _bytes(user, BASE_IMAGE)
    yield Row(what="base image", value=base / 1e6, unit="MB", max_value=650.0)
    for agent in ("demo", *AGENTS):
        own = _bytes(user, f"coding-agents-{agent}:local") - base
        yield Row(what=f"layers of `{agent}` alone", value=own / 1e6, unit="MB", max_value=450.0)


def _bytes(user: User, image: str) -> int:
    return int(user.engine_run("image", "inspect", "--format={{.Size}}", image))
