"""What is kept of a session's way out: its rules and budgets, which verbs write and the supervisor follows.

Apart from `egress`, so that a launch loads no asyncio.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from coding_agents.errors import EngineError
from coding_agents.network.allowlist import Egress
from coding_agents.store.files import write_atomic

EGRESS_FILE = "egress.json"
"""In the session's directory: `network.allowlist.Egress`."""


def read_egress(directory: Path) -> Egress:
    """What is kept of the way out of the session in `directory`. Raises EngineError."""
    try:
        return msgspec.json.decode((directory / EGRESS_FILE).read_bytes(), type=Egress)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"the rules of the session's proxy cannot be read: {error}", hint="Launch a new session."
        ) from error


def write_egress(directory: Path, egress: Egress) -> None:
    """Keep `egress` for the session in `directory`; a supervisor follows within a second. Raises StoreError."""
    write_atomic(directory / EGRESS_FILE, msgspec.json.encode(egress))
