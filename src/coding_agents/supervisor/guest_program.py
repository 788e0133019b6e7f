"""The guest's program of this version, and the shared volume that brings it into containers (ADR 2)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import BinaryIO

import msgspec

from coding_agents import __version__
from coding_agents.channel.pyz import build_guest_pyz, guest_digest, guest_sources, sources_digest
from coding_agents.engine.api import Engine
from coding_agents.errors import EngineError
from coding_agents.sandbox.guest import GUEST_DIRECTORY, GUEST_ZIPAPP, guest_volume_name
from coding_agents.sandbox.invariants import check_spec
from coding_agents.sandbox.plan import plan_filler
from coding_agents.sandbox.spec import LABEL
from coding_agents.store.files import make_dir, private_dir, read_record, write_atomic
from coding_agents.workspace.tar import tar_of

_MAX_PROGRAM = 8 << 20  # bytes


class GuestProgram(msgspec.Struct, frozen=True):
    """guest.pyz of this version: its bytes, and the name of the volume that it travels in."""

    content: bytes
    digest: str

    @classmethod
    def of_this_version(cls, data_dir: Path, *, keep: bool = True) -> GuestProgram:
        """The program: the one kept below `data_dir`, or else built, and kept unless `keep` is off. Raises StoreError.

        A file whose content is not what its name says is as good as none.
        """
        sources, kept_in = guest_sources(), data_dir / "guest"
        version = sources_digest(sources)
        for path in kept_in.glob(f"{version}-*.pyz"):
            content = read_record(path, limit=_MAX_PROGRAM)
            if path.name == f"{version}-{guest_digest(content)}.pyz":
                return cls(content, guest_digest(content))
        content = build_guest_pyz(sources)
        if keep:
            private_dir(make_dir(data_dir) / "guest")
            write_atomic(kept_in / f"{version}-{guest_digest(content)}.pyz", content)
        return cls(content, guest_digest(content))

    @property
    def volume(self) -> str:
        return guest_volume_name(self.digest)


def is_this_versions(data_dir: Path, digest: str) -> bool:
    """Whether the program with this SHA-256 was made by this version: an older bridge knows no later option."""
    return (data_dir / "guest" / f"{_version()}-{digest}.pyz").is_file()


@cache
def _version() -> str:
    return sources_digest(guest_sources())


def ensure_guest_volume(engine: Engine, program: GuestProgram, image: str, *, suffix: str) -> None:
    """Fill the shared volume of this guest version unless that is done; safe against other launches.

    A volume cannot be filled and appear in one step, so a second, empty one says that the first is ready.
    Until then every launch fills it, with the same bytes.
    """
    ready = f"{program.volume}-ready"
    if engine.volume_exists(ready):
        return
    _make_shared_volume(engine, program.volume)
    spec = plan_filler(
        volume=program.volume,
        guest_digest=program.digest,
        image=image,
        suffix=suffix,
        version=__version__,
    )
    check_spec(spec)

    def write(out: BinaryIO) -> None:
        out.write(tar_of({Path(GUEST_ZIPAPP).name: program.content}, owner=0, mode=0o644))

    container = engine.create(spec)
    try:
        engine.copy_in(container, GUEST_DIRECTORY, write)
    finally:
        engine.remove(container, force=True)
    _make_shared_volume(engine, ready)


def _make_shared_volume(engine: Engine, name: str) -> None:
    labels = {f"{LABEL}type": "guest", f"{LABEL}version": __version__}
    try:
        engine.create_volume(name, labels=labels)
    except EngineError:
        if not engine.volume_exists(name):  # else another launch was faster
            raise
