"""Automatic saves of a running session: on demand for `diff`, `review` and `pull`, and each minute by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.autosave import keep_save
from coding_agents.gitsync.relay import RelayService
from coding_agents.gitsync.relay_limits import Pressure
from coding_agents.model.audit import RecordType
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.guest_link import GuestLink
from coding_agents.supervisor.journal import Journal, now_ms

_PAUSE_S = 60.0
_SPARED = 20  # the part of the time that is free of automatic saves to that of one


class Autosaving:
    """The automatic saves of one session; `link` gives the channel when it is open, or raises SupervisorError."""

    def __init__(
        self,
        session: SessionContext,
        journal: Journal,
        relay: RelayService,
        link: Callable[[], Awaitable[GuestLink]],
    ) -> None:
        self._session = session
        self._journal = journal
        self._relay = relay
        self._link = link
        self._one_at_a_time = asyncio.Lock()

    async def save(self, *, branch: bool = False) -> dict[str, Any]:
        """Have the guest save, with `branch` its commits too, and keep what then is in the relay."""
        async with self._one_at_a_time:
            report = await (await self._link()).autosave(branch=branch)
            await asyncio.to_thread(keep_save, self._session.relay.store, now_ms())
        return {"commit": report.commit, "pushed": report.pushed, "message": report.message}

    async def save_regularly(self) -> None:
        """Each minute of a running session, less often when that takes long; until it is cancelled.

        Not at all from 80 % of a budget of the relay on: what is left is for what the agent pushes itself.
        """
        pause_s = _PAUSE_S
        while True:
            await asyncio.sleep(pause_s)
            if not self._session.record.started_at or not self._session.record.push:
                continue
            began = asyncio.get_running_loop().time()
            try:
                if await self._relay.pressure() is Pressure.NONE:
                    await self.save()
            except (CodingAgentsError, OSError) as error:
                self._journal.note(RecordType.AUTOSAVED, outcome="failed", detail={"reason": str(error)})
            pause_s = max(_PAUSE_S, _SPARED * (asyncio.get_running_loop().time() - began))
