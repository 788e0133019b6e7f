"""A push into the relay. The order is fixed: read and parse its commands, decide, record, and only then let
`git receive-pack` see them. If the record cannot be written the push is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from coding_agents.gitsync.gates import BUDGET, PackGate
from coding_agents.gitsync.old_tips import archive_old, keep_old, take_back
from coding_agents.gitsync.pktline import CommandReader, PushCommands, refusal_report
from coding_agents.gitsync.relay_events import Recorder, RelayEvent, TipChange
from coding_agents.gitsync.relay_limits import LEAST_FILE, RelayLimits, Usage, used_up
from coding_agents.gitsync.relay_repo import (
    SALVAGE_HEADS,
    SALVAGE_REFS,
    Identity,
    Relay,
    receive_pack_command,
)
from coding_agents.gitsync.relay_usage import RelayUsage
from coding_agents.gitsync.repack import sweep_draft
from coding_agents.gitsync.splice import (
    CHUNK,
    ByteStream,
    GitProcess,
    finish_reading,
    forward_advertisement,
    running,
    splice,
)
from coding_agents.model.refs import Oid, RefUpdate
from coding_agents.policy.decide import Allow, Decision, Deny, PushRequest, decide, decide_push
from coding_agents.policy.matrix import Operation, Policy, Tier
from coding_agents.proc.limits import restrict
from coding_agents_guest.nestedref import LATEST, TO_SIGN

_MIB = 1 << 20
_NOT_RECORDED = Deny("audit-unavailable", Tier.ASK, "the audit log cannot be written")
# What is listed to who wants to push. Most of it are refs of the agent's own, whose number is bounded by `relay.refs`
# and whose names by the policy: however many they are, they may not shut out its rescue.
_ADVERTISED = {Identity.AGENT: 4 * _MIB, Identity.SALVAGE: 1 << 40}


class PushService:
    """Serves pushes into one relay, whose sizes `usage` measures. `on_update` runs after a ref moved."""

    def __init__(
        self,
        relay: Relay,
        *,
        policy: Policy,
        recorder: Recorder,
        on_update: Callable[[TipChange], Awaitable[None]],
        usage: RelayUsage,
        limits: RelayLimits,
    ) -> None:
        self._relay = relay
        self._policy = policy
        self._recorder = recorder
        self._on_update = on_update
        self._usage = usage
        self._limits = limits
        self._one_push = asyncio.Lock()
        self._swept = False
        self._began = time.time()

    def limit(self, limits: RelayLimits) -> None:
        """Hold to `limits` from the next push on."""
        self._limits = limits

    async def serve(self, stream: ByteStream, first: bytes, identity: Identity) -> None:
        """Serve the push of one conversation, whose first bytes are `first`. Raises PktlineError, GitError, OSError."""
        command = receive_pack_command(
            self._relay,
            identity,
            max_input=self._limits.push_bytes,
            rewrite=isinstance(decide(self._policy, Operation.PUSH_REWRITE), Allow),
            limits=self._limits.of_git(self._limits.disk_bytes),
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

    async def _decide(self, commands: PushCommands, identity: Identity, usage: Usage) -> tuple[Decision, ...]:
        """The decision for each update, after it is in the audit log."""
        salvage = identity is Identity.SALVAGE
        own = frozenset(SALVAGE_REFS if salvage else (self._relay.branch.ref,))
        prefix = SALVAGE_HEADS if salvage else ""
        latest = "" if salvage else LATEST
        to_sign = TO_SIGN if self._relay.to_sign and not salvage else ""
        request = PushRequest(commands.updates, own, salvage, prefix, latest, to_sign)
        decisions = decide_push(self._policy, request)
        wanted = [update.ref for update in commands.updates]
        if full := used_up(usage, self._limits, wanted=wanted, salvage=salvage):
            decisions = (Deny(BUDGET, Tier.ASK, full),) * len(decisions)
        refused = any(isinstance(decision, Deny) for decision in decisions)
        for update, decision in zip(commands.updates, decisions, strict=True):
            kind = "push-refused" if refused else "push"
            detail = _detail(update, identity)
            if not await self._recorder.decided(decision, kind, update.shown, detail) and not refused:
                return (_NOT_RECORDED,) * len(decisions)
        return decisions

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
        room = max(LEAST_FILE, self._limits.disk_bytes - usage.disk_bytes)
        restrict(process.pid, self._limits.of_git(room))
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
                await self._recorder.decided(refused, "push-refused", update.shown, _detail(update, identity))
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
        await self._recorder.attempt(RelayEvent("push", outcome, tier, rule, update.shown, detail))


def _detail(update: RefUpdate, identity: Identity) -> dict[str, str]:
    return {"old": update.old or "", "new": update.new or "", "by": identity.value}


def _hash_bytes(commands: PushCommands) -> int:
    oids = (oid for update in commands.updates for oid in (update.old, update.new) if oid)
    return max((len(oid) // 2 for oid in oids), default=20)


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
