"""Which images of ours exist, which are up to date, and removing those that nobody needs any more."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from coding_agents.errors import EngineError
from coding_agents.images.api import BUILDER_LABEL, INPUTS_LABEL, PACKAGES_LABEL, ImageEngine, ImageRow
from coding_agents.images.build import plan_images
from coding_agents.images.manifests import list_manifests
from coding_agents.images.packages import plan_node
from coding_agents.images.recipes import BASE_REF, Recipe, base_recipe, npm_recipe, proxy_recipe

State = Literal["current", "outdated", "missing"]


class ImageStatus(msgspec.Struct, frozen=True):
    """One image that we know how to build: id empty and size 0 if missing.

    `agent` is 'base' or 'npm' for those, and 'mcp' for packages of MCP servers, alone or in an agent's image.
    """

    agent: str
    ref: str
    state: State
    id: str = ""
    size_bytes: int = 0


class Pruned(msgspec.Struct, frozen=True):
    """What a prune removed, and what it left because something uses it; shared layers count repeatedly."""

    removed: tuple[str, ...]
    in_use: tuple[str, ...]
    size_bytes: int


def list_images(
    engine: ImageEngine, user_dir: Path | None = None, pins_dir: Path | None = None
) -> tuple[ImageStatus, ...]:
    """The base, what fetches packages, the proxy, then every agent's image (one that runs in the base has no line)."""
    base = base_recipe()
    recipes: dict[str, Recipe] = {"base": base, "npm": npm_recipe(base), "proxy": proxy_recipe(base)}
    for manifest in list_manifests(user_dir):
        recipe = plan_images(manifest.name, user_dir, pins_dir)[-1]
        if recipe.ref != BASE_REF:
            recipes[manifest.name] = recipe
    return tuple(_status(engine, agent, recipe) for agent, recipe in recipes.items())


def list_layers(engine: ImageEngine, wanted: frozenset[str]) -> tuple[ImageStatus, ...]:
    """The images with packages of MCP servers that there are: current while all locks in them are `wanted`."""
    node = _status(engine, "mcp", plan_node()[-1])
    rows = sorted(engine.list_images(PACKAGES_LABEL), key=lambda row: row.tags)
    found = tuple(
        ImageStatus("mcp", tag, "current" if _is_wanted(row, wanted) else "outdated", row.id, row.size_bytes)
        for row in rows
        for tag in row.tags
    )
    return found if node.state == "missing" else (node, *found)


def prune_images(
    engine: ImageEngine,
    *,
    unused: bool = False,
    user_dir: Path | None = None,
    pins_dir: Path | None = None,
    packages: frozenset[str] | None = None,
) -> Pruned:
    """Remove images of ours that a newer build has replaced and what builds left behind.

    `packages` are the locks of MCP servers that are trusted: images with packages of others go, too (None: none do).
    `unused` also removes the tagged ones, to be built again when needed. The engine itself refuses to
    remove an image that any container uses, running or stopped, so a session never loses its image.
    """
    rows = {row.id: row for label in (INPUTS_LABEL, BUILDER_LABEL) for row in engine.list_images(label)}
    known = {status.id for status in list_images(engine, user_dir, pins_dir) if status.state != "missing"}
    removed, in_use, size = [], [], 0
    for row in _children_first(rows):
        forgotten = packages is not None and not _is_wanted(row, packages)
        if not unused and not forgotten and (row.tags or row.id in known):
            continue
        if _remove(engine, row):
            removed.append(row.tags[0] if row.tags else row.id)
            size += row.size_bytes
        else:
            in_use.append(row.tags[0] if row.tags else row.id)
    return Pruned(tuple(removed), tuple(in_use), size)


def _is_wanted(row: ImageRow, packages: frozenset[str]) -> bool:
    """Whether all packages of servers in an image are among these; True for one without any."""
    return packages.issuperset(filter(None, row.labels.get(PACKAGES_LABEL, "").split(",")))


def _children_first(rows: dict[str, ImageRow]) -> list[ImageRow]:
    """The base last: an image with children cannot be removed before them."""
    return sorted(rows.values(), key=lambda row: (any(BASE_REF in tag for tag in row.tags), -row.size_bytes))


def _remove(engine: ImageEngine, row: ImageRow) -> bool:
    with suppress(EngineError):
        for name in row.tags or (row.id,):
            engine.remove_image(name)
        return True
    return False


def _status(engine: ImageEngine, agent: str, recipe: Recipe) -> ImageStatus:
    image = engine.find_image(recipe.ref)
    if image is None:
        return ImageStatus(agent, recipe.ref, "missing")
    current = image.labels.get(INPUTS_LABEL) == recipe.inputs
    return ImageStatus(agent, recipe.ref, "current" if current else "outdated", image.id, image.size_bytes)
