"""Asking npm about packages: while a throw-away image is built, with the way out that all our builds have.

npm is asked where it fetches, too, so both mean the same registry. Its answer is a file that is read out of a container
which is never started.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from coding_agents import __version__
from coding_agents.engine.api import Engine
from coding_agents.errors import EngineError, ImageUpdateError
from coding_agents.images.build import BuildSettings, build_recipes
from coding_agents.images.newest import NpmView
from coding_agents.images.recipes import base_recipe, npm_recipe
from coding_agents.images.view import built_view
from coding_agents.sandbox.invariants import check_spec
from coding_agents.sandbox.plan import plan_reader

_MAX_BYTES = 16 << 20


def npm_of(engine: Engine, settings: BuildSettings) -> NpmView:
    """The npm of our own images on `engine`."""
    return partial(_view, engine, settings)


def _view(engine: Engine, settings: BuildSettings, specs: Sequence[str]) -> Sequence[bytes]:
    base = base_recipe()
    build_recipes(engine, (base, npm_recipe(base)), settings)
    with built_view(engine, specs, settings) as image:
        data = read_answer(engine, image)
    answers = data.split(b"\0")[:-1]
    if len(answers) != len(specs):
        raise ImageUpdateError(
            f"npm was asked about {len(specs)} packages and answered {len(answers)}",
            hint="Try again later: nothing has changed.",
        )
    return answers


def read_answer(engine: Engine, image: str) -> bytes:
    spec = plan_reader(
        name=f"coding-agents-view-{secrets.token_hex(6)}",
        image=image,
        guest_digest=64 * "0",
        version=__version__,
    )
    check_spec(spec)
    container = engine.create(spec)
    try:
        return engine.read_file(container, "/answers", max_bytes=_MAX_BYTES)
    finally:
        with suppress(EngineError):
            engine.remove(container, force=True)
