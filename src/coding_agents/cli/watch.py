"""`list --watch`: the table again and again, on a terminal, until the user has seen enough."""

from __future__ import annotations

import shutil
import sys
import time

from coding_agents.app.sessions import Observed, observe_all
from coding_agents.cli.context import AppContext
from coding_agents.model.session import SessionRecord
from coding_agents.terminal.table import render_table

_EVERY_S = 2.0
_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_HEAD = ("NAME", "STATE", "AGE", "BRANCH", "NETWORK", "TOKENS", "COST", "WORK")


def watch(app: AppContext, *, ended: bool, times: int | None = None) -> None:
    """Show the sessions every two seconds; Ctrl-C ends it. `times` bounds how often."""
    while times is None or times > 0:
        found = observe_all(app.env, app.store, ended=ended)
        lines = render_table(_HEAD, [_row(one) for one in found]).splitlines() if found else ["no sessions"]
        lines = lines[: max(2, shutil.get_terminal_size().lines - 1)]
        sys.stdout.write(_HOME_AND_CLEAR + "\n".join(lines) + "\n")
        sys.stdout.flush()
        times = None if times is None else times - 1
        if times != 0:
            time.sleep(_EVERY_S)


def _row(one: Observed) -> tuple[str, ...]:
    record = one.record
    if not isinstance(record, SessionRecord):
        return (record.id, "failed", "", "", "", "", "", record.reason)
    spent = record.spent
    tokens = f"{spent.tokens:,}" if spent.requests else ""
    cost = f"${spent.cost / 1e6:,.2f}" if spent.cost else ""
    age = age_text(time.time() - record.created_ms / 1000)
    return (record.name, one.state, age, record.branch, record.network, tokens, cost, record.saved.where)


def age_text(seconds: float) -> str:
    """A duration in its largest whole unit: 5s, 12m, 3h, 2d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"
