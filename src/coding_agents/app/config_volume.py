"""The session's configuration volume: root's files, mounted read-only, that agents are started with.

What a person has trusted runs from here, where neither the agent nor the repository can change it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import BinaryIO

from coding_agents.engine.api import Engine
from coding_agents.sandbox.guest import CONFIG_DIRECTORY
from coding_agents.sandbox.invariants import check_spec
from coding_agents.sandbox.plan import SessionPlan, plan_filler
from coding_agents.sandbox.spec import LABEL


def fill_config(engine: Engine, plan: SessionPlan, files: Mapping[str, tuple[bytes, bool]]) -> None:
    """Write `files` (content and executable bit by path) into the plan's configuration volume, if it has one.

    The volume must exist. What an earlier start wrote and `files` lack stays, but no list names it. Raises EngineError.
    """
    if plan.config is None:
        return
    who = plan.identity
    spec = plan_filler(
        volume=plan.config.name,
        path=CONFIG_DIRECTORY,
        guest_digest=plan.guest_digest,
        image=plan.sandbox.image,
        suffix="filler",
        version=who.version,
        extra_labels=((f"{LABEL}session", who.session), (f"{LABEL}nonce", who.nonce)),
    )
    check_spec(spec)
    container = engine.create(spec)
    try:
        engine.copy_in(container, CONFIG_DIRECTORY, lambda out: _write_tar(out, files))
    finally:
        engine.remove(container, force=True)


def _write_tar(out: BinaryIO, files: Mapping[str, tuple[bytes, bool]]) -> None:
    """An archive of root's files, with the directories above them."""
    import tarfile  # most launches have no trusted server

    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        made: set[PurePosixPath] = set()
        for path, (content, executable) in files.items():
            for parent in reversed(PurePosixPath(path).parents[:-1]):
                if parent not in made:
                    made.add(parent)
                    entry = tarfile.TarInfo(str(parent))
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(entry)
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755 if executable else 0o644
            archive.addfile(entry, io.BytesIO(content))
