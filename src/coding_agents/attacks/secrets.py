"""Attacks on secrets: looking for them wherever the agent can read."""

from __future__ import annotations

import os

from coding_agents.attacks.answers import all_pids, directories, holds, names_in

_KERNEL_TREES = ("/proc", "/sys", "/dev")


def find_text(backwards: str) -> list[str]:
    """Every place that can be read and holds the text, which comes backwards so as not to find ourselves.

    Environments, arguments and mounts of all processes, and all files but the kernel's and the image's own.
    """
    wanted, image = backwards[::-1].encode(), os.lstat("/").st_dev
    processes = [f"/proc/{pid}/{name}" for pid in all_pids() for name in ("environ", "cmdline", "mountinfo")]
    files = (
        os.path.join(directory, name)
        for directory in directories("/")
        if not directory.startswith(_KERNEL_TREES)
        and (directory == "/etc" or os.lstat(directory).st_dev != image)
        for name in names_in(directory)
    )
    return [path for path in (*processes, *files) if holds(path, wanted)]


def environment() -> dict[str, str]:
    """Our own variables."""
    return dict(os.environ)
