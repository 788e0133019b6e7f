"""Serve what a session calls origin: its git talks to copies of ours, and the host to the real one as the user.

A fetch is decided, recorded, made on the host, and served from the copy. A push lands in a quarantine; what it asks for
is judged before git sees it, looked at when it is there, and then waits for a person, and git in the session with it
for as long as that is not too long. What the host says to origin is said by whoever decides (`Desk`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from coding_agents.errors import CodingAgentsError, GitError
from coding_agents.gitsync.gates import PROTOCOL, FetchGate, PackGate
from coding_agents.gitsync.origin_address import Address
from coding_agents.gitsync.origin_quarantine import Quarantine
from coding_agents.gitsync.origin_rules import AskedPush, judge_push
from coding_agents.gitsync.origin_store import Listing, OriginStore, upload_pack
from coding_agents.gitsync.origin_waiting import answer, send_off
from coding_agents.gitsync.pktline import CommandReader, PktlineError, PushCommands
from coding_agents.gitsync.relay_events import Recorder, RelayEvent
from coding_agents.gitsync.relay_limits import LEAST_FILE, RelayLimits, used_up
from coding_agents.gitsync.service_request import Service, ServiceRequest
from coding_agents.gitsync.splice import (
    CHUNK,
    ByteStream,
    forward_advertisement,
    refuse_conversation,
    running,
    splice,
)
from coding_agents.model.approval import Approval
from coding_agents.model.origin import Origin, OriginRules
from coding_agents.model.refs import Oid
from coding_agents.model.turns import Turns
from coding_agents.policy.decide import Deny, decide
from coding_agents.policy.matrix import Operation, Policy, Tier

CONVERSATION_S = 3600.0
"""A first fetch of a large origin, and what follows it; a waiting push has the time of `OriginRules.wait_s` beside."""

_BURST, _EVERY_S, _PATIENCE_S = 30, 5.0, 30.0
# Of the relay's conversations, so that the session's work finds a place beside them.
_MOST_AT_ONCE, _MOST_WAITING = 8, 4
_ADVERTISED = 64 << 20
_CAPTURED = 4 << 20
_UNKNOWN = "this session has no such origin"


class Desk(Protocol):
    """Who knows a session's origins and decides about its pushes."""

    @property
    def rules(self) -> OriginRules: ...
    def origin(self, place: str) -> Origin | None: ...
    async def address(self, origin: Origin) -> Address: ...
    def store(self, origin: Origin) -> OriginStore: ...
    async def asked(
        self, asked: AskedPush, origin: Origin, refs: Mapping[str, Oid], default: str
    ) -> Approval | Deny: ...
    async def decided(self, approval: Approval, timeout_s: float) -> Approval: ...


