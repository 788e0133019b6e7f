"""One connection to the user's own ssh-agent, made when it is first needed, and never waited for without an end."""

from __future__ import annotations

import asyncio
from types import TracebackType

from coding_agents.brokers.sshagent.filter import broken
from coding_agents.brokers.sshagent.wire import FAILURE, MAX_REPLY, SUCCESS, AgentError, Bind, packed

ANSWER_S = 20.0
"""Time for a person to confirm a key (`ssh-add -c`) or to touch one."""


class Upstream:
    """Asks the agent at the socket `path`; "" is none. A context: it ends its connection."""

    def __init__(self, path: str, *, answer_s: float = ANSWER_S) -> None:
        self._path = path
        self._answer_s = answer_s
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Upstream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cut()

    async def ask(self, message: bytes) -> bytes:
        """The agent's answer to `message`. Raises AgentError where there is none in time."""
        try:
            async with asyncio.timeout(self._answer_s):
                reader, writer = await self._connection()
                writer.write(packed(message))
                size = int.from_bytes(await reader.readexactly(4), "big")
                if not 0 < size <= MAX_REPLY:
                    raise AgentError("the agent on the host does not speak its protocol")
                return await reader.readexactly(size)
        except AgentError:
            self._cut()
            raise
        except TimeoutError:
            self._cut()
            raise AgentError(f"the agent on the host did not answer within {self._answer_s:g} s") from None
        except (OSError, ValueError, EOFError):
            self._cut()
            raise AgentError("the agent on the host is not reachable") from None

    async def require_checked(self, bind: Bind) -> None:
        """Let the agent check that the host of `bind` has signed its session. Raises AgentError where it did not.

        First it must refuse a signature that no host has made, on a connection of its own: there are agents that take
        any. What is checked then binds this connection there, too.
        """
        async with Upstream(self._path, answer_s=self._answer_s) as other:
            if await other.ask(broken(bind).message()) != FAILURE:
                raise AgentError(
                    "the agent on the host does not check who signed a session; OpenSSH 8.9 does"
                )
        if await self.ask(bind.message()) != SUCCESS:
            raise AgentError("the agent on the host does not take the session for that host's")

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._open is None:
            if not self._path:
                raise AgentError(
                    "this host has no ssh-agent: SSH_AUTH_SOCK is not set where the session began"
                )
            self._open = await asyncio.open_unix_connection(self._path)
        return self._open

    def _cut(self) -> None:
        if self._open is not None:
            self._open[1].transport.abort()
            self._open = None
