"""Makes sure that an agent's image is there and up to date: base first, then the agent on top of it.

Up to date means that the image's label holds the hash of today's inputs; then nothing is done. One build
at a time, in a scratch directory that is gone afterwards, and a tag moves only to a finished image.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from coding_agents.errors import EngineError, ImageBuildError, StoreError
from coding_agents.images.api import BUILDER_LABEL, INPUTS_LABEL, ImageEngine, ImageRef, ImageRow, OnLine
from coding_agents.images.buildlog import BuildLog
from coding_agents.images.data import write_tree
from coding_agents.images.hostnet import host_certificates, proxy_arguments
from coding_agents.images.manifests import find_agent
from coding_agents.images.recipes import (
    BUILDER_DIR,
    NPM_REF,
    REGISTRY_ROOT,
    Recipe,
    agent_recipes,
    base_recipe,
    builder_files,
    proxy_recipe,
)
from coding_agents.images.rootfs import NEEDED_BYTES, make_rootfs, scratch_dir
from coding_agents.model.masked import Masked
from coding_agents.store.files import locked, make_dir

_LOCK_WAIT_S = 3600.0
_IMPORT_CHANGES = ('CMD ["/bin/bash"]', "ENV LANG=C.UTF-8")  # as the last lines of images/base/Dockerfile


class BuildSettings(Masked, frozen=True):
    """Where and how images are built.

    `work_dir` holds the lock, scratch files go to TMPDIR (3 GB while a base is made); `environment` is the
    user's, `user_dir` holds the user's manifests and `pins_dir` the user's pins, `on_line` gets each line of
    progress. `root` is the image that a base made from a registry starts from. `host_ca` False leaves the host's
    certificates out.
    """

    MASKED = frozenset({"environment", "on_line"})

    work_dir: Path
    environment: Mapping[str, str]
    on_line: OnLine
    user_dir: Path | None = None
    pins_dir: Path | None = None
    root: str = REGISTRY_ROOT
    host_ca: bool = True


def ensure_image(engine: ImageEngine, agent: str | None, settings: BuildSettings) -> ImageRef:
    """The up-to-date image of `agent` (None: the base), built if it is missing or its inputs have changed.

    Raises ImageBuildError (end of the log in `details`), ManifestError, and the engine's errors.
    """
    return build_recipes(engine, plan_images(agent, settings.user_dir, settings.pins_dir), settings)


def ensure_proxy_image(engine: ImageEngine, settings: BuildSettings) -> ImageRef:
    """The up-to-date image of the proxy; raises as `ensure_image`."""
    return build_recipes(engine, plan_proxy(), settings)


def build_recipes(engine: ImageEngine, recipes: Sequence[Recipe], settings: BuildSettings) -> ImageRef:
    """The image of the last of `recipes`, after those before it; each is built unless it is up to date.

    Raises as `ensure_image`.
    """
    found = current_image(engine, recipes[-1])
    if found is not None:
        return found
    with _build_lock(settings):
        for recipe in recipes:
            found = current_image(engine, recipe) or _build(engine, recipe, settings)
    if found is None:
        raise AssertionError("a plan has at least the base")
    return found


def plan_images(
    agent: str | None, user_dir: Path | None = None, pins_dir: Path | None = None
) -> tuple[Recipe, ...]:
    """The recipes that an agent's image needs, in the order in which they are built."""
    base = base_recipe()
    if agent is None:
        return (base,)
    return (base, *agent_recipes(find_agent(agent, user_dir, pins_dir), base))


def plan_proxy() -> tuple[Recipe, ...]:
    """The recipes that the proxy's image needs, in the order in which they are built."""
    base = base_recipe()
    return (base, proxy_recipe(base))


def current_image(engine: ImageEngine, recipe: Recipe) -> ImageRef | None:
    """The image under the recipe's name if it was made from these very inputs."""
    return _if_current(engine.find_image(recipe.ref), recipe)


def current_images(engine: ImageEngine, recipes: Sequence[Recipe]) -> tuple[ImageRef | None, ...]:
    """`current_image` of each of `recipes`, with one question to the engine."""
    found = engine.find_images([recipe.ref for recipe in recipes])
    return tuple(_if_current(image, recipe) for image, recipe in zip(found, recipes, strict=True))


def _if_current(image: ImageRow | None, recipe: Recipe) -> ImageRef | None:
    if image is None or image.labels.get(INPUTS_LABEL) != recipe.inputs:
        return None
    return ImageRef(image.id, recipe.ref)


