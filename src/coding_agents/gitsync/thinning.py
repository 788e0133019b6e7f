"""Which automatic saves to let go, and when a relay that grows full is thinned out. Pure; the caller acts."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from coding_agents.gitsync.relay_limits import RelayLimits, Usage

AUTOSAVE = "refs/coding-agents/autosave"
NEWEST = 5
"""So many of the latest are kept whatever the hour."""

_HOUR_S = 3600
_HOUR_MS = _HOUR_S * 1000
# Milliseconds since the epoch, as we write them ourselves: no sign, no leading zero.
_NAME = re.compile(re.escape(AUTOSAVE) + r"/([1-9][0-9]{0,14})", re.ASCII)
_WORTH = 0.1  # of a budget: what must have come since, so that thinning again can pay
_AGAIN_S = 600  # what failed is tried again
_SPARED = 20  # the part of the time that is free of thinning to that of one


class Keep(msgspec.Struct, frozen=True):
    """The saves that are kept: so many of the newest, and of the others the last of each hour or none."""

    newest: int
    hourly: bool


USUAL = Keep(NEWEST, hourly=True)
FEWER = (Keep(1, hourly=True), Keep(1, hourly=False))
"""What is kept of a relay that grows full; the next one when the first does not give enough room."""


def thin(refs: Iterable[str], now_ms: int, keep: Keep = USUAL) -> tuple[str, ...]:
    """The refs to remove, oldest first: of `refs/coding-agents/autosave/<unix-ms>` those that `keep` does not name.

    Hours are those of the clock and not counted back from now: else each save would be dropped for a later one of
    its hour before it is old enough to have one to itself. What a clock that was wrong dated after `now_ms` is none
    of the newest. Refs of other names are never removed.

    >>> thin((f"{AUTOSAVE}/{3_600_000 + age}" for age in range(8)), now_ms=7_200_000)
    ('refs/coding-agents/autosave/3600000', 'refs/coding-agents/autosave/3600001')
    """
    named = ((match, ref) for ref in refs if (match := _NAME.fullmatch(ref)))
    saves = sorted(((int(match[1]), ref) for match, ref in named), reverse=True)
    newest = [ref for at_ms, ref in saves if at_ms <= now_ms][: keep.newest]
    gone, hours = [], set[int]()
    for at_ms, ref in saves:
        if ref in newest:
            continue
        hour = at_ms // _HOUR_MS
        if hour in hours or not keep.hourly:
            gone.append(ref)
        hours.add(hour)
    return tuple(reversed(gone))


class Attempt(msgspec.Struct, frozen=True):
    """The last time that a relay was thinned: from when to when (seconds of one clock), and what it held then.

    `left` is None when it did not come to its end. `in_vain` says that it gave too little room: the rest is not
    automatic saves.
    """

    began_s: float
    ended_s: float
    left: Usage | None
    in_vain: bool = False


def is_due(last: Attempt | None, usage: Usage, limits: RelayLimits, now_s: float) -> bool:
    """Whether to thin a relay that is nearly full, which takes a twentieth of the time at most.

    Again when a tenth of a budget came since the last time, and can be given back; and after an hour, so that at
    least one save an hour takes place where the agent's own work leaves hardly any room. Not for that reason where
    it leaves none.
    """
    if last is None:
        return True
    since_s = now_s - last.ended_s
    if since_s < _SPARED * (last.ended_s - last.began_s):
        return False
    if last.left is None:
        return since_s >= _AGAIN_S
    came = max(
        (usage.disk_bytes - last.left.disk_bytes) / limits.disk_bytes,
        (usage.unpacked_bytes - last.left.unpacked_bytes) / limits.unpacked_bytes,
        (usage.kept - last.left.kept) / limits.refs,
    )
    return came >= _WORTH or (not last.in_vain and since_s >= _HOUR_S)
