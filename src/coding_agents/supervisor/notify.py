"""Tell a session's user what happens to it, by the command that they have set (`notify.command`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from coding_agents.errors import CodingAgentsError
from coding_agents.model.audit import RecordType
from coding_agents.proc.runner import Command, run
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.model_access import session_settings

Notice = Literal["waiting", "finished", "failed", "budget"]

_TIMEOUT_S = 30.0
_KEPT = ("PATH", "HOME", "USER", "LANG", "TERM", "DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR",
         "DBUS_SESSION_BUS_ADDRESS", "XAUTHORITY")  # fmt: skip


class Notifier:
    """Runs the user's command once for each notice, one after the other. What goes wrong is recorded, no more."""

    def __init__(self, session: SessionContext, journal: Journal) -> None:
        self._session = session
        self._journal = journal
        self._one = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, notice: Notice, text: str) -> None:
        """Run the command with the notice, the session's name and `text` as its last words, soon."""
        task = asyncio.create_task(self._tell(notice, text))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for the commands that are under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tell(self, notice: Notice, text: str) -> None:
        async with self._one:
            try:
                words = session_settings(self._session).notify_command
                if words:
                    await asyncio.to_thread(self._run, (*words, notice, self._session.record.name, text))
            except CodingAgentsError as error:
                self._journal.note(
                    RecordType.NOTIFIED, subject=notice, outcome="failed", detail={"reason": error.message}
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
