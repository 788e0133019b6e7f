"""Step 1 of a launch: everything that must be known before it is planned. Changes nothing but clones of URLs."""

from __future__ import annotations

from pathlib import Path

import msgspec

from coding_agents.app.launch_request import LaunchRequest
from coding_agents.app.narrate import Narrator
from coding_agents.app.steps import Parallel, Trace
from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import Engine
from coding_agents.engine.find import find_engine
from coding_agents.errors import EngineError
from coding_agents.gitsync.clone import clone_url, empty_repository
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.urls import GitUrl
from coding_agents.images.manifests import load_manifest
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.repo import RepoFacts


class Gathered(msgspec.Struct, frozen=True):
    """The facts of one launch."""

    repo: RepoFacts
    engine: Engine
    manifest: AgentManifest


def gather(
    request: LaunchRequest, env: HostEnvironment, trace: Trace, narrator: Narrator, *, session: str
) -> Gathered:
    """Look at the repository, the engine and the agent side by side. Raises what each of them raises."""
    with Parallel(trace) as steps:
        engine = steps.run("engine", lambda: find_engine(request.settings.engine, env.environ))
        repo = steps.run("repository", lambda: _repository(request, env, narrator, session=session))
        with trace.step("agent"):
            manifest = load_manifest(request.settings.agent, env.config_dir / "agents")
    found = engine.result()
    if found.info.os not in ("", "linux"):
        raise EngineError(
            f"the engine runs {found.info.os} containers", hint="Use an engine for Linux containers."
        )
    return Gathered(repo.result(), found, manifest)


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
