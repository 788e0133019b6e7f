"""Checks of what no wall stops but a bound: time, bandwidth, the rate of the disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from coding_agents.verify.judges import PASSED, failed
from coding_agents.verify.model import Check, Judge, Verdict

HOUR_S: Final = 3600
LINE_RATE: Final = 250_000
"""Bytes a second that may pass the network of the session that is attacked by floods."""
FLOOD_BYTES: Final = 5 << 20
DISK_RATE: Final = 8 << 20
"""Bytes a second that the small session may read and write."""

_BURST: Final = 128 << 10  # of the guard's rule
_CLEARLY: Final = 3  # times as much must be tried as may pass
_DISK_S: Final = 2 * FLOOD_BYTES / DISK_RATE
_SOON: Final = 0.7  # a throttle lets the first slice of time pass
_OF_IT: Final = 0.5


def bounds_checks() -> Iterator[Check]:
    """All of them; those of the disk are left to the full run."""
    group = "container-and-kernel"
    yield _check("limits.time-recorded", group, "host deadline", ("restricted",),
                 "have no end of the session's time, or one that a change of the date moves",
                 "the deadline is an instant of the clock that nobody sets, kept on the host", _recorded)  # fmt: skip
    yield _check("limits.time", group, "host time", ("restricted",),
                 "go on when the time is up, with no supervisor there to see it", "whoever looks by ends the session",
                 _ended)  # fmt: skip
    yield _check("network.bandwidth", "egress", "flood", ("allow-all",),
                 f"send more than {LINE_RATE} bytes a second, to a container of the verification's own",
                 "the limit of the guard, by the kernel's own counters", _flooded)  # fmt: skip
    for way in ("read", "write"):
        yield _check(f"limits.disk-{way}", group, f"disk {way}", ("small",),
                     f"{way} {2 * FLOOD_BYTES} bytes of the disk, of which {DISK_RATE} may pass a second",
                     "the io cgroup", _throttled, full=True)  # fmt: skip


def _check(
    id: str, group: str, evidence: str, modes: tuple[str, ...], tried: str, stopped_by: str, judge: Judge,
    *, full: bool = False,
) -> Check:  # fmt: skip
    return Check(id=id, group=group, evidence=evidence, modes=modes, tried=tried, stopped_by=stopped_by,
                 judge=judge, baseline=False, full=full)  # fmt: skip


def _recorded(found: Any) -> Verdict:
    left = float(found["left_s"])
    if not 0 < left <= HOUR_S or not found["same_boot"]:
        return failed(f"{left:.0f} s are left, of this start of the machine: {found.get('same_boot', False)}")
    return Verdict("passed", f"{left:.0f} s are left")


def _ended(found: Any) -> Verdict:
    reasons = [str(one) for one in found["reasons"] if str(one).startswith("its time of ")]
    if found["phase"] == "stopped" and len(reasons) == 1:
        return Verdict("passed", reasons[0])
    return failed(f"it is {found['phase']}; ended for: {', '.join(reasons) or 'nothing'}")


def _flooded(found: Any) -> Verdict:
    rate, passed, tried = int(found["rate"]), int(found["passed"]), int(found["bytes"])
    if rate <= 0:
        return failed("the session has no such limit")
    # The bucket holds a second's worth beside the burst (nft_limit.c).
    allowed = round(rate * (1 + float(found["seconds"]))) + _BURST
    if tried < _CLEARLY * allowed:
        return Verdict("unknown", f"{tried} bytes were tried, and {allowed} may pass")
    if passed > allowed or int(found["dropped"]) <= 0:
        return failed(f"{passed} of {tried} bytes passed the limit, where {allowed} may")
    return Verdict("passed", f"{passed} of {tried} bytes passed")


def _throttled(found: Any) -> Verdict:
    limited, free = float(found["limited"]), float(found["free"])
    if free > _OF_IT * _DISK_S:
        return Verdict("unknown", f"without a limit this disk takes as long: {free:.2f} s")
    return (
        PASSED
        if limited >= _SOON * _DISK_S
        else failed(f"it took {limited:.2f} s, without a limit {free:.2f} s")
    )
