"""Which automatic saves to let go when a relay grows full. Pure; the caller removes what is named."""

from __future__ import annotations

import re
from collections.abc import Iterable

AUTOSAVE = "refs/coding-agents/autosave"
NEWEST = 5
"""So many of the latest are kept whatever the hour."""

_HOUR_MS = 3_600_000
# Milliseconds since the epoch, as we write them ourselves: no sign, no leading zero.
_NAME = re.compile(re.escape(AUTOSAVE) + r"/([1-9][0-9]{0,14})", re.ASCII)


def thin(refs: Iterable[str], now_ms: int) -> tuple[str, ...]:
    """The refs to remove, oldest first: of `refs/coding-agents/autosave/<unix-ms>` the newest five stay, and of
    the others the last of each hour.

    Hours are those of the clock and not counted back from now: else each save would be dropped for a later one of
    its hour before it is old enough to have one to itself. What a clock that was wrong dated after `now_ms` is none
    of the newest. Refs of other names are never removed.

    >>> thin((f"{AUTOSAVE}/{3_600_000 + age}" for age in range(8)), now_ms=7_200_000)
    ('refs/coding-agents/autosave/3600000', 'refs/coding-agents/autosave/3600001')
    """
    named = ((match, ref) for ref in refs if (match := _NAME.fullmatch(ref)))
    saves = sorted(((int(match[1]), ref) for match, ref in named), reverse=True)
    newest = [ref for at_ms, ref in saves if at_ms <= now_ms][:NEWEST]
    gone, hours = [], set[int]()
    for at_ms, ref in saves:
        if ref in newest:
            continue
        hour = at_ms // _HOUR_MS
        if hour in hours:
            gone.append(ref)
        hours.add(hour)
    return tuple(reversed(gone))
