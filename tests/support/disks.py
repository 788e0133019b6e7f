"""What tests ask about the loop device of a session's own disk."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from coding_agents.quota.image import Image
from coding_agents.quota.window import loops_of
from support.product import wait_for


def await_let_go(image: Image) -> None:
    """Wait until no loop device holds the image, or nobody but a mount namespace that has nothing to do with us.

    Who makes one while the image is mounted has a copy of that mount, and others build and test on this machine, too.
    """
    wait_for(lambda: all(map(_is_strangers, loops_of(image))), "the loop device to go")


def _is_strangers(device: str) -> bool:
    if _mounts(device, Path("/proc/self")):
        return False
    holders = [place for place in Path("/proc").glob("[0-9]*") if _mounts(device, place)]
    return bool(holders) and not any(map(_is_ours, holders))


def _mounts(device: str, process: Path) -> bool:
    with suppress(OSError):
        return f" {device} " in (process / "mountinfo").read_text()
    return False


def _is_ours(process: Path) -> bool:
    with suppress(OSError):
        words = (process / "cmdline").read_bytes()
        return b"coding_agents" in words or b"coding-agents" in words
    return False
