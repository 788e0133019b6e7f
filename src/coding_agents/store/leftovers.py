"""What verbs that were killed left in the state directory, and its end."""

from __future__ import annotations

import time

from coding_agents.proc.alive import is_alive
from coding_agents.store.sessions import DOOMED, RECORD, SessionStore

_LAUNCH_S = 600.0
"""No launch takes so long between its directory and its record, which it writes at once."""


def finish_removals(store: SessionStore) -> None:
    """Carry removals to their end that were cut short: the log to its place, the rest away. Raises StoreError."""
    for leftover in store.root.glob(f"{DOOMED}*"):
        session_id, _, pid = leftover.name.removeprefix(DOOMED).partition("-")
        if pid.isdecimal() and not is_alive(int(pid)):
            store.remove(session_id)


def is_unrecorded(store: SessionStore, session_id: str) -> bool:
    """Whether the session's directory was left by a launch that was killed before its first record.

    Nothing was made for it then. What holds more than locks and a draft of the record is something else.
    """
    directory = store.directory(session_id)
    try:
        names = [path.name for path in directory.iterdir()]
        age_s = time.time() - directory.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return False
    draft = f".{RECORD}."
    harmless = (name in ("lock", "record.lock") or name.startswith(draft) for name in names)
    return age_s > _LAUNCH_S and all(harmless) and not store.is_busy(session_id)
