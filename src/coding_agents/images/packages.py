"""Images with the packages of trusted MCP servers: one for each lock, and an agent's image with some of these in it.

A lock's image is made with the index once; what an agent's session runs in is made from images alone, in seconds and
without a network, whenever the agent's image or the set of its servers changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

import msgspec

from coding_agents.images.api import ImageEngine, ImageRef
from coding_agents.images.build import (
    BuildSettings,
    build_recipes,
    current_image,
    index_files,
    plan_images,
)
from coding_agents.images.data import data_dir, read_tree, tree_hash
from coding_agents.images.hostnet import proxy_arguments
from coding_agents.images.manifests import find_agent, load_manifest
from coding_agents.images.recipes import BUILDER_DIR, Recipe, agent_ref, base_recipe, npm_recipe
from coding_agents.images.view import built_answer

NODE_REF = "coding-agents-mcp-node:local"
_NODE_OF = "gemini"  # the agent of ours whose manifest pins a node
_NODE = "node"
_VERSION = "1"  # part of each hash: raise it when the code changes what it makes of the same files


class Layer(msgspec.Struct, frozen=True):
    """The packages of one server: `digest` names the lock, `lock` is its content in JSON, `root` its directory."""

    digest: str
    lock: bytes
    root: str
    needs_node: bool

    @property
    def ref(self) -> str:
        return f"coding-agents-mcp:{self.digest}"


@contextmanager
def asked_index(
    engine: ImageEngine, index: str, specs: Sequence[tuple[str, str]], settings: BuildSettings
) -> Iterator[str]:
    """The id of an image whose file `/answers` is what `index` says of `specs`; it is gone after the block.

    Needs the image with npm. Raises ImageBuildError, with the end of the log.
    """
    tree = read_tree(data_dir("images") / "mcp/ask")
    asked = json.dumps({"index": index, "specs": specs}).encode()
    builder = {"ask.py": tree["ask.py"], "asked.json": asked, **index_files(settings)}
    arguments = proxy_arguments(settings.environment)
    with built_answer(engine, tree["Dockerfile"], builder, settings, arguments, name="mcp-ask") as image:
        yield image


def plan_layer(layer: Layer) -> tuple[Recipe, ...]:
    """What the packages of one server need, in order; the last is their image."""
    base = base_recipe()
    npm = npm_recipe(base)
    images = data_dir("images") / "mcp"
    files = {**read_tree(images / "fetch"), "ask.py": read_tree(images / "ask")["ask.py"]}
    tree = {"Dockerfile": files.pop("Dockerfile")}
    files["lock.json"] = b'{"root": %s, "lock": %s}' % (json.dumps(layer.root).encode(), layer.lock)
    builder = {f"{BUILDER_DIR}/{name}": content for name, content in files.items()}
    recipe = Recipe(
        ref=layer.ref,
        inputs=tree_hash({**tree, **builder}, _VERSION, npm.inputs),
        tree=tree,
        base=base.ref,
        builder=builder,
        online=True,
        packages=(layer.digest,),
    )
    return (base, npm, recipe)


def ensure_layer(engine: ImageEngine, layer: Layer, settings: BuildSettings) -> ImageRef:
    """The image of one server's packages, built with their index if it is missing. Raises as `build.ensure_image`."""
    return build_recipes(engine, plan_layer(layer), settings)


def ensure_node(engine: ImageEngine, agent: str, settings: BuildSettings) -> None:
    """The node that an image of `agent` has none of, so that the index is asked for it no later than for packages."""
    if _lacks_node(agent, settings):
        build_recipes(engine, plan_node(), settings)


def ensure_session_image(
    engine: ImageEngine, agent: str, layers: Sequence[Layer], settings: BuildSettings
) -> ImageRef:
    """The up-to-date image of `agent` with these packages in it. Raises as `build.ensure_image`."""
    recipe, parts = plan_session(agent, layers, settings)
    for part in parts:
        build_recipes(engine, part, settings)
    return build_recipes(engine, (recipe,), settings)


def find_session_image(
    engine: ImageEngine, agent: str, layers: Sequence[Layer], settings: BuildSettings
) -> ImageRef | None:
    """The image of `agent` with these packages in it, if it is up to date."""
    return current_image(engine, plan_session(agent, layers, settings)[0])


def plan_session(
    agent: str, layers: Sequence[Layer], settings: BuildSettings
) -> tuple[Recipe, tuple[Sequence[Recipe], ...]]:
    """The image of a session of `agent` with these packages, and the images that it is made of, each with its own plan.

    Those are apart because what has served its purpose may be gone: npm's image, once there is what it has fetched.
    """
    layers = sorted(layers, key=lambda layer: layer.digest)
    parts = [plan_images(agent, settings.user_dir, settings.pins_dir), *map(plan_layer, layers)]
    if any(layer.needs_node for layer in layers) and _lacks_node(agent, settings):
        parts.append(plan_node())
    tree = {"Dockerfile": _dockerfile([part[-1].ref for part in parts[1:]])}
    digests = tuple(layer.digest for layer in layers)
    recipe = Recipe(
        ref=agent_ref(f"{agent}-mcp", sha256(",".join(digests).encode()).hexdigest()[:16]),
        inputs=tree_hash(tree, _VERSION, *(part[-1].inputs for part in parts)),
        tree=tree,
        base=parts[0][-1].ref,
        packages=digests,
    )
    return recipe, tuple(parts)


def plan_node() -> tuple[Recipe, ...]:
    """What the node that runs npm's packages needs, in order: the one that the manifests of our release pin."""
    base = base_recipe()
    npm = npm_recipe(base)
    pins = tuple(pin for pin in find_agent(_NODE_OF).manifest.pins() if pin[1] == _NODE)
    tree = read_tree(data_dir("images") / "mcp/node")
    facts = (_VERSION, npm.inputs, *("\t".join(pin) for pin in pins))
    inputs = tree_hash(tree, *facts)
    return (base, npm, Recipe(ref=NODE_REF, inputs=inputs, tree=tree, base=base.ref, pins=pins, online=True))


def _lacks_node(agent: str, settings: BuildSettings) -> bool:
    return _NODE not in load_manifest(agent, settings.user_dir).packages


def _dockerfile(stages: Sequence[str]) -> bytes:
    lines = [
        "ARG BASE",
        *(f"FROM {ref} AS packages{number}" for number, ref in enumerate(stages)),
        "FROM ${BASE}",
    ]
    lines += [f"COPY --from=packages{number} /opt/mcp /opt/mcp" for number in range(len(stages))]
    return "\n".join((*lines, "")).encode()
