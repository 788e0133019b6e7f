"""Packages of MCP servers: pinning them when a server is trusted, and the images that have them.

Nothing of this is loaded for a session without such servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from coding_agents.app.mcp import Trusting, Workbench
from coding_agents.app.mcp_session import session_servers
from coding_agents.app.npm_view import read_answer
from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import Engine
from coding_agents.errors import ImageBuildError, McpError
from coding_agents.images.api import ImageRef
from coding_agents.images.build import BuildSettings, build_recipes, current_image, plan_images
from coding_agents.images.manifests import load_manifest
from coding_agents.images.packages import (
    Layer,
    asked_index,
    ensure_layer,
    ensure_node,
    ensure_session_image,
    find_session_image,
)
from coding_agents.images.recipes import base_recipe, npm_recipe
from coding_agents.mcp.index_errors import build_failure, index_failure
from coding_agents.mcp.locked import PACKAGES, Index, Lock
from coding_agents.mcp.npm_lock import npm_lock
from coding_agents.mcp.pip_lock import pip_lock
from coding_agents.mcp.runners import Runner
from coding_agents.model.repo import RepoFacts

_READ: dict[Index, Callable[[Runner, bytes], Lock]] = {"npm": npm_lock, "pypi": pip_lock}
_MAX_LOCK = 900_000  # bytes: with the rest of it a trust record is one that can be read again


def pin_packages(engine: Engine, builds: BuildSettings, runner: Runner) -> Lock:
    """The packages that `runner` means now, each with its version and hash, asked in a throw-away build.

    Raises McpError for what the index does not have or must not be pinned, ImageBuildError.
    """
    base = base_recipe()
    build_recipes(engine, (base, npm_recipe(base)), builds)
    with asked_index(engine, runner.index, runner.specs, builds) as image:
        status, _, answer = read_answer(engine, image).partition(b"\n")
    if status != b"ok":
        raise index_failure(runner, answer.decode("utf-8", "replace"))
    lock = _READ[runner.index](runner, answer)
    if len(lock.content) > _MAX_LOCK:
        raise McpError(f"{runner.asked} needs more packages than can be pinned: {len(lock.packages)}")
    return lock


def with_packages(bench: Workbench, one: Trusting, engine: Engine, builds: BuildSettings) -> Trusting:
    """`one` with its packages pinned, to be shown. Raises as `pin_packages`."""
    return one if one.runner is None else bench.with_packages(one, pin_packages(engine, builds, one.runner))


def build_packages(engine: Engine, builds: BuildSettings, lock: Lock) -> ImageRef:
    """The image of these packages, built if it is missing. Raises McpError for what cannot be had as it was pinned."""
    with _failures_told(lock):
        return ensure_layer(engine, _layer(lock), builds)


def install_packages(engine: Engine, builds: BuildSettings, lock: Lock, agent: str) -> None:
    """All that a session of `agent` needs of an index for these packages. Raises as `build_packages`."""
    build_packages(engine, builds, lock)
    if lock.index == "npm":
        ensure_node(engine, agent, builds)


def session_image(engine: Engine, builds: BuildSettings, agent: str, locks: Sequence[Lock]) -> ImageRef:
    """The image of a session of `agent` with these packages. Raises as `build_packages`, and what building raises."""
    layers = [_layer(lock) for lock in locks]
    found = find_session_image(engine, agent, layers, builds)
    if found is not None:
        return found
    for lock in locks:
        build_packages(engine, builds, lock)
    return ensure_session_image(engine, agent, layers, builds)


def session_image_id(engine: Engine, builds: BuildSettings, agent: str, locks: Sequence[Lock]) -> str:
    """The id of that image if it is there and up to date, else ""."""
    found = find_session_image(engine, agent, [_layer(lock) for lock in locks], builds)
    return "" if found is None else found.id


def make_ready(
    env: HostEnvironment, engine: Engine, builds: BuildSettings, repo: RepoFacts, agent: str
) -> None:
    """Build what the next session of `agent` on `repo` would have to, unless the agent's own image is still missing."""
    servers = session_servers(env, repo, load_manifest(agent, env.agents_dir).mcp)
    recipe = plan_images(agent, env.agents_dir, env.pins_dir)[-1]
    if servers.locks and current_image(engine, recipe) is not None:
        session_image(engine, builds, agent, servers.locks)


def _layer(lock: Lock) -> Layer:
    content = lock.content
    plain = re.sub(rb"^\[\d+,", b"", content)[:-1]
    return Layer(lock.digest, plain, f"{PACKAGES}/{lock.digest}", needs_node=lock.index == "npm")


@contextmanager
def _failures_told(lock: Lock) -> Iterator[None]:
    try:
        yield
    except ImageBuildError as error:
        told = build_failure(lock, error.details)
        if told is None:
            raise
        raise told from error
