"""What a session calls origin: what verbs keep of it, and the supervisor and the session's git are told.

Apart from `origin_access`, so that a launch loads no asyncio.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from coding_agents.errors import StoreError
from coding_agents.gitsync.origin_address import resolve_origins
from coding_agents.gitsync.origin_urls import guest_sections
from coding_agents.model.gitconfig import Section
from coding_agents.model.origin import FILE, Origin
from coding_agents.model.settings import Settings
from coding_agents.store.files import read_record, write_atomic
from coding_agents.supervisor.context import SessionContext, facts_of


def give_origins(session: SessionContext, settings: Settings) -> str:
    """Resolve what the session may call origin, and keep that; why it is less than it could be, "" when it is not.

    Raises StoreError.
    """
    found: tuple[Origin, ...] = ()
    trouble = ""
    if settings.origin_access:
        found, trouble = resolve_origins(
            facts_of(session.record), settings.origin_allow, env=user_env(session)
        )
    path = session.directory / FILE
    if found or path.exists():
        write_atomic(path, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    return trouble


def read_origins(directory: Path) -> tuple[Origin, ...]:
    """What a session was given; nothing where there is no whole list."""
    try:
        return msgspec.json.decode(read_record(directory / FILE), type=tuple[Origin, ...])
    except (OSError, ValueError, StoreError):
        return ()


def origin_sections(session: SessionContext) -> tuple[Section, ...]:
    """The rules by which git in the session comes to the host for its origins."""
    return guest_sections(read_origins(session.directory))


def user_env(session: SessionContext) -> Mapping[str, str]:
    """The environment of the user for git that runs as them (`proc.git` passes on what it may)."""
    return {**session.env.environ, "HOME": os.fspath(session.env.home)}
