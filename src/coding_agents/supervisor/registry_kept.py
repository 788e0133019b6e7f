"""Which package indexes a session was given: what verbs keep of it, and the supervisor reads.

Apart from `registry_access`, so that a launch loads no asyncio.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from coding_agents.errors import StoreError
from coding_agents.model.registry import GIVEN_FILE, Registry, registries
from coding_agents.model.settings import Settings
from coding_agents.store.files import read_record, write_atomic


def settings_registries(settings: Settings) -> tuple[Registry, ...]:
    """The indexes that the settings name."""
    return registries(settings.registry_pip, settings.registry_npm)


def write_given(directory: Path, given: tuple[Registry, ...]) -> None:
    """Keep in a session's directory which indexes it was given. Raises StoreError."""
    path = directory / GIVEN_FILE
    if given or path.exists():
        write_atomic(path, msgspec.json.format(msgspec.json.encode(given), indent=2) + b"\n")


def read_given(directory: Path) -> tuple[Registry, ...]:
    """The indexes that a session was given; none where there is no whole list."""
    try:
        return msgspec.json.decode(read_record(directory / GIVEN_FILE), type=tuple[Registry, ...])
    except (OSError, ValueError, StoreError):
        return ()
