"""The agents that can be run: what their manifests say, and whether each can be used."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import date

import msgspec

from coding_agents.app.pins import age_told
from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.standing import standing
from coding_agents.errors import CodingAgentsError
from coding_agents.images.build import plan_images
from coding_agents.images.manifests import AgentSource, agent_names, find_agent
from coding_agents.model.packages import oldest_pin
from coding_agents.model.pins import stale_days


class AgentRow(msgspec.Struct, frozen=True):
    """One agent, for people and `--json`. `problem` says why it cannot be used; then the rest is empty.

    `pinned` is the day of its oldest pin, `age` the same in words, `stale_days` how old it is where that is too old.
    """

    name: str
    title: str = ""
    versions: dict[str, str] = {}
    pinned: str = ""
    age: str = ""
    stale_days: int = 0
    model: str = ""
    login: str = ""
    manifest: str = ""
    problem: str = ""


def list_agents(env: HostEnvironment) -> Iterator[AgentRow]:
    """All agents, ours first. Raises ManifestError for a user's manifest that has the name of one of ours."""
    return check_agents(env, agent_names(env.agents_dir))


def check_agents(env: HostEnvironment, names: Sequence[str]) -> Iterator[AgentRow]:
    """These agents: each manifest is read, and what its image is made from."""
    for name in names:
        try:
            source = find_agent(name, env.agents_dir, env.pins_dir)
            plan_images(name, env.agents_dir, env.pins_dir)
        except CodingAgentsError as error:
            yield AgentRow(name, problem=f"{error.message} {error.hint}".strip())
        else:
            yield _row(source, env)


def manifest_text(env: HostEnvironment, name: str) -> tuple[AgentSource, str]:
    """An agent, and its manifest as it is written. Raises ManifestError."""
    source = find_agent(name, env.agents_dir, env.pins_dir)
    return source, source.path.read_text("utf-8")


def _row(source: AgentSource, env: HostEnvironment) -> AgentRow:
    manifest, today = source.manifest, date.today()
    login = (
        standing(manifest, env, now_ms=time.time_ns() // 1_000_000).told if manifest.model is not None else ""
    )
    return AgentRow(
        name=manifest.name,
        title=manifest.title,
        versions=dict(package.shown for package in manifest.packages.values()),
        pinned=str(oldest_pin(manifest.packages) or ""),
        age=age_told(source, today),
        stale_days=stale_days(manifest.packages, today),
        model=manifest.model.upstream if manifest.model is not None else "",
        login=login,
        manifest=str(source.path),
    )
