"""Automatic saves of a running session: on demand for `diff`, `review` and `pull`, and each minute by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.autosave import keep_save, let_go
from coding_agents.gitsync.relay import RelayService
from coding_agents.gitsync.relay_limits import Pressure
from coding_agents.gitsync.thinning import Keep
from coding_agents.model.audit import RecordType
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.guest_link import GuestLink
from coding_agents.supervisor.journal import Journal, now_ms

_PAUSE_S = 60.0
_SPARED = 20  # the part of the time that is free of automatic saves to that of one


class Autosaving:
    """The automatic saves of one session; `link` gives the channel when it is open, or raises SupervisorError.

    `homing` is held by whoever brings work home: that, too, writes to the relay.
    """

    def __init__(
        self,
        session: SessionContext,
        journal: Journal,
        relay: RelayService,
        link: Callable[[], Awaitable[GuestLink]],
        homing: asyncio.Lock,
    ) -> None:
        self._session = session
        self._journal = journal
        self._relay = relay
        self._link = link
        self._homing = homing
        self._one_at_a_time = asyncio.Lock()

    async def save(self, *, branch: bool = False) -> dict[str, Any]:
        """Have the guest save, with `branch` its commits too, and keep what then is in the relay."""
        async with self._one_at_a_time:
            report = await (await self._link()).autosave(branch=branch)
            await asyncio.to_thread(keep_save, self._session.relay.store, now_ms())
        return {"commit": report.commit, "pushed": report.pushed, "message": report.message}

    async def save_regularly(self) -> None:
        """Each minute of a running session, less often when that takes long; until it is cancelled.

        From 80 % of a budget of the relay on only when thinning out gives enough room: what is left is for what the
        agent pushes itself.
        """
        pause_s = _PAUSE_S
        while True:
            await asyncio.sleep(pause_s)
            if self._session.record.started_at and self._session.record.push:
                pause_s = max(_PAUSE_S, _SPARED * await self._save_or_say_why())

    async def _save_or_say_why(self) -> float:
        """Save where there is room; how many seconds the save took."""
        clock = asyncio.get_running_loop().time
        began_s = clock()
        try:
            if await self._relay.pressure() is not Pressure.NONE and not await self._make_room():
                return 0.0
            began_s = clock()  # how often a relay is thinned out is not ours to see to
            await self.save()
        except (CodingAgentsError, OSError) as error:
            self._journal.note(RecordType.AUTOSAVED, outcome="failed", detail={"reason": str(error)})
        return clock() - began_s

    async def _make_room(self) -> bool:
        """Thin the relay out if that is due; whether there is room now."""
        thinned = await self._relay.thin(let_go=self._let_go, apart=self._homing)
        if thinned is None:
            return False
        self._journal.note(
            RecordType.THINNED,
            outcome="allowed" if thinned.pressure is Pressure.NONE else "failed",
            detail={
                "disk": f"{thinned.before.disk_bytes} to {thinned.after.disk_bytes}",
                "unpacked": f"{thinned.before.unpacked_bytes} to {thinned.after.unpacked_bytes}",
                "reason": thinned.pressure.value,
            },
        )
        return thinned.pressure is Pressure.NONE

    async def _let_go(self, keep: Keep) -> bool:
        async with self._one_at_a_time:
            return await asyncio.to_thread(let_go, self._session.relay.store, now_ms(), keep)
