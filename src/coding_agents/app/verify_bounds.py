"""Bounds on time, bandwidth and the disk's rate: sessions are launched with them, and the host looks what they do."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Final

from msgspec.structs import replace

from coding_agents.app.sessions import wake_overdue
from coding_agents.app.stop import wait
from coding_agents.app.verify_host import looked
from coding_agents.app.verify_inside import attempt
from coding_agents.app.verify_sessions import Bounds
from coding_agents.config.environ import HostEnvironment
from coding_agents.config.load import load_settings
from coding_agents.engine.cli import CliEngine
from coding_agents.errors import CodingAgentsError
from coding_agents.model.audit import RecordType, decode_record
from coding_agents.model.limits import size_text
from coding_agents.network.guard import READ_BACK, READ_BACK_USER, counted
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.deadline import deadline_in, seconds_left
from coding_agents.verify.checks_bounds import DISK_RATE, FLOOD_BYTES, HOUR_S, LINE_RATE
from coding_agents.verify.model import Attempt, Found
from coding_agents.verify.scene import Target

_DATAGRAM: Final = 8192
_FLOOD_S: Final = 1.0
_DISK_S: Final = 8.0
_ENDED_S: Final = 15.0
_DISK: Final = ("disk-read", "disk-write")


def bounds_for(env: HostEnvironment, mode: str) -> Bounds:
    """What a session of this mode is launched with, beside the defaults; nothing that would widen what is set already.

    A throttle of the disk that cannot be had must not keep the session from starting: then its check is `unknown`.
    """
    settings = load_settings(env)
    if mode == "restricted":
        return Bounds(time_limit=str(HOUR_S) if settings.limits_time > HOUR_S else None)
    if mode == "allow-all":
        return Bounds(
            bandwidth=f"{LINE_RATE * 8 // 1000}kbit" if settings.limits_bandwidth > LINE_RATE else None
        )
    return Bounds(
        disk_read=str(DISK_RATE) if settings.limits_disk_read > DISK_RATE else None,
        disk_write=str(DISK_RATE) if settings.limits_disk_write > DISK_RATE else None,
        best_effort=tuple(name for name in _DISK if name not in settings.demanded),
    )


# --- time ----------------------------------------------------------------------------------------------------


def deadline_recorded(session: SessionContext) -> dict[str, object]:
    """When the session's time is up by its record, on the clock that nobody sets. Raises ValueError without one."""
    deadline, now = session.reload().deadline, deadline_in(0)
    if not now.boot:
        raise ValueError("this machine does not tell one start from another")
    if deadline is None:
        return {"left_s": -1.0}
    return {"left_s": (deadline.boottime_ms - now.boottime_ms) / 1000, "same_boot": deadline.boot == now.boot}


def let_time_run_out(session: SessionContext) -> dict[str, object]:
    """Leave the session without a supervisor, with its time up, and look by as any verb does.

    Tells whether it still runs then, and for what reasons sessions of this record were ended.
    """
    session.supervisor().quit()
    record = session.reload()
    if record.deadline is None:
        raise ValueError("the session has no limit of its time")
    back_ms = round(seconds_left(record.deadline) * 1000) + 1
    passed = replace(
        record.deadline,
        boottime_ms=record.deadline.boottime_ms - back_ms,
        wall_ms=record.deadline.wall_ms - back_ms,
    )
    record = session.update(deadline=passed)
    wake_overdue(session.env, session.store, record)
    with suppress(CodingAgentsError):  # it is the record that tells
        wait(session, timeout_s=_ENDED_S)
    lines = session.audit_path.read_bytes().splitlines()
    ends = [one.subject for one in map(decode_record, lines) if one.type is RecordType.BUDGET_USED]
    return {"phase": session.reload().phase, "reasons": ends}


# --- bandwidth -----------------------------------------------------------------------------------------------


def flooded(engine: CliEngine, session: SessionContext, target: Target) -> Found:
    """What came of a flood towards a container of the verification's own, by the counters of the kernel's rules.

    The guard refuses that address, behind the limit: nothing of it leaves the session's own network namespace.
    """
    holder = session.record.holder_id

    def count() -> tuple[int, int]:
        outcome = engine.exec(holder, READ_BACK, user=READ_BACK_USER)
        return counted(json.loads(outcome.stdout) if outcome.ok else {"nftables": []})

    def look() -> dict[str, Any]:
        before = count()
        flood = Attempt("network", "flood", (target.address, target.port, FLOOD_BYTES, _DATAGRAM, _FLOOD_S))
        told = attempt(engine, session.record.container_id, flood, limit_s=2 * _FLOOD_S)
        if told.error or not isinstance(told.value, dict):
            raise ValueError(told.error or "the flood gave no answer")
        after = count()
        rate = int(session.record.limits.get("bandwidth", 0))
        passed, dropped = after[0] - before[0], after[1] - before[1]
        return {**told.value, "rate": rate, "passed": passed, "dropped": dropped}

    return looked(look)


# --- disk ----------------------------------------------------------------------------------------------------


def throttled(engine: CliEngine, limited: SessionContext, free: SessionContext) -> dict[str, Found]:
    """Seconds that a file takes in a session with a limit of the disk's rate, and in one without."""
    enforced = limited.reload().enforced
    names = {"read": "disk-read", "write": "disk-write"}
    held = {way: enforced.get(name, "absent") for way, name in names.items()}
    wanted = size_text(DISK_RATE)
    if wanted not in held.values():
        return {f"disk {way}": Found(error=_why(names[way], held[way])) for way in names}
    one = Attempt("resources", "disk_seconds", ("/workspace/disk-rate.bin", FLOOD_BYTES * 2))
    slow = attempt(engine, limited.record.container_id, one, limit_s=_DISK_S)
    fast = attempt(engine, free.record.container_id, one, limit_s=_DISK_S)
    found = {}
    for way, name in names.items():
        if held[way] != wanted:
            found[f"disk {way}"] = Found(error=_why(name, held[way]))
        else:
            found[f"disk {way}"] = looked(
                lambda way=way: {"limited": float(_told(slow)[way]), "free": float(_told(fast)[way])}  # type: ignore[misc]
            )
    return found


def _why(name: str, value: str) -> str:
    return f"no such limit is in force on this machine: {name} is {value}"


def _told(found: Found) -> Any:
    if found.error:
        raise ValueError(found.error)
    return found.value
