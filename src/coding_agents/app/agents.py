"""The agents that can be run: what their manifests say, and whether each can be used."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.standing import standing
from coding_agents.errors import CodingAgentsError
from coding_agents.images.build import plan_images
from coding_agents.images.manifests import AgentSource, agent_names, find_agent


class AgentRow(msgspec.Struct, frozen=True):
    """One agent, for people and `--json`. `problem` says why it cannot be used; then the rest is empty."""

    name: str
    title: str = ""
    versions: dict[str, str] = {}
    model: str = ""
    login: str = ""
    manifest: str = ""
    problem: str = ""


def list_agents(env: HostEnvironment) -> Iterator[AgentRow]:
    """All agents, ours first. Raises ManifestError for a user's manifest that has the name of one of ours."""
    return check_agents(env, agent_names(_user_dir(env)))


def check_agents(env: HostEnvironment, names: Sequence[str]) -> Iterator[AgentRow]:
    """These agents: each manifest is read, and what its image is made from."""
    for name in names:
        try:
            source = find_agent(name, _user_dir(env))
            plan_images(name, _user_dir(env))
        except CodingAgentsError as error:
            yield AgentRow(name, problem=f"{error.message} {error.hint}".strip())
        else:
            yield _row(source, env)


def manifest_text(env: HostEnvironment, name: str) -> tuple[AgentSource, str]:
    """An agent, and its manifest as it is written. Raises ManifestError."""
    source = find_agent(name, _user_dir(env))
    return source, source.path.read_text("utf-8")


def _row(source: AgentSource, env: HostEnvironment) -> AgentRow:
    manifest = source.manifest
    login = (
        standing(manifest, env, now_ms=time.time_ns() // 1_000_000).told if manifest.model is not None else ""
    )
    return AgentRow(
        name=manifest.name,
        title=manifest.title,
        versions={
            package.package.replace("{arch}", "*"): package.version for package in manifest.packages.values()
        },
        model=manifest.model.upstream if manifest.model is not None else "",
        login=login,
        manifest=str(source.path),
    )


def _user_dir(env: HostEnvironment) -> Path:
    return env.config_dir / "agents"
