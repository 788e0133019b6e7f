"""Tell a session's user what happens to it: the terminals that are attached, and `notify.command`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from msgspec.structs import asdict

from coding_agents.errors import CodingAgentsError
from coding_agents.model.audit import RecordType
from coding_agents.model.notice import Notice
from coding_agents.proc.runner import Command, run
from coding_agents.supervisor.context import SessionContext, session_settings
from coding_agents.supervisor.journal import Journal

_TIMEOUT_S = 30.0
_KEPT_NOTICES = 16
_PATIENCE_S = 300.0  # so that a question whose terminal has gone is not kept for ever
_KEPT = ("PATH", "HOME", "USER", "LANG", "TERM", "DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR",
         "DBUS_SESSION_BUS_ADDRESS", "XAUTHORITY")  # fmt: skip


class Notifier:
    """Runs the user's command once for each notice, one after the other. What goes wrong is recorded, no more."""

    def __init__(self, session: SessionContext, journal: Journal) -> None:
        self._session = session
        self._journal = journal
        self._one = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: deque[Notice] = deque(maxlen=_KEPT_NOTICES)
        self._number = 0
        self._changed = asyncio.Condition()

    def tell(self, notice: Notice) -> None:
        """Tell the terminals, and soon run the command with the notice's kind, the session's name and the text."""
        self._told.append(notice)
        self._number += 1
        task = asyncio.create_task(self._tell(notice))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for the commands that are under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def after(self, number: int | None) -> dict[str, Any]:
        """What was told after notice `number` (None: from now on), once there is something, or after a while."""
        start = self._number if number is None else max(0, min(number, self._number))
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S), self._changed:
                await self._changed.wait_for(lambda: self._number > start)
        new = min(self._number - start, len(self._told))
        latest = list(self._told)[len(self._told) - new :]
        return {"notices": [asdict(notice) for notice in latest], "number": self._number}

    async def _tell(self, notice: Notice) -> None:
        async with self._changed:
            self._changed.notify_all()
        async with self._one:
            try:
                words = session_settings(self._session).notify_command
                if words:
                    await asyncio.to_thread(
                        self._run, (*words, notice.kind, self._session.record.name, notice.text)
                    )
            except CodingAgentsError as error:
                self._journal.note(
                    RecordType.NOTIFIED,
                    subject=notice.kind,
                    outcome="failed",
                    detail={"reason": error.message},
                )

    def _run(self, argv: Sequence[str]) -> None:
        env = {name: value for name, value in self._session.env.environ.items() if name in _KEPT}
        done = run(Command(argv=tuple(argv), env=env, timeout_s=_TIMEOUT_S))
        detail: dict[str, str | int] = {"status": done.status}
        self._journal.note(
            RecordType.NOTIFIED,
            subject=argv[-3],
            outcome="allowed" if done.ok else "failed",
            detail=detail,
        )
