"""Decides about a session's pushes to origin, and carries out what a person has approved.

The order is fixed: what is asked for is recorded, then kept for a person; what they say is recorded, then done. One
push is carried out at a time, and what it is was bound when it was shown: address, branch, both commits, findings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from coding_agents.errors import ApprovalError, CodingAgentsError
from coding_agents.gitsync.origin_address import Address, address_of
from coding_agents.gitsync.origin_look import BUDGET, look_at_push
from coding_agents.gitsync.origin_push import Pushed, push_out
from coding_agents.gitsync.origin_quarantine import Quarantine
from coding_agents.gitsync.origin_rules import AskedPush
from coding_agents.gitsync.origin_store import OriginStore
from coding_agents.gitsync.rules import load_policy
from coding_agents.model.approval import MOST_PENDING, Approval, Wanted, ask, why_void
from coding_agents.model.audit import RecordType
from coding_agents.model.notice import Notice
from coding_agents.model.origin import Origin, OriginRules
from coding_agents.model.refs import Oid
from coding_agents.policy.decide import Deny, decide
from coding_agents.policy.matrix import Operation, Tier
from coding_agents.proc.git_user import REMOTE_ENV
from coding_agents.store.approvals import ApprovalStore
from coding_agents.supervisor.context import SessionContext, facts_of
from coding_agents.supervisor.journal import Journal, now_ms
from coding_agents.supervisor.look_apart import Job, look_apart
from coding_agents.supervisor.merge_request import create_merge_request, push_options
from coding_agents.supervisor.origin_kept import read_origins, user_env
from coding_agents.supervisor.origin_records import OriginRecords
from coding_agents.supervisor.relay_budgets import origin_rules
from coding_agents.terminal.escape import escape

_AT_REST = ("pushed", "denied", "failed", "expired", "superseded")
_LONGEST = 500
_QUIET_MS = 60_000
_TOO_MANY = "origin-pending"


class OriginDesk:
    """One session's (`gitsync.origin_service.Desk`)."""

    def __init__(self, session: SessionContext, journal: Journal, tell: Callable[[Notice], None]) -> None:
        self._session = session
        self._journal = journal
        self._tell = tell
        self._policy = load_policy()
        self._records = OriginRecords(journal)
        self._approvals = ApprovalStore(session.directory)
        self._stores: dict[str, OriginStore] = {}
        self._deciding = asyncio.Lock()
        self._pushing = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._told_ms = 0
        self.rules: OriginRules = origin_rules(session)
        self.quarantine = Quarantine(session.directory, env=session.env.for_git())
        for approval in self._approvals.list():  # of a supervisor that was killed
            if approval.state == "approved":
                reason = "the host was interrupted while it pushed; fetch to see, and push again"
                self._approvals.save(approval.evolve(state="failed", reason=reason))

    def origin(self, place: str) -> Origin | None:
        """What the session calls `place`."""
        return next((one for one in read_origins(self._session.directory) if one.place == place), None)

    async def address(self, origin: Origin) -> Address:
        """The address to fetch `origin` from. Raises GitError when it has become another one."""
        return await self._address(origin, push=False)

    def store(self, origin: Origin) -> OriginStore:
        """The host's copy of it."""
        if origin.fetch not in self._stores:
            env = user_env(self._session)
            self._stores[origin.fetch] = OriginStore(
                self._session.env.data_dir, origin.fetch, self.rules.refs, env=env
            )
        return self._stores[origin.fetch]

    async def asked(
        self, asked: AskedPush, origin: Origin, refs: Mapping[str, Oid], default: str
    ) -> Approval | Deny:
        """Ask a person about a push that lies in the quarantine, or tell what was said about the same one.

        Raises GitError, StoreError.
        """
        look = await asyncio.to_thread(
            look_at_push,
            self.quarantine.store,
            asked,
            refs,
            default=default,
            author=self._session.record.people,
            find=lambda subject: look_apart([Job(self.quarantine.store, subject)], BUDGET).findings,
        )
        wanted = Wanted(
            session=self._session.record.id,
            url=origin.push,
            ref=asked.ref,
            old=str(asked.old or ""),
            new=str(asked.new),
            force=look.force,
            findings=look.findings,
            merge_request=asked.merge_request,
            target=asked.target,
        )
        async with self._deciding:
            known = self._approvals.find(wanted.id)
            if known is not None and known.at(now_ms()).state in ("pending", "approved", "denied"):
                return known.at(now_ms())
            waiting = await self._waiting()
            replaced = [
                one for one in waiting if (one.wanted.url, one.wanted.ref) == (wanted.url, wanted.ref)
            ]
            if len(waiting) - len(replaced) >= MOST_PENDING:
                reason = f"{MOST_PENDING} pushes wait for a person already; wait until they are decided"
                await self._records.refused(wanted, _TOO_MANY, reason)
                return Deny(_TOO_MANY, Tier.ASK, reason)
            approval = ask(wanted, look.shown, now_ms=now_ms())
            try:
                await self._records.require(
                    RecordType.ORIGIN_PUSH_ASKED, approval, tier=Tier.ASK, rule="origin-push"
                )
            except CodingAgentsError:
                return Deny("audit-unavailable", Tier.ASK, "the audit log cannot be written")
            await asyncio.to_thread(self.quarantine.hold, approval.id, asked.new)
            for one in replaced:
                await self._rest(one.evolve(state="superseded", reason="a later push took its place"))
            self._approvals.save(approval)
        if self._is_allowed_beforehand(approval):
            return await self._grant(
                approval, Operation.ORIGIN_PUSH_ALLOWED, by="--allow-origin-push", env={}
            )
        self._tell_of(approval, again=bool(replaced))
        return approval

    def _tell_of(self, approval: Approval, *, again: bool) -> None:
        """Tell the user; of pushes that take the place of others, once in a while: they are the agent's to make."""
        if not again or now_ms() - self._told_ms >= _QUIET_MS:
            self._told_ms = now_ms()
            say = f"a push to origin waits: coding-agents approvals show {approval.id}"
            self._tell(Notice("approval", say))

    async def decided(self, approval: Approval, timeout_s: float) -> Approval:
        """`approval` as it is when it has been decided about, or after `timeout_s`."""
        async with self._changed:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait_for(lambda: self._now(approval).state in _AT_REST)
            except TimeoutError:
                pass
        return self._now(approval)

    async def decide(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a person says: {"id", "binding", "grant", "reason", "env"} → {"state", "reason", "said"}.

        Raises ApprovalError when there is nothing such to decide, AuditError when it cannot be recorded.
        """
        approval = self._approvals.find(str(request.get("id")))
        if approval is None:
            raise ApprovalError(f"no push {str(request.get('id'))[:40]!r} waits in this session")
        if void := why_void(approval, now_ms=now_ms(), binding=str(request.get("binding"))):
            raise ApprovalError(f"push {approval.id} cannot be decided about: {void}")
        if request.get("grant") is True:
            env = {
                name: str(value)
                for name, value in dict(request.get("env") or {}).items()
                if name in REMOTE_ENV
            }
            done = await self._grant(approval, Operation.ORIGIN_PUSH_APPROVED, by="a person", env=env)
        else:
            done = await self._denied(approval, escape(str(request.get("reason") or ""))[:_LONGEST])
        return {"state": done.state, "reason": done.reason, "said": done.said}

    def _is_allowed_beforehand(self, approval: Approval) -> bool:
        """`--allow-origin-push` is for the session's branch, for what nothing was found in, and rewrites nothing."""
        mine = approval.wanted.ref == self._session.relay.branch.ref
        plain = not approval.wanted.force and not approval.wanted.merge_request
        return self._session.record.origin_push and mine and plain and not approval.shown.blocking

    async def _grant(
        self, approval: Approval, operation: Operation, *, by: str, env: Mapping[str, str]
    ) -> Approval:
        """Record that it is approved, then push it. Raises AuditError, ApprovalError."""
        async with self._deciding:
            current = self._now(approval)
            if current.state != "pending":
                raise ApprovalError(f"push {approval.id} is {current.state} already")
            decision = decide(self._policy, operation)
            if isinstance(decision, Deny):
                raise ApprovalError(f"push {approval.id} cannot be approved: {decision.reason}")
            approved = current.evolve(state="approved", decided_ms=now_ms(), decided_by=by)
            await self._records.require(
                RecordType.ORIGIN_PUSH_DECIDED, approved, tier=decision.tier, rule=decision.rule, by=by
            )
            await self._keep(approved)
        return await self._carry_out(approved, env)

    async def _carry_out(self, approval: Approval, env: Mapping[str, str]) -> Approval:
        async with self._pushing:
            try:
                pushed = await self._push(approval, {**user_env(self._session), **env})
            except CodingAgentsError as error:
                pushed = Pushed(error.message, ())
            except BaseException:
                await self._rest(
                    approval.evolve(state="failed", reason="the host was interrupted; push again")
                )
                raise
        done = approval.evolve(
            state="failed" if pushed.reason else "pushed",
            reason=escape(pushed.reason)[:_LONGEST],
            said="\n".join(escape(line) for line in pushed.said),
        )
        self._records.note(RecordType.ORIGIN_PUSH, done, "failed" if pushed.reason else "allowed")
        await self._rest(done)
        return done

    async def _push(self, approval: Approval, env: Mapping[str, str]) -> Pushed:
        """Raises GitError."""
        wanted = approval.wanted
        origin = self.origin("origin")
        if origin is None or origin.push != wanted.url:
            return Pushed("origin is another address by now; push again", ())
        if await asyncio.to_thread(self.quarantine.held, approval.id) != wanted.new:
            return Pushed("what was approved is not here any more; push again", ())
        address = await self._address(origin, push=True)
        options = push_options(wanted)
        pushed = await push_out(self.quarantine.git_dir, wanted, address, env=env, options=options)
        if untold := pushed.options_unknown:
            pushed = await push_out(self.quarantine.git_dir, wanted, address, env=env)
        self.store(origin).forget()
        if pushed.reason or not wanted.merge_request or (options and not untold):
            return pushed
        told = await create_merge_request(approval, self._session.record.name, env=env)
        return Pushed("", (*pushed.said, *told))

    async def _denied(self, approval: Approval, reason: str) -> Approval:
        async with self._deciding:
            current = self._now(approval)
            if current.state != "pending":
                raise ApprovalError(f"push {approval.id} is {current.state} already")
            denied = current.evolve(state="denied", decided_ms=now_ms(), decided_by="a person", reason=reason)
            self._records.note(RecordType.ORIGIN_PUSH_DECIDED, denied, "denied")
            await self._rest(denied)
            return denied

    async def _address(self, origin: Origin, *, push: bool) -> Address:
        repo = facts_of(self._session.record)
        return await asyncio.to_thread(address_of, origin, repo, push=push, env=user_env(self._session))

    def _now(self, approval: Approval) -> Approval:
        return (self._approvals.find(approval.id) or approval).at(now_ms())

    async def _waiting(self) -> list[Approval]:
        """What waits for a person; what has waited too long is put to rest."""
        waiting = []
        for kept in self._approvals.list():
            if kept.state == "pending" and (now := kept.at(now_ms())).state == "pending":
                waiting.append(now)
            elif kept.state == "pending":
                self._records.note(RecordType.ORIGIN_PUSH_DECIDED, now, "denied")
                await self._rest(now)
        return waiting

    async def _keep(self, approval: Approval) -> None:
        self._approvals.save(approval)
        async with self._changed:
            self._changed.notify_all()

    async def _rest(self, approval: Approval) -> None:
        """Keep it as it ended; what it brought is kept no longer."""
        await self._keep(approval)
        try:
            await asyncio.to_thread(self.quarantine.release, approval.id)
        except CodingAgentsError as error:
            self._journal.note(
                RecordType.ORIGIN_PUSH,
                subject=approval.id,
                outcome="failed",
                detail={"reason": error.message},
            )
