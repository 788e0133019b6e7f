"""Take everything away that coding-agents made on this machine; the program itself is the package manager's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import Engine
from coding_agents.engine.find import find_engine
from coding_agents.errors import CodingAgentsError, EngineError, StoreError, UnsavedWorkError
from coding_agents.images.listing import prune_images
from coding_agents.proc.tree import remove_tree
from coding_agents.sandbox.spec import LABEL
from coding_agents.store.sessions import SessionStore


class Item(msgspec.Struct, frozen=True):
    """Something to remove, in words that a person understands."""

    what: str
    path: Path | None = None


def inventory(env: HostEnvironment, store: SessionStore) -> tuple[Item, ...]:
    """What is there to be removed. Raises UnsavedWorkError while there are sessions: their work goes first."""
    if sessions := store.list():
        raise UnsavedWorkError(
            f"{len(sessions)} session(s) are still there",
            hint="Run `coding-agents prune`, or `remove` each of them.",
        )
    aside = store.set_aside_root
    if aside.is_dir() and any(aside.iterdir()):
        raise UnsavedWorkError(
            f"work may be in the sessions below {aside}",
            hint="Take out what you want to keep and remove it.",
        )
    clones = env.data_dir / "repos"
    if clones.is_dir() and any(clones.rglob("HEAD")):
        raise UnsavedWorkError(
            f"work may be in the repositories below {clones}",
            hint="Fetch what you want to keep and remove it.",
        )
    items = [Item("images and guest volumes in the engines")]
    items += [Item(str(path), path) for path in (env.state_dir, env.data_dir) if path.exists()]
    return tuple(items)


def uninstall(env: HostEnvironment, items: tuple[Item, ...]) -> Iterator[str]:
    """Remove `items`; yields a line about each thing removed. Settings stay, as they are the user's own."""
    for name in ("docker", "podman"):
        try:
            engine = find_engine(name, env.environ)
        except CodingAgentsError:
            continue
        yield from _clear_engine(engine, env)
    for item in items:
        if item.path is not None:
            try:
                remove_tree(item.path)
            except OSError as error:
                raise StoreError(f"cannot remove {item.path}: {error}") from error
            yield f"removed {item.path}"
    if env.config_dir.exists():
        yield f"kept your settings in {env.config_dir}"


def _clear_engine(engine: Engine, env: HostEnvironment) -> Iterator[str]:
    """Remove what belongs to no session: guest volumes and images that nobody else's container uses."""
    for volume in engine.list_volumes({f"{LABEL}type": "guest"}):
        try:
            engine.remove_volume(volume)
        except EngineError:
            yield f"kept volume {volume}: a container uses it"
        else:
            yield f"removed volume {volume}"
    for image in prune_images(engine, unused=True, user_dir=env.config_dir / "agents").removed:
        yield f"removed image {image}"
