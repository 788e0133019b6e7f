"""Whether a session's agent works or waits for its user, as far as its requests to the model tell. For display."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from coding_agents.errors import CodingAgentsError
from coding_agents.model.session import Activity
from coding_agents.supervisor.context import SessionContext

_QUIET_S = 2.0
"""So long after an answer without a tool call an agent waits: side requests and the next turn come sooner."""


class ActivityWatch:
    """Follows the requests of one session; `on_waiting` is told each time the agent begins to wait."""

    def __init__(self, session: SessionContext, on_waiting: Callable[[], None]) -> None:
        self._session = session
        self._on_waiting = on_waiting
        self._under_way = 0
        self._quiet: asyncio.TimerHandle | None = None
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def began(self) -> None:
        """A request goes to the model."""
        self._under_way += 1
        self._cancel()
        self._become("working")

    def ended(self, *, calls: bool) -> None:
        """It was answered; `calls` tells whether the answer asked for a tool."""
        self._under_way -= 1
        self._cancel()
        if not self._under_way and not calls:
            self._quiet = asyncio.get_running_loop().call_later(_QUIET_S, self._become, "waiting")

    def stop(self) -> None:
        """The session has ended, or is served by somebody else."""
        self._cancel()

    def _cancel(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None

    def _become(self, activity: Activity) -> None:
        task = asyncio.create_task(self._write(activity))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, activity: Activity) -> None:
        async with self._writing:
            record = self._session.record
            if record.activity == activity or record.mode != "tmux":
                return
            with suppress(CodingAgentsError):
                await asyncio.to_thread(self._session.update, activity=activity)
        if activity == "waiting":
            self._on_waiting()
