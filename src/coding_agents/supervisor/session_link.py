"""The channel of one running session: opened to a start, and again where one was cut under a running container."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from coding_agents.errors import ChannelError, CodingAgentsError, SupervisorError
from coding_agents.model.runtimes import is_gvisor
from coding_agents.sandbox.guest import guest_argv
from coding_agents.sandbox.spec import BRIDGE_USER
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.end_watch import until_ended
from coding_agents.supervisor.git_settings import git_config_option
from coding_agents.supervisor.guest_link import GuestLink, Service
from coding_agents.supervisor.journal import Journal

_REOPEN_WAIT_S = 5.0  # for who needs the channel
_LAST_WORDS_S = 1.0

Offer = Callable[[], tuple[dict[str, Service], tuple[str, ...]]]


class SessionLink:
    """At most one channel at a time. `offered` gives what the next one serves, and the bridge's options for it."""

    def __init__(self, session: SessionContext, journal: Journal, offered: Offer) -> None:
        self._session = session
        self._journal = journal
        self._offered = offered
        self._opened = asyncio.Event()  # as long as it is open
        self.current: GuestLink | None = None

    async def open(self) -> dict[str, object]:
        """Open a channel; returns what its bridge has read. Raises ChannelError and EngineError."""
        record, engine = self._session.record, self._session.engine
        services, options = self._offered()
        options += await asyncio.to_thread(git_config_option, self._session)
        link = GuestLink(services, self._journal.guest)
        command = engine.exec_command(
            record.container_id,
            guest_argv(record.guest_digest, "bridge", *options),
            user=BRIDGE_USER,
            interactive=True,
        )
        try:
            facts = await link.open(command)
        except CodingAgentsError:
            await link.close()
            raise
        self.current = link
        self._opened.set()
        return facts

    def require(self) -> GuestLink:
        """The open channel. Raises SupervisorError when there is none."""
        if self.current is None or self.current.closed:
            raise SupervisorError("the session's channel is not open", hint="Start the session again.")
        return self.current

    async def until_open(self) -> GuestLink:
        """The channel, and where one was cut the next one. Raises SupervisorError when there is none soon."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._opened.wait(), _REOPEN_WAIT_S)
        return self.require()

    async def until_closed(self) -> None:
        """Until the channel that is there has come to its end."""
        if self.current is not None:
            with suppress(ChannelError):
                await self.current.until_closed()
        self._opened.clear()

    async def cut_at_end(self) -> None:
        """Cut the channel at the container's end, where it would stay open: with gVisor."""
        record = self._session.record
        if not is_gvisor(record.runtime):
            return
        try:
            await until_ended(self._session.engine, record.container_id)
        except CodingAgentsError as error:
            self._journal.broken(error)
        link = self.current
        if link is not None:
            with suppress(TimeoutError, ChannelError):  # what the guest said last may still be on its way
                await asyncio.wait_for(link.until_closed(), _LAST_WORDS_S)
            link.cut()

    def let_go(self) -> GuestLink | None:
        """The channel, for who closes it; from here on there is none."""
        link, self.current = self.current, None
        return link

    async def close(self) -> None:
        """Close the channel, if there is one."""
        link = self.let_go()
        if link is not None:
            await link.close()
