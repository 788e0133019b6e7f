"""Whether a launch gets a file system of its own, as `--disk` asks: can it be had here, and does the repository fit?

Both are found out before anything is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from coding_agents.app.gather import Gathered
from coding_agents.app.launch_request import LaunchRequest
from coding_agents.app.narrate import Narrator
from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import EngineInfo
from coding_agents.errors import EnforcementError, EngineError, WorkspaceError
from coding_agents.model.limits import GIB, MAX_DISK, MIB, MIN_DISK, NO_DISK, size_text
from coding_agents.quota.image import usable_bytes, usable_inodes
from coding_agents.quota.probe import why_unmountable
from coding_agents.supervisor.room import Room
from coding_agents.workspace.copyset import CopyPlan
from coding_agents.workspace.listing import plan_copy
from coding_agents.workspace.weight import Weight, weigh

_FULL = "no space left on device"
_TO_WORK_IN = Weight(16 * MIB, 1000)  # with less nobody gets anything done: home, index, what is built


class Disk(msgspec.Struct, frozen=True):
    """How large the session's own file system is to be (NO_DISK: it gets none), and what goes in, once known."""

    size_bytes: int = NO_DISK
    copy: CopyPlan | None = None


def decide_disk(request: LaunchRequest, facts: Gathered, env: HostEnvironment, narrator: Narrator) -> Disk:
    """What a launch gets. Raises EnforcementError where there can be none, WorkspaceError when too little fits in."""
    size = request.limits.disk_bytes
    if size >= NO_DISK:
        return Disk()
    if problem := why_no_quota(facts.engine.info, env.state_dir):
        if "disk" in request.demands.needed:
            raise EnforcementError(
                f"a disk of {size_text(size)} cannot be enforced here: {problem}",
                hint="Launch without --disk (limits.disk), or with --best-effort disk: then the disk is only watched.",
            )
        narrator.say(f"no quota for the disk: {problem}")
        return Disk()
    plan = plan_copy(
        facts.repo, env=env.for_git(), include=request.settings.workspace_include, clean=request.options.clean
    )
    require_fitting(size, weigh(facts.repo, plan, room=usable_bytes(size), env=env.for_git()))
    _tell_of_the_host(size, request.settings.limits_disk_reserve, env.state_dir, narrator)
    return Disk(size, plan)


def why_no_quota(info: EngineInfo, state_dir: Path) -> str:
    """Why a session of this engine cannot have a file system of its own, "" when it can."""
    if not info.is_local:
        return f"{info.title} runs on another machine, or in a virtual machine of its own"
    if info.rootless:
        return f"a rootless {info.title} sees no mounts of this host"
    return why_unmountable(state_dir)


def require_fitting(size: int, weight: Weight) -> None:
    """Raise WorkspaceError, with figures, when a file system of `size` bytes is too small for what goes in."""
    if _fits(size, weight):
        return
    enough = next((one for one in _sizes() if _fits(one, weight)), MAX_DISK)
    raise WorkspaceError(
        f"a disk of {size_text(size)} is too small for this repository",
        details=f"goes in: {_shown(weight.size_bytes)} in {weight.files} files; to work in: "
        f"{_shown(_TO_WORK_IN.size_bytes)} in {_TO_WORK_IN.files} files; it takes: {_shown(usable_bytes(size))} "
        f"in {usable_inodes(size)} files",
        hint=f"Give it at least {size_text(enough)}: --disk {size_text(enough)}.",
    )


def _fits(size: int, weight: Weight) -> bool:
    return weight.size_bytes + _TO_WORK_IN.size_bytes <= usable_bytes(
        size
    ) and weight.files + _TO_WORK_IN.files <= usable_inodes(size)


def _sizes() -> list[int]:
    sizes = [MIN_DISK]
    while sizes[-1] * 2 <= MAX_DISK:
        sizes += [sizes[-1] * 3 // 2, sizes[-1] * 2]
    return sizes


def _tell_of_the_host(size: int, reserve: int, state_dir: Path, narrator: Narrator) -> None:
    """A sparse file may be larger than what is free; then that is the bound, and the session should know."""
    room = Room.of(os.fspath(state_dir))
    if room is None:
        return
    spare = max(0, room.free_bytes - room.kept(reserve))
    if size > spare:
        narrator.say(
            f"the disk of {size_text(size)} is more than the {_shown(spare)} that {state_dir} has to spare: "
            "the session is ended, and its work saved, when those are used up (limits.disk_reserve)"
        )


def _shown(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= 10 * GIB else f"{size / MIB:.0f} MiB"


@contextmanager
def full_disk_named(disk: Disk) -> Iterator[None]:
    """Let an engine's error of the block say whose disk is full, where it is the session's own."""
    try:
        yield
    except EngineError as error:
        if disk.size_bytes < NO_DISK and _FULL in error.details.lower():
            raise WorkspaceError(
                f"a disk of {size_text(disk.size_bytes)} is too small for this repository",
                details=error.details,
                hint="Give it more: --disk SIZE.",
            ) from error
        raise
