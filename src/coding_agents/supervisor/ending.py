"""The end of a session: save what is not saved, say where it is, and for `--rm` remove the rest."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from msgspec.structs import replace

from coding_agents.engine.api import ContainerState
from coding_agents.errors import CodingAgentsError, SessionStateError, StoreError
from coding_agents.gitsync.relay import RelayService
from coding_agents.model.audit import RecordType
from coding_agents.model.notice import Notice, ended
from coding_agents.model.session import Phase, Saved
from coding_agents.supervisor.adoption import State, adopt_found, adopt_saves, make_room, set_aside
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.disk import holds_work, renew_volumes
from coding_agents.supervisor.guest_config import salvage_config
from coding_agents.supervisor.guest_link import GuestLink
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.protocol import told
from coding_agents.supervisor.relay_budgets import relay_limits
from coding_agents.supervisor.removal import remove_engine_objects
from coding_agents.supervisor.salvage import salvage
from coding_agents.supervisor.settle import (
    Homecoming,
    bring_home_beside,
    bring_home_or_say_why,
    bring_nested_home,
    keep_archived,
    keep_other_branches,
    salvage_is_due,
    saved_of,
)
from coding_agents_guest import events

_STOP_S = 120  # as `stop` without another setting
_ORIGIN = {"salvage": "volume", "autosave": "automatic saves"}


class Ending:
    """Settles one session. `removed` tells that `--rm` has removed everything."""

    def __init__(
        self, session: SessionContext, journal: Journal, relay: RelayService, homing: asyncio.Lock
    ) -> None:
        self._session = session
        self._journal = journal
        self._relay = relay
        self._homing = homing
        self.removed = False

    async def settle(self, state: ContainerState | None, link: GuestLink | None) -> None:
        """The container has ended (`state` None: it is gone): see to its work and write down how it ended.

        What fails, a mistake of ours among it, is told in the record and not raised: the next supervisor would meet it
        again, and the one after that. Only a record that cannot be written raises.
        """
        record = self._session.reload()
        if record.started_at:
            self._journal.note(RecordType.GATE_CLOSED, subject="the container has ended")
        report = link.saved if link is not None else None
        status = _exit_status(state, link)
        try:
            if record.rm or await self._salvage_is_due(report):
                saved = await self._verified()
            else:
                saved = await self._unverified(report.left_out if report else ())
        except Exception as error:  # noqa: BLE001 - see above
            saved = self._not_settled(told(error))
        self._journal.note(
            RecordType.SESSION_ENDED,
            subject=record.name,
            outcome="allowed" if status == 0 else "failed",
            detail={
                "status": -1 if status is None else status,
                "where": saved.where,
                "oom": int(_oom(state)),
            },
        )
        phase = "lost" if state is None else "stopped"
        try:
            self._session.update(phase=phase, started_at="", exit_status=status, saved=saved)
        except StoreError as error:  # of what no record can hold only this is left
            saved = Saved(where="volume", note=error.message)
            self._session.update(phase=phase, started_at="", exit_status=status, saved=saved)
        await self._release(saved)

    async def not_begun(self, phase: Phase) -> None:
        """The container ended at its closed gate: what is saved of the session is what was saved before."""
        self._journal.note(RecordType.GATE_CLOSED, subject="the start was not finished", outcome="failed")
        self._session.update(phase=phase)
        if self._session.record.holder_id:
            with suppress(CodingAgentsError):  # the next start stops it first
                await asyncio.to_thread(
                    self._session.engine.stop, self._session.record.holder_id, timeout_s=5
                )

    async def stop_for(self, reason: str, *, at_once: bool = False) -> None:
        """Save and stop the session because a budget of it is used up, or kill it, and salvage saves.

        Never raises: it can be stopped by hand.
        """
        self._journal.note(RecordType.BUDGET_USED, subject=reason)
        try:
            state = await asyncio.to_thread(self._session.container_state)
            if state is not None and state.running:
                engine, timeout_s = self._session.engine, 0 if at_once else _STOP_S
                await asyncio.to_thread(engine.stop, state.id, timeout_s=timeout_s)
        except CodingAgentsError as error:
            self._journal.note(RecordType.BUDGET_USED, outcome="failed", detail={"reason": error.message})

    def notice(self) -> Notice:
        """How the session ended, for its user."""
        record = self._session.record
        status = None if record.phase == "lost" else record.exit_status
        return ended(record.name, status=status, where=record.saved.where, branch=record.branch)

    def _not_settled(self, error: CodingAgentsError) -> Saved:
        """What is known of the work when the end could not be settled: it is in the volume."""
        record = self._session.record
        print(error.message, error.details, sep="\n", file=sys.stderr)  # our log
        note = f"the end was not settled: {error.message}; `coding-agents recover {record.name}` tries again"
        saved = replace(record.saved, where="volume", verified=False, note=note)
        self._note_saved(saved)
        return saved

    async def _salvage_is_due(self, report: events.Saved | None) -> bool:
        record, relay = self._session.record, self._session.relay
        try:
            tip = await asyncio.to_thread(relay.store.resolve, relay.branch.ref)
        except CodingAgentsError:
            return record.push  # the relay is damaged: the volume is what is left
        return salvage_is_due(report, tip, record.base, push=record.push)

    async def verify(self) -> Saved:
        """Compare the volume with the relay by a salvage, bring home what it finds, and record the result.

        Raises the salvage's error, and SessionStateError when the session was started meanwhile, so that its volume
        is another one by now; the record then says what it said before.
        """
        before = self._session.reload()
        saved = await self._salvaged()
        now = self._session.reload()
        if (now.phase, now.started_at) != (before.phase, before.started_at):
            raise SessionStateError(
                f"session {now.name} was started while its work was salvaged", hint="Stop it, then try again."
            )
        self._session.update(saved=saved)
        return saved

    async def _verified(self) -> Saved:
        try:
            return await self._salvaged()
        except Exception as any_error:  # noqa: BLE001 - whatever the volume causes, what the relay has goes home
            error = told(any_error)
            reason = error.details.strip().rpartition("\n")[2][:200]
            said = f"{error.message} ({reason})" if reason else error.message
            note = f"the volume could not be read: {said}; `coding-agents recover` tries again"
            self._journal.note(RecordType.SALVAGED, outcome="failed", detail={"reason": error.message})
            saved = await self._unverified(())
            return replace(saved, where="volume", note=note)

    async def _salvaged(self) -> Saved:
        """Salvage and bring home. Raises GuestError and EngineError while the volume holds what we do not have."""
        await asyncio.to_thread(renew_volumes, self._session)
        if not await asyncio.to_thread(holds_work, self._session):
            return await self._without_volume()
        config = await asyncio.to_thread(salvage_config, self._session)
        await asyncio.to_thread(make_room, self._session)
        # As the settings are now: a person may have raised a budget to get at what exceeded it.
        self._relay.limit(await asyncio.to_thread(relay_limits, self._session))
        try:
            found = await salvage(self._session, self._relay, config, self._journal.guest)
        except CodingAgentsError:
            if await asyncio.to_thread(holds_work, self._session):
                raise
            return await self._without_volume()  # it was lost meanwhile
        self._journal.note(
            RecordType.SALVAGED,
            detail={"head": found.head, "worktree": found.worktree, "notes": "; ".join(found.notes)},
        )
        async with self._homing:
            beside = await asyncio.to_thread(adopt_found, self._session, found)
            saved = await self._all_home(beside, kept=found.kept)
        saved = replace(saved, left_out=found.left_out, verified=not found.kept)
        self._note_saved(saved)
        return saved

    async def _without_volume(self) -> Saved:
        """Bring home all that the relay has, automatic saves too, now that the volume is gone.

        The result is not verified: what the volume held beyond that nobody knows.
        """
        async with self._homing:
            beside = await asyncio.to_thread(adopt_saves, self._session)
            saved = await self._all_home(beside, archive=True)
        lost = f"the session's volume is gone: this is what was saved before{'; ' * bool(saved.note)}{saved.note}"
        saved = replace(saved, note=lost)
        self._journal.note(RecordType.SALVAGED, outcome="failed", detail={"reason": lost})
        self._note_saved(saved)
        return saved

    async def _all_home(self, beside: tuple[State, ...], *, kept: str = "", archive: bool = False) -> Saved:
        """Bring home everything in the relay; `beside` is what its branch does not contain, to be named first.

        `kept` says what is in the volume alone, "" for nothing; old tips of the `archive` come, too, when it is gone.
        """
        came = await self._bring_home()
        result, notes = came.result, [*filter(None, (kept, came.refused))]
        nested: tuple[str, ...] = ()
        if not came.trouble:
            for state in beside:
                aside = await asyncio.to_thread(bring_home_beside, self._session, state.oid, state.origin)
                if state.earlier:
                    notes.append(f"what an earlier salvage found, which was cut short, is {aside.ref}")
                    continue
                result = aside
                where = _ORIGIN[state.origin]
                notes.append(f"history was rewritten: the last state of the {where} is {aside.ref}")
            others = await asyncio.to_thread(keep_other_branches, self._session)
            notes += [f"other branches: {', '.join(others)}"] if others else []
            nested = await asyncio.to_thread(bring_nested_home, self._session)
            if archive and (old := await asyncio.to_thread(keep_archived, self._session)):
                notes.append(f"what the agent had rewritten: {old}")
            await asyncio.to_thread(set_aside, self._session)
        notes += [came.result.reason] if result is came.result and came.result.reason else []
        return saved_of(result, nested=nested, trouble=came.failure, note="; ".join(notes))

    async def _unverified(self, left_out: tuple[str, ...]) -> Saved:
        """Bring home what the relay has; the volume was not looked at."""
        async with self._homing:
            came = await self._bring_home()
            trouble = came.failure
            nested: tuple[str, ...] = ()
            if not came.trouble:
                try:
                    nested = await asyncio.to_thread(bring_nested_home, self._session)
                except CodingAgentsError as error:  # they are in the relay, as the rest is then
                    trouble = f"nested repositories were not brought home: {error.message}"
        saved = saved_of(came.result, left_out=left_out, nested=nested, trouble=trouble, note=came.refused)
        if not self._session.record.push:
            note = "left in the session's volume by --no-push; `coding-agents recover` brings it back"
            saved = replace(saved, where="volume", note=note)
        self._note_saved(saved)
        return saved

    async def _bring_home(self) -> Homecoming:
        """`bring_home_or_say_why`, recorded when that was not done already as the last push arrived."""
        known = self._session.record.branch_tip
        came = await bring_home_or_say_why(self._session)
        if came.failure or str(came.result.tip or "") not in ("", known):
            self._journal.integrated(came.result, came.failure)
        return came

    def _note_saved(self, saved: Saved) -> None:
        self._journal.note(
            RecordType.SAVED,
            subject=saved.integrated,
            outcome="failed" if saved.where == "volume" else "allowed",
            detail={
                "tip": saved.relay_tip,
                "where": saved.where,
                "verified": int(saved.verified),
                "note": saved.note,
            },
        )

    async def _release(self, saved: Saved) -> None:
        """Stop the holder; with `--rm`, and only when the volume's work is home, remove everything."""
        record, engine = self._session.record, self._session.engine
        try:
            if record.rm and saved.verified and saved.where in ("branch", "incoming", "none"):
                await asyncio.to_thread(remove_engine_objects, engine, record.nonce)
                self._journal.note(RecordType.SESSION_REMOVED, subject=record.name)
                self.removed = True
            elif record.holder_id:
                await asyncio.to_thread(engine.stop, record.holder_id, timeout_s=5)
        except CodingAgentsError as error:
            self._session.update(saved=replace(saved, note=f"{saved.note} {error.message}".strip()))


def _exit_status(state: ContainerState | None, link: GuestLink | None) -> int | None:
    """The agent's own status as the guest reports it, else that of the container."""
    if link is not None and link.exit_status is not None:
        return link.exit_status
    return state.exit_code if state is not None and not state.running else None


def _oom(state: ContainerState | None) -> bool:
    return state is not None and state.oom_killed
