"""Finding agents: the manifests that we ship, then the user's own in `~/.config/coding-agents/agents/`.

The packages that an image is made of may be pinned anew by the user's own files of pins, one for each agent.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec.structs import replace

from coding_agents.errors import ManifestError
from coding_agents.images.data import data_dir
from coding_agents.model.manifest import AgentManifest, parse_manifest
from coding_agents.model.pins import PinFile, parse_pins, with_pins
from coding_agents.model.suggest import close_to
from coding_agents.store.files import read_record

_MAX_BYTES = 1 << 20


class AgentSource(msgspec.Struct, frozen=True):
    """A manifest, its file, and the directory that its image is built from (None: the base image itself).

    `pins` is what is in the user's own file of pins for it, `unused` why that is not in force, "" when it is.
    """

    manifest: AgentManifest
    path: Path
    context: Path | None
    ours: bool
    pins: PinFile | None = None
    unused: str = ""


def load_manifest(name: str, user_dir: Path | None = None) -> AgentManifest:
    """The manifest of the agent `name`. Raises ManifestError that names the known agents."""
    return find_agent(name, user_dir).manifest


def find_agent(name: str, user_dir: Path | None = None, pins_dir: Path | None = None) -> AgentSource:
    """The agent `name`; `user_dir` is the user's directory of manifests, `pins_dir` that of pins. Raises ManifestError.

    Without `pins_dir` it is the agent as its manifest has it. Raises StoreError for pins that cannot be read.
    """
    for path, ours in _files(user_dir):
        if path.stem == name:
            source = _read(path, ours=ours)
            return source if pins_dir is None else _with_pins(source, pins_file(pins_dir, name))
    known = sorted({path.stem for path, _ours in _files(user_dir)})
    close = close_to(name, known)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    raise ManifestError(f"unknown agent {name!r}", hint=f"{meant}Known agents: {', '.join(known)}.")


def agent_names(user_dir: Path | None = None) -> tuple[str, ...]:
    """The names of all agents, ours first, whether their manifests are valid or not."""
    return tuple(path.stem for path, _ours in _files(user_dir))


def list_manifests(user_dir: Path | None = None) -> tuple[AgentManifest, ...]:
    """All agents, ours first. Raises ManifestError for the first manifest that is invalid."""
    return tuple(_read(path, ours=ours).manifest for path, ours in _files(user_dir))


def pins_file(pins_dir: Path, agent: str) -> Path:
    """The user's own pins of an agent."""
    return pins_dir / f"{agent}.toml"


def _with_pins(source: AgentSource, path: Path) -> AgentSource:
    try:
        data = read_record(path)
    except FileNotFoundError:
        return source
    pins = parse_pins(data, origin=str(path), agent=source.manifest.name)
    manifest, unused = with_pins(source.manifest, pins)
    return replace(source, manifest=manifest, pins=pins, unused=unused)


def _files(user_dir: Path | None) -> list[tuple[Path, bool]]:
    ours = sorted(data_dir("agents").glob("*.toml"))
    theirs = sorted(user_dir.glob("*.toml")) if user_dir is not None else []
    taken = {path.stem for path in ours}
    for path in theirs:
        if path.stem in taken:
            raise ManifestError(
                f"{path} has the name of an agent of coding-agents",
                hint=f"Rename it, and its `name`, to something else than {path.stem!r}.",
            )
    return [(path, True) for path in ours] + [(path, False) for path in theirs]


def _read(path: Path, *, ours: bool) -> AgentSource:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise ManifestError(f"{path} is larger than {_MAX_BYTES >> 20} MiB")
    manifest = parse_manifest(data, origin=str(path))
    if manifest.name != path.stem:
        raise ManifestError(f"{path}: name is {manifest.name!r}, but the file is called {path.name!r}")
    context = (data_dir("images") / "agents" if ours else path.parent) / manifest.name
    return AgentSource(manifest, path, context if (context / "Dockerfile").is_file() else None, ours)
