"""Step 4 of a launch: what the container needs before it can start, made side by side.

All of it carries the session's nonce, by which a launch that fails finds and removes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import msgspec

from coding_agents.app.gather import Gathered
from coding_agents.app.launch_request import LaunchRequest
from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import Engine
from coding_agents.engine.failures import LEFT_OVER
from coding_agents.errors import EngineError, GitError
from coding_agents.gitsync.base import BaseStore, give, open_base
from coding_agents.gitsync.relay_repo import Relay, create_relay
from coding_agents.model.refs import Branch
from coding_agents.model.repo import RepoFacts
from coding_agents.sandbox.plan import NamedObject
from coding_agents.sandbox.spec import AGENT_USER, HOME, WORKSPACE
from coding_agents.workspace.copyset import CopyPlan, without_submodules
from coding_agents.workspace.fill import write_workspace_tar
from coding_agents.workspace.launch_state import LaunchState, record_launch_state
from coding_agents.workspace.listing import plan_copy
from coding_agents.workspace.tar import AGENT_UID, tar_of

# Our image's tar, as the agent's user; modes of directories come last, so that read-only ones can be filled.
_UNPACK = (
    "/usr/bin/tar",
    "--extract",
    "--preserve-permissions",
    "--delay-directory-restore",
    "--file=-",
    "-C",
)


class Source(msgspec.Struct, frozen=True):
    """The session's relay, and what of the repository goes into the container."""

    relay: Relay
    copy: CopyPlan
    launch: LaunchState


def prepare_source(
    request: LaunchRequest,
    facts: Gathered,
    env: HostEnvironment,
    *,
    relay_dir: Path,
    branch: Branch,
    now_ms: int,
    plan: CopyPlan | None = None,
) -> Source:
    """Give the base to the base store, make the relay, decide the copy set and keep the state at launch.

    `plan` is the copy set where it was decided before.
    """
    repo, git_env = facts.repo, env.for_git()
    include, clean = request.settings.workspace_include, request.options.clean
    plan = plan or plan_copy(repo, env=git_env, include=include, clean=clean)
    base_store = open_base(env.data_dir, repo, env=git_env)
    plan = give_all(base_store, repo, plan)
    relay = create_relay(
        relay_dir, base_store=base_store, branch=branch, base=repo.head, base_branch=repo.branch
    )
    launch = record_launch_state(repo, relay.git_dir, plan, env=git_env, base=repo.head, now_ms=now_ms)
    return Source(relay, plan, launch)


def give_all(base_store: BaseStore, repo: RepoFacts, plan: CopyPlan) -> CopyPlan:
    """Give the commits that go in to the base store; the plan without submodules that lack objects. Raises GitError."""
    if repo.head is not None:
        give(base_store, repo, repo.head)
    lacking: dict[tuple[str, ...], str] = {}
    for one in plan.submodules:
        if one.repo.head is not None and not any(one.places[: len(outer)] == outer for outer in lacking):
            try:
                give(base_store, one.repo, one.repo.head)
            except GitError as error:
                lacking[one.places] = error.message
    return without_submodules(plan, lacking) if lacking else plan


def fill_workspace(
    engine: Engine, container: str, facts: Gathered, source: Source, env: HostEnvironment
) -> None:
    """Stream the copy set and the made `.git` into the workspace of a container that waits at its gate."""

    def write(out: BinaryIO) -> None:
        write_workspace_tar(
            out,
            facts.repo,
            source.copy,
            relay_git_dir=source.relay.git_dir,
            base=source.relay.base,
            launch=source.launch,
            env=env.for_git(),
        )

    engine.feed(container, (*_UNPACK, WORKSPACE), write, user=AGENT_USER)


def fill_home(
    engine: Engine,
    container: str,
    seeds: Mapping[str, bytes],
    links: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Put the agent's first-run files into the home volume, owned by the agent; a link goes before a file."""
    files = {path: content for path, content in seeds.items() if path not in links}
    if files or links:

        def write(out: BinaryIO) -> None:
            out.write(tar_of(files, owner=AGENT_UID, mode=0o600, links=links))

        engine.feed(container, (*_UNPACK, HOME), write, user=AGENT_USER)


def make_volume(engine: Engine, volume: NamedObject) -> None:
    """Make a volume of the session. Raises EngineError where the engine refuses to keep one of that name."""
    engine.create_volume(volume.name, labels=dict(volume.labels), place=volume.place)


def require_own_volumes(engine: Engine, volumes: Sequence[NamedObject]) -> None:
    """Raise EngineError when the engine has kept somebody else's volume of such a name instead of making ours."""
    found = engine.volume_labels([volume.name for volume in volumes])
    for volume in volumes:
        if found.get(volume.name) != dict(volume.labels):
            raise EngineError(f"cannot create volume {volume.name}: it already exists", hint=LEFT_OVER)