class OriginService:
    """One session's."""

    def __init__(
        self, desk: Desk, quarantine: Quarantine, *, policy: Policy, recorder: Recorder, limits: RelayLimits
    ) -> None:
        self._desk = desk
        self._quarantine = quarantine
        self._policy = policy
        self._recorder = recorder
        self._limits = limits
        self._turns = Turns(_BURST, _EVERY_S)
        self._one_push = asyncio.Lock()
        self._active = 0
        self._waiting = 0

    async def serve(self, stream: ByteStream, request: ServiceRequest) -> None:
        """Serve one conversation. Raises PktlineError, GitError, OSError, which end it."""
        origin = self._desk.origin(request.place)
        if origin is None:
            await self._refuse(stream, request.place, "origin-unknown", _UNKNOWN)
            return
        wait_s = self._turns.take(asyncio.get_running_loop().time(), patience_s=_PATIENCE_S)
        if wait_s is None or self._active >= _MOST_AT_ONCE:
            await self._refuse(
                stream, origin.fetch, "origin-turns", "origin is asked too often; try again later"
            )
            return
        self._active += 1
        try:
            await asyncio.sleep(wait_s)
            if request.service is Service.FETCH:
                await self._fetch(stream, origin, request.rest)
            else:
                await self._push(stream, origin, request.rest)
        except PktlineError as error:
            await self._refuse(stream, origin.fetch, PROTOCOL, str(error))
        except CodingAgentsError as error:
            await self._failed(stream, origin, error)
        finally:
            self._active -= 1

    async def _fetch(self, stream: ByteStream, origin: Origin, first: bytes) -> None:
        decision = decide(self._policy, Operation.ORIGIN_FETCH)
        if isinstance(decision, Deny):
            await self._refuse(stream, origin.fetch, decision.rule, decision.reason)
            return
        if not await self._recorder.decided(decision, "origin-fetch", origin.fetch, {"place": origin.place}):
            await self._refuse(stream, origin.fetch, "audit-unavailable", "the audit log cannot be written")
            return
        store, patterns = self._desk.store(origin), self._desk.rules.refs
        await store.refresh(await self._desk.address(origin))
        command = upload_pack(
            store.store, patterns, limits=self._limits.of_git(LEAST_FILE), timeout_s=CONVERSATION_S
        )
        async with running(command) as process:
            refused = await splice(stream, process, FetchGate(self._limits.push_bytes), first=first)
        if refused is not None:
            await self._refuse(stream, origin.fetch, refused.rule, refused.reason)

    async def _push(self, stream: ByteStream, origin: Origin, first: bytes) -> None:
        if not origin.push:
            reason = origin.no_push or "only the session's own origin can be pushed to"
            await self._refuse(stream, origin.fetch, "origin-no-push", reason)
            return
        store = self._desk.store(origin)
        async with self._one_push:
            listing = await store.refresh(await self._desk.address(origin))
            try:
                await asyncio.to_thread(
                    self._quarantine.open, store, listing.refs, object_format=listing.object_format
                )
                arrived = await self._receive(stream, origin, listing, first)
                if arrived is None:
                    return
                commands, asked = arrived
                result = await self._desk.asked(asked, origin, listing.refs, listing.default)
            finally:
                await asyncio.to_thread(self._quarantine.close)
        if isinstance(result, Deny):
            await send_off(stream, commands, [result.reason], most=self._limits.push_bytes)
            return
        self._waiting += 1
        try:
            wait_s = self._desk.rules.wait_s if self._waiting <= _MOST_WAITING else 0.0
            await answer(stream, commands, result, self._desk.decided, wait_s=wait_s)
        finally:
            self._waiting -= 1

    async def _receive(
        self, stream: ByteStream, origin: Origin, listing: Listing, first: bytes
    ) -> tuple[PushCommands, AskedPush] | None:
        """Let git take the push, of which the client hears nothing yet; None when it was refused or is none."""
        command = self._quarantine.receive_pack(self._limits, timeout_s=self._limits.wall_s)
        captured = _Captured(stream)
        async with running(command) as process:
            await forward_advertisement(process, stream, most=_ADVERTISED)
            async with asyncio.timeout(self._limits.idle_s):
                commands = await _read_commands(stream, first)
            if commands is None or not commands.updates:
                return None
            asked, decisions = judge_push(commands, self._desk.rules, self._policy, default=listing.default)
            usage = await asyncio.to_thread(self._quarantine.usage)
            if full := used_up(usage, self._limits, wanted=(), salvage=False):
                asked, decisions = None, (Deny("relay-budget", Tier.ASK, full),) * len(commands.updates)
            if asked is not None:
                gate = PackGate(self._limits, usage, hash_bytes=len(asked.new) // 2)
                process.stdin.write(commands.raw)
                refused = await splice(captured, process, gate, first=commands.rest)
                if refused is not None:
                    asked, decisions = None, (refused,)
        if asked is None:
            reasons = [one.reason for one in decisions]
            for update, decision in zip(commands.updates, decisions, strict=True):
                await self._recorder.decided(decision, "origin-refused", f"{origin.push} {update.shown}", {})
            await send_off(stream, commands, reasons, most=self._limits.push_bytes)
            return None
        if await asyncio.to_thread(self._quarantine.store.resolve, f"{asked.ref}^{{commit}}") != asked.new:
            await self._note_failed(origin, asked.ref, "git did not take it")
            await stream.write(captured.output)  # git's own words and report
            stream.write_eof()
            return None
        return commands, asked

    async def _refuse(self, stream: ByteStream, subject: str, rule: str, reason: str) -> None:
        event = RelayEvent("origin-refused", "denied", Tier.ASK, rule, subject, {"reason": reason})
        await self._recorder.attempt(event)
        await refuse_conversation(stream, reason)

    async def _failed(self, stream: ByteStream, origin: Origin, error: CodingAgentsError) -> None:
        """Origin, or our copy of it, cannot be had: git in the session is told the message, the log the details."""
        detail = {"reason": error.message, "details": error.details[-1500:], "by": "agent"}
        await self._recorder.attempt(
            RelayEvent("origin-fetch", "failed", Tier.SILENT, "git", origin.fetch, detail)
        )
        reason = (
            f"{error.message}. {error.hint}" if isinstance(error, GitError) and error.hint else error.message
        )
        await refuse_conversation(stream, reason)

    async def _note_failed(self, origin: Origin, ref: str, reason: str) -> None:
        detail = {"reason": reason, "by": "agent"}
        await self._recorder.attempt(
            RelayEvent("origin-refused", "failed", Tier.SILENT, "git", f"{origin.push} {ref}", detail)
        )


class _Captured:
    """The stream of a guest that hears nothing of what git says, which is kept."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._kept = bytearray()

    @property
    def output(self) -> bytes:
        return bytes(self._kept)

    async def read(self, limit: int = CHUNK, /) -> bytes:
        return await self._stream.read(limit)

    async def write(self, data: bytes, /) -> None:
        if len(self._kept) + len(data) > _CAPTURED:
            raise OSError("git says too much")
        self._kept += data

    def write_eof(self) -> None:
        """The client's end is told later."""

    def close(self) -> None:
        self._stream.close()

    def reset(self, reason: str, /) -> None:
        self._stream.reset(reason)


async def _read_commands(stream: ByteStream, first: bytes) -> PushCommands | None:
    reader = CommandReader(options=True)
    data = first
    while True:
        if data and (commands := reader.feed(data)):
            return commands
        data = await stream.read(CHUNK)
        if not data:
            return None
