"""A session's MCP servers at an address that wants a secret: each request is judged, recorded, and sent by the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coding_agents.model.audit import Outcome, RecordType
from coding_agents.model.turns import Turns
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.host_tls import host_tls
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.mcp_judge import McpJudge, RefusalError
from coding_agents_guest.mux import Stream

if TYPE_CHECKING:
    from coding_agents.brokers.mcp.http import Target, WebBroker

_BURST, _EVERY_S, _PATIENCE_S = 120, 0.5, 20.0


class McpWeb:
    """One session's. The broker, and what HTTP and TLS need, is loaded with the first connection."""

    def __init__(self, session: SessionContext, journal: Journal) -> None:
        self._session = session
        self._judge = McpJudge(session, journal, "address", Turns(_BURST, _EVERY_S), patience_s=_PATIENCE_S)
        self._broker: WebBroker | None = None

    @property
    def served(self) -> bool:
        """Whether the session was given any such server."""
        return bool(self._judge.given())

    async def serve(self, stream: Stream) -> None:
        """Serve one connection of the guest to its end."""
        if self._broker is None:
            self._broker = self._make()
        await self._broker.serve(stream)

    async def close(self) -> None:
        if self._broker is not None:
            await self._broker.close()

    def _make(self) -> WebBroker:
        from coding_agents.brokers.http.upstream import proxy_for
        from coding_agents.brokers.mcp.http import WebBroker, WebService

        environ = self._session.env.environ
        return WebBroker(
            WebService(
                target=self._target,
                ended=self._ended,
                proxy_for=lambda address: proxy_for(address, environ),
                tls=lambda: host_tls(environ),
            )
        )

    async def _target(self, name: str, method: str, size: int) -> Target:
        from coding_agents.brokers.mcp.http import NotServedError, target_of

        try:
            granted = await self._judge.grant(name, RecordType.MCP_REQUEST, {"method": method, "bytes": size})
        except RefusalError as error:
            await self._judge.refused(name, error)
            raise NotServedError(str(error)) from None
        server = granted.server
        try:
            return target_of(name, server.url, dict(server.headers), granted.token, granted.secrets)
        except NotServedError as error:
            await self._ended(name, str(error), False)
            raise

    async def _ended(self, name: str, reason: str, reflected: bool) -> None:
        outcome: Outcome = "denied" if reflected else "failed"
        await self._judge.ended(RecordType.MCP_REQUEST, name, outcome, {"reason": reason})
