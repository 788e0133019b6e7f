"""Step 1 of a launch: everything that must be known before it is planned. Changes nothing but clones of URLs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from coding_agents.app.launch_request import LaunchRequest
from coding_agents.app.narrate import Narrator
from coding_agents.app.signing import Signing, plan_signing
from coding_agents.app.steps import Parallel, Trace
from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import Engine
from coding_agents.engine.find import find_engine
from coding_agents.errors import EngineError
from coding_agents.gitsync.clone import clone_url, empty_repository
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.urls import GitUrl
from coding_agents.images.api import ImageRef
from coding_agents.images.build import current_images, plan_images
from coding_agents.images.manifests import load_manifest
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.repo import RepoFacts
from coding_agents.model.runtimes import AUTO


class Gathered(msgspec.Struct, frozen=True):
    """The facts of one launch.

    `session_id` is 12 hex digits that no session has; `images` are those of the base and of the agent, None for
    one that must be built.
    """

    session_id: str
    repo: RepoFacts
    engine: Engine
    manifest: AgentManifest
    images: tuple[ImageRef | None, ImageRef | None]
    signing: Signing = Signing()


@contextmanager
def gathering(
    request: LaunchRequest, env: HostEnvironment, trace: Trace, narrator: Narrator
) -> Iterator[Callable[[], Gathered]]:
    """Look at the repository, the engine and the agent side by side, and beside what the block does.

    Yields what waits for the facts; leaving the block waits, too. Both raise what the looking raises.
    """

    def look_at_engine() -> tuple[Engine, tuple[ImageRef | None, ImageRef | None]]:
        with trace.step("engine"):
            engine = _linux_engine(request, env)
        with trace.step("find images"):
            found = current_images(engine, plan_images(request.settings.agent, env.agents_dir, env.pins_dir))
        return engine, (found[0], found[-1])

    def look_at_repository() -> tuple[RepoFacts, Signing]:
        found = _repository(request, env, narrator, session=session)
        return found, plan_signing(request.settings, found, env)

    session = os.urandom(6).hex()
    with Parallel(trace) as steps:
        with trace.step("agent"):  # first: an unknown one has no image to look for
            manifest = load_manifest(request.settings.agent, env.agents_dir)
        repo = steps.run("repository", look_at_repository)
        looked = steps.run("engine and images", look_at_engine)
        yield lambda: Gathered(
            session, repo.result()[0], looked.result()[0], manifest, looked.result()[1], repo.result()[1]
        )


def _linux_engine(request: LaunchRequest, env: HostEnvironment) -> Engine:
    runtime = request.settings.runtime
    engine = find_engine(request.settings.engine, env.environ, runtime="" if runtime == AUTO else runtime)
    if engine.info.os not in ("", "linux"):
        raise EngineError(
            f"the engine runs {engine.info.os} containers", hint="Use an engine for Linux containers."
        )
    return engine


def _repository(
    request: LaunchRequest, env: HostEnvironment, narrator: Narrator, *, session: str
) -> RepoFacts:
    match request.source:
        case None:
            return empty_repository(env.data_dir, request.options.name or session, env=env.for_git())
        case GitUrl() as url:
            narrator.say(f"cloning {url.shown} on the host")
            return clone_url(url, env.data_dir, env=env.for_git())
        case Path() as path:
            return discover(env.cwd / path, env=env.for_git())
