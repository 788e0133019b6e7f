"""Directories below TMPDIR that live as long as a step, named by their process: what a killed one left goes first."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from coding_agents.proc.alive import is_alive


def scratch_parent(environment: Mapping[str, str]) -> Path:
    """Where the user wants files that go again."""
    return Path(environment.get("TMPDIR") or tempfile.gettempdir())


def make_scratch(parent: Path, prefix: str) -> Path:
    """A new directory of this process and user, which nobody else can look into. Raises OSError."""
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.geteuid()}-{os.getpid()}-", dir=parent))


def left_scratches(parent: Path, prefix: str) -> Iterator[Path]:
    """Those that processes of this user have left which are not alive any more."""
    mine = f"{prefix}{os.geteuid()}-"
    for path in parent.glob(f"{mine}*"):
        pid = path.name.removeprefix(mine).split("-")[0]
        with suppress(FileNotFoundError):  # its process has just ended
            if path.lstat().st_uid == os.geteuid() and pid.isdigit() and not is_alive(int(pid)):
                yield path
