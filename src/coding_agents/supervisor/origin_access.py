"""A session's origin, as the supervisor has it; all that it needs is loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from coding_agents.gitsync.service_request import ServiceRequest
from coding_agents.gitsync.splice import ByteStream
from coding_agents.model.notice import Notice
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.journal import Journal

if TYPE_CHECKING:
    from coding_agents.gitsync.origin_service import OriginService
    from coding_agents.supervisor.origin_desk import OriginDesk

_LONGEST_S = (
    2 * 3600.0
)  # a first fetch of a large origin and an hour, the longest that a push may be kept waiting


class OriginAccess:
    """One session's. `tell` is for its user."""

    longest_s = _LONGEST_S

    def __init__(self, session: SessionContext, journal: Journal, tell: Callable[[Notice], None]) -> None:
        self._session = session
        self._journal = journal
        self._tell = tell
        self._desk: OriginDesk | None = None
        self._service: OriginService | None = None

    async def serve(self, stream: ByteStream, request: ServiceRequest, /) -> None:
        """Serve one conversation of the agent's git. Raises OSError when that breaks off."""
        if self._service is None:
            self._service = self._make_service()
        await self._service.serve(stream, request)

    async def decide(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a person says about a push that waits, and what becomes of it. Raises ApprovalError, AuditError."""
        return await self._at_desk().decide(request)

    def _at_desk(self) -> OriginDesk:
        if self._desk is None:
            from coding_agents.supervisor.origin_desk import OriginDesk

            self._desk = OriginDesk(self._session, self._journal, self._tell)
        return self._desk

    def _make_service(self) -> OriginService:
        from coding_agents.gitsync.origin_service import OriginService
        from coding_agents.gitsync.relay_events import Recorder
        from coding_agents.gitsync.rules import load_policy
        from coding_agents.supervisor.relay_budgets import relay_limits

        desk = self._at_desk()
        return OriginService(
            desk,
            desk.quarantine,
            policy=load_policy(),
            recorder=Recorder(self._journal.relay),
            limits=relay_limits(self._session),
        )
