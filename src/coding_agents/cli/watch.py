"""`list --watch`: the table again and again, on a terminal, until the user has seen enough."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence

from coding_agents.app.sessions import ENDED, Observed, observe_all
from coding_agents.cli.context import AppContext
from coding_agents.cli.ringing import notices_shown
from coding_agents.model.notice import WAITING, Notice, Shown
from coding_agents.model.notice import ended as ended_notice
from coding_agents.model.session import SessionRecord, State
from coding_agents.terminal.notice import notice_sequence
from coding_agents.terminal.table import render_table

_EVERY_S = 2.0
_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_HEAD = ("NAME", "STATE", "AGE", "BRANCH", "NETWORK", "TOKENS", "COST", "WORK")


def watch(app: AppContext, *, ended: bool, times: int | None = None) -> None:
    """Show the sessions every two seconds; Ctrl-C ends it. `times` bounds how often."""
    ringer = Ringer(notices_shown(app))
    while times is None or times > 0:
        everything = observe_all(app.env, app.store, ended=True)
        found = [one for one in everything if ended or one.state not in ENDED]
        lines = render_table(_HEAD, [_row(one) for one in found]).splitlines() if found else ["no sessions"]
        lines = lines[: max(2, shutil.get_terminal_size().lines - 1)]
        sys.stdout.write(_HOME_AND_CLEAR + "\n".join(lines) + "\n" + ringer.news(everything))
        sys.stdout.flush()
        times = None if times is None else times - 1
        if times != 0:
            time.sleep(_EVERY_S)


class Ringer:
    """Finds in what changes from one look to the next what the terminal is to tell."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._states: dict[str, State] | None = None

    def news(self, found: Sequence[Observed]) -> str:
        """The notices since the last look; none at the first."""
        before, now = self._states, {one.record.id: one.state for one in found}
        self._states = now
        if before is None:
            return ""
        records = (one.record for one in found if one.state != before.get(one.record.id, one.state))
        return "".join(
            notice_sequence(self._shown, record.name, notice)
            for record in records
            if isinstance(record, SessionRecord) and (notice := _notice(record, now[record.id])) is not None
        )


def _notice(record: SessionRecord, state: State) -> Notice | None:
    if state == "waiting":
        return Notice("waiting", WAITING)
    if state not in ENDED:
        return None
    status = None if state == "lost" else record.exit_status
    return ended_notice(record.name, status=status, where=record.saved.where, branch=record.branch)


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