def _build(engine: ImageEngine, recipe: Recipe, settings: BuildSettings) -> ImageRef:
    settings.on_line(f"building {recipe.ref} (once; it is kept until its inputs change)")
    name = recipe.ref.partition(":")[0]
    log = BuildLog(settings.work_dir / f"{name}.log", settings.on_line)
    with log.of(recipe.ref), scratch_dir(settings.environment) as scratch:
        build = _build_base if recipe.base is None else _build_on_base
        image = build(engine, recipe, settings, scratch, log)
    settings.on_line(f"built {recipe.ref}")
    return ImageRef(image, recipe.ref)


def _build_base(
    engine: ImageEngine, recipe: Recipe, settings: BuildSettings, scratch: Path, on_line: OnLine
) -> str:
    """From a registry where one answers, else from Debian's packages."""
    if engine.image_id(settings.root) is not None or engine.pull(settings.root, on_line=on_line):
        write_tree(recipe.tree, scratch / "context")
        arguments = {"ROOT": settings.root, **proxy_arguments(settings.environment)}
        return engine.build(
            scratch / "context", tag=recipe.ref, build_args=arguments, labels=recipe.labels, on_line=on_line
        )
    on_line(
        f"no registry has {settings.root}: making the base from Debian packages, which takes about a minute"
    )
    free = shutil.disk_usage(scratch).free
    if free < NEEDED_BYTES:
        raise ImageBuildError(
            f"{scratch.parent} has {free >> 20} MiB free, making a base image takes {NEEDED_BYTES >> 20}",
            hint="Free some space there, or set TMPDIR to a directory on a larger disk.",
        )
    tar = scratch / "root.tar"
    make_rootfs(recipe, tar, environment=settings.environment, on_line=on_line)
    labels = tuple(f"LABEL {key}={value}" for key, value in recipe.labels.items())
    return engine.import_image(tar, tag=recipe.ref, changes=(*_IMPORT_CHANGES, *labels))


def _build_on_base(
    engine: ImageEngine, recipe: Recipe, settings: BuildSettings, scratch: Path, on_line: OnLine
) -> str:
    arguments = {"BASE": str(recipe.base)}
    write_tree(recipe.tree, scratch / "context")
    if recipe.online:
        arguments |= proxy_arguments(settings.environment)
    if recipe.fetches:
        host_ca = host_certificates(settings.environment) if settings.host_ca else b""
        write_tree(builder_files(recipe, host_ca), scratch / "context")
        if recipe.builder:
            write_tree(index_files(settings), scratch / "context" / BUILDER_DIR)
        else:
            arguments |= npm_arguments(settings)
    stage = secrets.token_hex(8)  # of this build alone: another user's may be under way on the same engine
    arguments |= {"BUILD": stage, "NPM": NPM_REF} if recipe.fetches else {}
    try:
        return engine.build(
            scratch / "context", tag=recipe.ref, build_args=arguments, labels=recipe.labels, on_line=on_line
        )
    finally:
        drop_builder_stages(engine, stage)


def npm_arguments(settings: BuildSettings) -> dict[str, str]:
    """What npm needs to reach its registry from a builder stage."""
    registry = settings.environment.get("npm_config_registry")
    return proxy_arguments(settings.environment) | ({"NPM_REGISTRY": registry} if registry else {})


def index_files(settings: BuildSettings) -> dict[str, bytes]:
    """Which indexes npm and pip use in a builder stage that asks both: a file, which stays in it."""
    names = {"npm": "npm_config_registry", "pypi": "PIP_INDEX_URL"}
    indexes = {kind: settings.environment.get(name, "") for kind, name in names.items()}
    return {"index.json": json.dumps(indexes).encode()}


def drop_builder_stages(engine: ImageEngine, stage: str) -> None:
    """Remove what a build left beside its result, also after a failure."""
    with suppress(EngineError):
        for row in engine.list_images(f"{BUILDER_LABEL}={stage}"):
            with suppress(EngineError):
                engine.remove_image(row.id)


@contextmanager
def _build_lock(settings: BuildSettings) -> Iterator[None]:
    make_dir(settings.work_dir)
    lock = settings.work_dir / "build.lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, timeout_s=0))
        except StoreError:
            settings.on_line("waiting for another build to finish")
            stack.enter_context(locked(lock, timeout_s=_LOCK_WAIT_S))
        yield
