"""What a session's user is told while they look elsewhere: the kinds of notices, and how an end is put."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["waiting", "finished", "failed", "budget", "approval"]
Shown = Literal["osc9", "bell", "off"]
"""How a terminal tells of a notice (`notify.terminal`), from the most to nothing."""

SHOWN: tuple[Shown, ...] = ("osc9", "bell", "off")
WAITING = "the agent waits for you"


class Notice(msgspec.Struct, frozen=True):
    """One notice. `text` is the host's own and holds nothing that a guest wrote."""

    kind: Kind
    text: str


def ended(name: str, *, status: int | None, where: str, branch: str) -> Notice:
    """How session `name` ended: its agent's exit status (None: not known), and where its work is (`Saved.where`)."""
    if status is None:
        return Notice("failed", "the container is gone")
    places = {"branch": f"its work is on {branch}", "none": "it made no commits"}
    text = places.get(where, f"see `coding-agents recover {name}`")
    return Notice("finished", text) if status == 0 else Notice("failed", f"status {status}; {text}")
