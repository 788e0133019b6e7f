"""Serve the relay over the channel: one conversation of a guest's git with one repository of ours.

For a push the order is fixed: read and parse the commands, decide, record, and only then let
`git receive-pack` see them. If the record cannot be written the push is refused. All that a guest can
reach by misbehaving is the end of its own conversation.

What saves the agent's work when it cannot (the salvage) is held to no number and no rate of conversations.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress

import msgspec

from coding_agents.errors import CodingAgentsError, GitError
from coding_agents.gitsync.door import Door
from coding_agents.gitsync.gates import BUDGET, PROTOCOL, FetchGate, PackGate
from coding_agents.gitsync.old_tips import archive_old, keep_old, take_back
from coding_agents.gitsync.pktline import CommandReader, PktlineError, PushCommands, refusal_report
from coding_agents.gitsync.relay_limits import DEFAULT_LIMITS, Pressure, RelayLimits, Usage, pressure, used_up
from coding_agents.gitsync.relay_repo import (
    SALVAGE_HEADS,
    SALVAGE_REFS,
    Identity,
    Relay,
    receive_pack_command,
    upload_pack_command,
)
from coding_agents.gitsync.relay_thinning import LetGo, RelayThinning, Thinned
from coding_agents.gitsync.relay_usage import RelayUsage
from coding_agents.gitsync.repack import sweep_draft
from coding_agents.gitsync.service_request import RequestReader, Service, ServiceRequest
from coding_agents.gitsync.splice import (
    CHUNK,
    ByteStream,
    GitProcess,
    finish_reading,
    forward_advertisement,
    refuse_conversation,
    running,
    splice,
)
from coding_agents.model.refs import Oid, RefUpdate
from coding_agents.model.turns import Turns
from coding_agents.policy.decide import Allow, Decision, Deny, PushRequest, decide, decide_push
from coding_agents.policy.matrix import Operation, Policy, Tier
from coding_agents.proc.limits import ProcessLimits, restrict
from coding_agents_guest.nestedref import LATEST

_MIB = 1 << 20
_TOO_OFTEN = "relay-rate"
_NOT_RECORDED = Deny("audit-unavailable", Tier.ASK, "the audit log cannot be written")
# Of one file: what is left on disk, but never so little that refs and their logs could not be written.
_LEAST_FILE = 16 * _MIB
# What is listed to who wants to push. Most of it are refs of the agent's own, whose number is bounded by `relay.refs`
# and whose names by the policy: however many they are, they may not shut out its rescue.
_ADVERTISED = {Identity.AGENT: 4 * _MIB, Identity.SALVAGE: 1 << 40}


class RelayEvent(msgspec.Struct, frozen=True):
    """A fact for the audit log: type push, push-refused, fetch or fetch-refused; outcome allowed, denied or
    failed. What is denied the guest can cause as often as it likes."""

    type: str
    outcome: str
    tier: int
    rule: str
    subject: str
    detail: Mapping[str, str]


class TipChange(msgspec.Struct, frozen=True):
    """A ref of the relay moved. `archived` names the ref that keeps `old` when `new` does not contain it."""

    identity: Identity
    ref: str
    old: Oid | None
    new: Oid
    archived: str | None


class RelayService:
    """Serves one relay. `record` raises when it cannot record; `on_update` runs after a ref moved."""

    def __init__(
        self,
        relay: Relay,
        *,
        policy: Policy,
        record: Callable[[RelayEvent], Awaitable[None]],
        on_update: Callable[[TipChange], Awaitable[None]],
        limits: RelayLimits = DEFAULT_LIMITS,
    ) -> None:
        self._relay = relay
        self._policy = policy
        self._record = record
        self._on_update = on_update
        self._limits = limits
        self._usage = RelayUsage(relay)
        self._door = Door()
        self._thinning = RelayThinning(relay, self._usage, self._door)
        self._one_push = asyncio.Lock()
        self._turns = Turns(limits.burst, limits.every_s)
        self._active = 0
        self._swept = False
        self._began = time.time()

    def limit(self, limits: RelayLimits) -> None:
        """Hold to `limits` from the next conversation on."""
        self._limits = limits

    async def serve(self, stream: ByteStream, *, identity: Identity) -> None:
        """Serve one connection to its end. Raises nothing for what the guest sends or leaves out."""
        counted = identity is Identity.AGENT
        if counted and self._active >= self._limits.conversations:
            stream.reset("too many git conversations at once")
            return
        self._active += counted
        try:
            async with asyncio.timeout(self._limits.wall_s):
                await self._converse(stream, identity)
        except PktlineError as error:  # before the service is known
            await self._refuse(stream, "fetch-refused", PROTOCOL, str(error))
        except TimeoutError:
            stream.reset("the git conversation took too long")
        except OSError:
            stream.reset("the git conversation broke off")
        except GitError as error:  # the relay is damaged or its disk is full: the work stays in the volume
            await self._try_record(_failure(error))
            stream.reset("the relay is not available")
        else:
            stream.close()
        finally:
            self._active -= counted

    async def _converse(self, stream: ByteStream, identity: Identity) -> None:
        async with asyncio.timeout(self._limits.request_s):
            request = await _read_request(stream)
        if request is None:
            return
        fetching = request.service is Service.FETCH
        if identity is Identity.AGENT and not await self._its_turn():
            kind = "fetch-refused" if fetching else "push-refused"
            await self._refuse(stream, kind, _TOO_OFTEN, self._too_often())
            return
        async with self._door.inside():
            if fetching:
                await self._fetch(stream, request.rest)
                return
            try:
                await self._push(stream, request.rest, identity)
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
        await self._try_record(RelayEvent(kind, "denied", Tier.ASK, rule, "relay", {"reason": reason}))
        await refuse_conversation(stream, reason)

    async def _fetch(self, stream: ByteStream, first: bytes) -> None:
        decision = decide(self._policy, Operation.FETCH_RELAY)
        if isinstance(decision, Deny):
            await self._refuse(stream, "fetch-refused", decision.rule, decision.reason)
            return
        if decision.tier is not Tier.SILENT:
            await self._recorded(decision, "fetch", self._relay.branch.ref, {})
        command = upload_pack_command(
            self._relay, limits=self._process_limits(_LEAST_FILE), timeout_s=self._limits.wall_s
        )
        async with running(command) as process:
            refused = await splice(stream, process, FetchGate(self._limits.push_bytes), first=first)
        if refused is not None:
            await self._refuse(stream, "fetch-refused", refused.rule, refused.reason)

    async def _push(self, stream: ByteStream, first: bytes, identity: Identity) -> None:
        command = receive_pack_command(
            self._relay,
            identity,
            max_input=self._limits.push_bytes,
            rewrite=isinstance(decide(self._policy, Operation.PUSH_REWRITE), Allow),
            limits=self._process_limits(self._limits.disk_bytes),
            timeout_s=self._limits.wall_s,
        )
        async with running(command) as process:
            await forward_advertisement(process, stream, most=_ADVERTISED[identity])
            commands = await _read_commands(stream, first)
            if commands is None or not commands.updates:
                return  # nothing to push
            async with self._one_push:
                await self._sweep_once()
                refs = await asyncio.to_thread(self._relay.store.refs)
                usage = await asyncio.to_thread(self._usage.measure, refs)
                decisions = await self._decide(commands, identity, usage)
                if not any(isinstance(decision, Deny) for decision in decisions):
                    decisions = await self._carry_out(stream, process, commands, identity, refs, usage)
        # Others may push while this client sends the rest of what is refused.
        if decisions:
            await _refuse_push(stream, commands, decisions, most=self._limits.push_bytes)

    async def _sweep_once(self) -> None:
        """Remove what pushes left that were killed with an earlier supervisor: it takes room and is in the way."""
        if not self._swept:
            self._swept = True
            await asyncio.to_thread(self._usage.sweep, until=self._began)
            await asyncio.to_thread(sweep_draft, self._relay.git_dir, until=self._began)
            await asyncio.to_thread(self._relay.store.sweep, until=self._began)

    def _process_limits(self, file_bytes: int) -> ProcessLimits:
        limits = self._limits
        return ProcessLimits(limits.cpu_s, limits.memory_bytes, file_bytes, limits.open_files)

    async def _decide(self, commands: PushCommands, identity: Identity, usage: Usage) -> tuple[Decision, ...]:
        """The decision for each update, after it is in the audit log."""
        salvage = identity is Identity.SALVAGE
        own = frozenset(SALVAGE_REFS if salvage else (self._relay.branch.ref,))
        prefix = SALVAGE_HEADS if salvage else ""
        latest = "" if salvage else LATEST
        request = PushRequest(commands.updates, own, salvage, prefix, latest)
        decisions = decide_push(self._policy, request)
        wanted = [update.ref for update in commands.updates]
        if full := used_up(usage, self._limits, wanted=wanted, salvage=salvage):
            decisions = (Deny(BUDGET, Tier.ASK, full),) * len(decisions)
        refused = any(isinstance(decision, Deny) for decision in decisions)
        for update, decision in zip(commands.updates, decisions, strict=True):
            kind = "push-refused" if refused else "push"
            detail = _detail(update, identity)
            if not await self._recorded(decision, kind, update.shown, detail) and not refused:
                return (_NOT_RECORDED,) * len(decisions)
        return decisions

    async def _recorded(self, decision: Decision, kind: str, subject: str, detail: Mapping[str, str]) -> bool:
        outcome = "allowed" if isinstance(decision, Allow) and kind != "push-refused" else "denied"
        return await self._try_record(
            RelayEvent(
                kind, outcome, decision.tier, decision.rule, subject, {**detail, "reason": decision.reason}
            )
        )

    async def _try_record(self, event: RelayEvent) -> bool:
        try:
            await self._record(event)
        except (CodingAgentsError, OSError):
            return False
        return True

    async def _carry_out(
        self,
        stream: ByteStream,
        process: GitProcess,
        commands: PushCommands,
        identity: Identity,
        before: Mapping[str, Oid],
        usage: Usage,
    ) -> tuple[Decision, ...]:
        """Let git do it, tell the client's end that it is done, then see what became of each ref.

        Returns the refusals of a push whose pack turned out to exceed a budget, else nothing.
        """
        room = max(_LEAST_FILE, self._limits.disk_bytes - usage.disk_bytes)
        restrict(process.pid, self._process_limits(room))
        # git reads no id of another length than the relay's own, so the pack's ids are as long as the commands'.
        gate = PackGate(self._limits, usage, hash_bytes=_hash_bytes(commands))
        await asyncio.to_thread(keep_old, self._relay.store, commands.updates, before)
        try:
            process.stdin.write(commands.raw)
            refused = await splice(stream, process, gate, first=commands.rest)
        except BaseException:
            process.kill()
            self._usage.sweep(until=time.time())
            raise
        if refused is not None:
            await asyncio.to_thread(self._usage.sweep, until=time.time())
        after = await asyncio.to_thread(self._relay.store.refs)
        moved = [update.ref for update in commands.updates if after.get(update.ref) != before.get(update.ref)]
        if refused is not None and not moved:  # else git was done before it was killed: the push counts
            await asyncio.to_thread(archive_old, self._relay.store, after)
            for update in commands.updates:
                await self._recorded(refused, "push-refused", update.shown, _detail(update, identity))
            return (refused,) * len(commands.updates)
        with suppress(OSError):  # the guest may be gone; its push counts all the same
            stream.write_eof()
        await self._carried_out(commands, identity, before, after, moved, unpacked=gate.unpacked)
        return ()

    async def _carried_out(
        self,
        commands: PushCommands,
        identity: Identity,
        before: Mapping[str, Oid],
        after: dict[str, Oid],
        moved: list[str],
        *,
        unpacked: int | None,
    ) -> None:
        """Make durable, record and tell what git has made of a push."""
        store = self._relay.store
        back = await asyncio.to_thread(take_back, store, moved, before, after)
        if moved:
            await asyncio.to_thread(store.sync, *moved)
        rewritten = await asyncio.to_thread(archive_old, store, after)
        await asyncio.to_thread(self._usage.measure, after, arrived=unpacked)
        for update in commands.updates:
            old, new = before.get(update.ref), after.get(update.ref)
            if new != update.new:
                why = {"reason": "it names no commit"} if update.ref in back else {}
                await self._note("failed", "git", Tier.SILENT, update, identity, why)
            if new is None or new == old:
                continue
            archived = rewritten.get(update.ref)
            if archived is not None:
                rule = decide(self._policy, Operation.PUSH_REWRITE)
                await self._note("allowed", rule.rule, rule.tier, update, identity, {"archived": archived})
            await self._on_update(TipChange(identity, update.ref, old, new, archived))

    async def _note(
        self,
        outcome: str,
        rule: str,
        tier: Tier,
        update: RefUpdate,
        identity: Identity,
        more: Mapping[str, str],
    ) -> None:
        detail = {**_detail(update, identity), **more}
        await self._try_record(RelayEvent("push", outcome, tier, rule, update.shown, detail))

    async def pressure(self) -> Pressure:
        """How near the relay is to its budgets. Raises GitError, OSError."""
        return pressure(await self._thinning.measure(), self._limits)

    async def thin(self, *, let_go: LetGo, apart: AbstractAsyncContextManager[object]) -> Thinned | None:
        """Thin the relay out if that is due (`RelayThinning.thin`). Raises GitError, OSError."""
        return await self._thinning.thin(self._limits, let_go=let_go, apart=apart)


def _detail(update: RefUpdate, identity: Identity) -> dict[str, str]:
    return {"old": update.old or "", "new": update.new or "", "by": identity.value}


def _hash_bytes(commands: PushCommands) -> int:
    oids = (oid for update in commands.updates for oid in (update.old, update.new) if oid)
    return max((len(oid) // 2 for oid in oids), default=20)


def _failure(error: GitError) -> RelayEvent:
    return RelayEvent("push", "failed", Tier.SILENT, "git", "relay", {"reason": error.message})


async def _read_request(stream: ByteStream) -> ServiceRequest | None:
    reader = RequestReader()
    while data := await stream.read(CHUNK):
        if request := reader.feed(data):
            return request
    return None


async def _read_commands(stream: ByteStream, first: bytes) -> PushCommands | None:
    reader = CommandReader()
    data = first
    while True:
        if data and (commands := reader.feed(data)):
            return commands
        data = await stream.read(CHUNK)
        if not data:
            return None


async def _refuse_push(
    stream: ByteStream, commands: PushCommands, decisions: tuple[Decision, ...], *, most: int
) -> None:
    reasons = [
        decision.reason if isinstance(decision, Deny) else "another ref of the same push was refused"
        for decision in decisions
    ]
    await stream.write(refusal_report(commands, reasons))
    await finish_reading(stream, most=most)
