"""What a session's guest may open a stream to: one list of the services, and of the bridge's options for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from coding_agents.supervisor.activity import ActivityWatch
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.credential_access import CredentialAccess
from coding_agents.supervisor.guest_link import Service
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.mcp_services import McpServices
from coding_agents.supervisor.model_access import ModelAccess
from coding_agents.supervisor.registry_access import RegistryAccess
from coding_agents.supervisor.signing_access import SigningAccess
from coding_agents.supervisor.ssh_agent_access import SshAgentAccess
from coding_agents.supervisor.tool_calls import ToolCalls
from coding_agents_guest.mux import Stream


class Access(Protocol):
    """One broker of a session. Its limits hold over all channels of the session."""

    @property
    def served(self) -> bool:
        """Whether the session has this now; asked with each channel that is opened."""

    async def serve(self, stream: Stream) -> None:
        """Serve one connection of the guest to its end. Raises nothing for what the guest sends."""

    async def close(self) -> None:
        """End what is still open towards the outside."""


class Services:
    """One session's, beside the relay and the events, which every session has."""

    def __init__(
        self,
        session: SessionContext,
        journal: Journal,
        *,
        end_for: Callable[[str], None],
        activity: ActivityWatch,
    ) -> None:
        self._tool_calls = ToolCalls(journal.tool_call)
        self._mcp = McpServices(session, journal)
        # By the name of the stream's service; the bridge has an option of that name for each.
        self._brokers: dict[str, Access] = {
            "model": ModelAccess(session, journal, end_for, activity),
            "registry": RegistryAccess(session, journal),
            "credential": CredentialAccess(session, journal),
            "ssh-agent": SshAgentAccess(session, journal),
            "sign": SigningAccess(session, journal),
        }

    def offered(self) -> tuple[dict[str, Service], tuple[str, ...]]:
        """What is served on a channel that is opened now, and the bridge's options for it."""
        ways: dict[str, Service] = {
            name: broker.serve for name, broker in self._brokers.items() if broker.served
        }
        ways |= self._mcp.services()
        return {"tools": self._tool_calls.serve, **ways}, tuple(f"--{name}" for name in ways)

    async def close(self) -> None:
        """End what is still open towards the outside."""
        for broker in self._brokers.values():
            await broker.close()
        await self._mcp.close()
