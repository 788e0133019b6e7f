"""What each image is made from, as values: files, labels and a hash that tells whether it is up to date.

The hash covers everything that shapes the image and nothing that is only true of the building machine
(its mirror, proxy and certificates), so the same checkout gives the same hash everywhere.
"""

from __future__ import annotations

from typing import Final

import msgspec

from coding_agents.errors import ManifestError
from coding_agents.images.api import INPUTS_LABEL, PACKAGES_LABEL
from coding_agents.images.data import Tree, data_dir, read_tree, tree_hash
from coding_agents.images.manifests import AgentSource
from coding_agents.model.packages import Pin

BASE_REF: Final = "coding-agents-base:local"
NPM_REF: Final = "coding-agents-npm:local"
PROXY_REF: Final = "coding-agents-proxy:local"
REGISTRY_ROOT: Final = "debian:bookworm-slim"
BUILDER_DIR: Final = "builder"
CANDIDATE: Final = "candidate"
"""Tag of an image that is being tried; no session of a user's is made from it."""
PREVIOUS: Final = "previous"
"""Tag of the image before the latest update."""

_VERSION = "2"  # part of each hash: raise it when the code changes what it makes of the same files
_BASE_FILES = ("Dockerfile", "dpkg.cfg", "finish.sh", "packages.txt")


class Recipe(msgspec.Struct, frozen=True):
    """One image: `ref` is its name, `base` what it stands on (None: it is the base), `inputs` the hash.

    `pins` are the packages that are fetched while it is built, `builder` further files for its builder stage alone;
    `online` tells that its build needs the network. `packages` are the locks of MCP servers whose packages are in it.
    """

    ref: str
    inputs: str
    tree: Tree
    base: str | None = None
    pins: tuple[Pin, ...] = ()
    online: bool = False
    builder: Tree = {}
    packages: tuple[str, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        packages = {PACKAGES_LABEL: ",".join(self.packages)} if self.packages else {}
        return {INPUTS_LABEL: self.inputs, **packages}

    @property
    def fetches(self) -> bool:
        """Whether it has a builder stage, with npm and what is only true of the machine that builds."""
        return bool(self.pins or self.builder)


def base_recipe() -> Recipe:
    """The base image, from the files of `images/base/`."""
    tree = read_tree(data_dir("images") / "base")
    tree = {name: tree[name] for name in _BASE_FILES}
    return Recipe(ref=BASE_REF, inputs=tree_hash(tree, _VERSION), tree=tree)


def npm_recipe(base: Recipe) -> Recipe:
    """The image whose npm fetches the packages of agents; no container of a session is made from it."""
    tree = read_tree(data_dir("images") / "npm")
    inputs = tree_hash(tree, _VERSION, base.inputs)
    return Recipe(ref=NPM_REF, inputs=inputs, tree=tree, base=base.ref, online=True)


def proxy_recipe(base: Recipe) -> Recipe:
    """The image of the proxy of network mode `squid`."""
    tree = read_tree(data_dir("images") / "proxy")
    inputs = tree_hash(tree, _VERSION, base.inputs)
    return Recipe(ref=PROXY_REF, inputs=inputs, tree=tree, base=base.ref, online=True)


def agent_recipes(source: AgentSource, base: Recipe) -> tuple[Recipe, ...]:
    """What an agent needs on top of `base`, in order; nothing for one that runs in the base itself."""
    manifest, pins = source.manifest, source.manifest.pins()
    if source.context is None:
        if pins:
            raise ManifestError(
                f"agent {manifest.name!r} pins {pins[0][2]}, but nothing installs it",
                hint=f"Write {source.path.parent / manifest.name / 'Dockerfile'}.",
            )
        return ()
    npm = (npm_recipe(base),) if pins else ()
    tree = read_tree(source.context)
    facts = (_VERSION, base.inputs, *(one.inputs for one in npm), *("\t".join(pin) for pin in pins))
    recipe = Recipe(
        ref=agent_ref(manifest.name),
        inputs=tree_hash(tree, *facts),
        tree=tree,
        base=base.ref,
        pins=pins,
        online=bool(pins),
    )
    return (*npm, recipe)


def agent_ref(name: str, tag: str = "local") -> str:
    """The name of an agent's image: of the one in use, of a CANDIDATE, or of the PREVIOUS one."""
    return f"coding-agents-{name}:{tag}"


def base_packages(tree: Tree) -> tuple[str, ...]:
    """The Debian packages of the base image, from its `packages.txt`."""
    lines = tree["packages.txt"].decode("utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def builder_files(recipe: Recipe, host_ca: bytes) -> dict[str, bytes]:
    """Files that only a builder stage sees: what is to be fetched, and the host's own root certificates."""
    pins = "".join("\t".join(pin) + "\n" for pin in recipe.pins).encode()
    files = dict(recipe.builder) | ({f"{BUILDER_DIR}/pins": pins} if recipe.pins else {})
    return files | ({f"{BUILDER_DIR}/host-ca.crt": host_ca} if host_ca else {})
