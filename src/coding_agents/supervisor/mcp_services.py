"""The ways to a session's MCP servers with a secret. What they need is loaded only for a session that was given one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coding_agents.model.mcp import GIVEN_FILE
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.guest_link import Service
from coding_agents.supervisor.journal import Journal

if TYPE_CHECKING:
    from coding_agents.supervisor.mcp_access import McpAccess
    from coding_agents.supervisor.mcp_web import McpWeb


class McpServices:
    """One session's. Limits hold over all its channels."""

    def __init__(self, session: SessionContext, journal: Journal) -> None:
        self._session = session
        self._journal = journal
        self._programs: McpAccess | None = None
        self._addresses: McpWeb | None = None

    def services(self) -> dict[str, Service]:
        """What the guest may open now, by the name of the service; the bridge has an option of that name for each."""
        if not (self._session.directory / GIVEN_FILE).exists():
            return {}
        from coding_agents.supervisor.mcp_access import McpAccess
        from coding_agents.supervisor.mcp_web import McpWeb

        self._programs = self._programs or McpAccess(self._session, self._journal)
        self._addresses = self._addresses or McpWeb(self._session, self._journal)
        ways: dict[str, McpAccess | McpWeb] = {"mcp": self._programs, "mcp-web": self._addresses}
        return {name: way.serve for name, way in ways.items() if way.served}

    async def close(self) -> None:
        """Close the connections to servers at an address. Programs have ended with their channel."""
        if self._addresses is not None:
            await self._addresses.close()
