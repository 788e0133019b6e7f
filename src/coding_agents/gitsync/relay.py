"""Serve the relay over the channel: one conversation of a guest's git with one repository of ours.

All that a guest can reach by misbehaving is the end of its own conversation.

What saves the agent's work when it cannot (the salvage) is held to no number and no rate of conversations.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from coding_agents.errors import GitError
from coding_agents.gitsync.door import Door
from coding_agents.gitsync.gates import PROTOCOL, FetchGate
from coding_agents.gitsync.pktline import PktlineError
from coding_agents.gitsync.relay_events import Recorder, RelayEvent, TipChange
from coding_agents.gitsync.relay_limits import DEFAULT_LIMITS, LEAST_FILE, Pressure, RelayLimits, pressure
from coding_agents.gitsync.relay_push import PushService
from coding_agents.gitsync.relay_repo import Identity, Relay, upload_pack_command
from coding_agents.gitsync.relay_thinning import LetGo, RelayThinning, Thinned
from coding_agents.gitsync.relay_usage import RelayUsage
from coding_agents.gitsync.service_request import WORKSPACE, RequestReader, Service, ServiceRequest
from coding_agents.gitsync.splice import CHUNK, ByteStream, refuse_conversation, running, splice
from coding_agents.model.turns import Turns
from coding_agents.policy.decide import Deny, decide
from coding_agents.policy.matrix import Operation, Policy, Tier

_TOO_OFTEN = "relay-rate"


class OtherPlaces(Protocol):
    """Serves what is beside the relay: what the session calls origin."""

    @property
    def longest_s(self) -> float:
        """How long a conversation may take."""

    async def serve(self, stream: ByteStream, request: ServiceRequest, /) -> None:
        """Serve one conversation of the agent. Raises OSError when that breaks off."""


class RelayService:
    """Serves one relay. `record` raises when it cannot record; `on_update` runs after a ref moved.

    `others` serves the agent what is not the relay.
    """

    def __init__(
        self,
        relay: Relay,
        *,
        policy: Policy,
        record: Callable[[RelayEvent], Awaitable[None]],
        on_update: Callable[[TipChange], Awaitable[None]],
        limits: RelayLimits = DEFAULT_LIMITS,
        others: OtherPlaces | None = None,
    ) -> None:
        self._relay = relay
        self._others = others
        self._policy = policy
        self._recorder = Recorder(record)
        self._limits = limits
        self._usage = RelayUsage(relay)
        self._door = Door()
        self._thinning = RelayThinning(relay, self._usage, self._door)
        self._push = PushService(
            relay,
            policy=policy,
            recorder=self._recorder,
            on_update=on_update,
            usage=self._usage,
            limits=limits,
        )
        self._turns = Turns(limits.burst, limits.every_s)
        self._active = 0

    def limit(self, limits: RelayLimits) -> None:
        """Hold to `limits` from the next conversation on."""
        self._limits = limits
        self._push.limit(limits)

    async def serve(self, stream: ByteStream, *, identity: Identity) -> None:
        """Serve one connection to its end. Raises nothing for what the guest sends or leaves out."""
        counted = identity is Identity.AGENT
        if counted and self._active >= self._limits.conversations:
            stream.reset("too many git conversations at once")
            return
        self._active += counted
        try:
            async with asyncio.timeout(self._limits.wall_s) as limit:
                await self._converse(stream, identity, limit)
        except PktlineError as error:  # before the service is known
            await self._refuse(stream, "fetch-refused", PROTOCOL, str(error))
        except TimeoutError:
            stream.reset("the git conversation took too long")
        except OSError:
            stream.reset("the git conversation broke off")
        except GitError as error:  # the relay is damaged or its disk is full: the work stays in the volume
            await self._recorder.attempt(_failure(error))
            stream.reset("the relay is not available")
        else:
            stream.close()
        finally:
            self._active -= counted

    async def _converse(self, stream: ByteStream, identity: Identity, limit: asyncio.Timeout) -> None:
        async with asyncio.timeout(self._limits.request_s):
            request = await _read_request(stream)
        if request is None:
            return
        fetching = request.service is Service.FETCH
        if identity is Identity.AGENT and not await self._its_turn():
            kind = "fetch-refused" if fetching else "push-refused"
            await self._refuse(stream, kind, _TOO_OFTEN, self._too_often())
            return
        if request.place != WORKSPACE:
            if self._others is None or identity is not Identity.AGENT:
                raise PktlineError("nothing but git://coding-agents/workspace is served here")
            limit.reschedule(asyncio.get_running_loop().time() + self._others.longest_s)
            await self._others.serve(stream, request)
            return
        async with self._door.inside():
            if fetching:
                await self._fetch(stream, request.rest)
                return
            try:
                await self._push.serve(stream, request.rest, identity)
            except PktlineError as error:
                await self._refuse(stream, "push-refused", PROTOCOL, str(error))

    async def _its_turn(self) -> bool:
        """Wait for this conversation's turn; False, at once, when that is too far away."""
        now = asyncio.get_running_loop().time()
        wait_s = self._turns.take(now, patience_s=self._limits.patience_s)
        if wait_s is None:
            return False
        await asyncio.sleep(wait_s)
        return True

    def _too_often(self) -> str:
        limits = self._limits
        return (
            f"too many git conversations: after {limits.burst} one every {limits.every_s:g} s is served, and "
            f"{limits.patience_s:g} s are full of others; the work stays here, run git again later"
        )

    async def _refuse(self, stream: ByteStream, kind: str, rule: str, reason: str) -> None:
        """Record the refusal of a whole conversation, then tell it."""
        await self._recorder.attempt(RelayEvent(kind, "denied", Tier.ASK, rule, "relay", {"reason": reason}))
        await refuse_conversation(stream, reason)

    async def _fetch(self, stream: ByteStream, first: bytes) -> None:
        decision = decide(self._policy, Operation.FETCH_RELAY)
        if isinstance(decision, Deny):
            await self._refuse(stream, "fetch-refused", decision.rule, decision.reason)
            return
        if decision.tier is not Tier.SILENT:
            await self._recorder.decided(decision, "fetch", self._relay.branch.ref, {})
        command = upload_pack_command(
            self._relay, limits=self._limits.of_git(LEAST_FILE), timeout_s=self._limits.wall_s
        )
        async with running(command) as process:
            refused = await splice(stream, process, FetchGate(self._limits.push_bytes), first=first)
        if refused is not None:
            await self._refuse(stream, "fetch-refused", refused.rule, refused.reason)

    async def pressure(self) -> Pressure:
        """How near the relay is to its budgets. Raises GitError, OSError."""
        return pressure(await self._thinning.measure(), self._limits)

    async def thin(self, *, let_go: LetGo, apart: AbstractAsyncContextManager[object]) -> Thinned | None:
        """Thin the relay out if that is due (`RelayThinning.thin`). Raises GitError, OSError."""
        return await self._thinning.thin(self._limits, let_go=let_go, apart=apart)


def _failure(error: GitError) -> RelayEvent:
    return RelayEvent("push", "failed", Tier.SILENT, "git", "relay", {"reason": error.message})


async def _read_request(stream: ByteStream) -> ServiceRequest | None:
    reader = RequestReader()
    while data := await stream.read(CHUNK):
        if request := reader.feed(data):
            return request
    return None
