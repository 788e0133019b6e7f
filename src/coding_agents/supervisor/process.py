"""One supervisor: the process that stands between one session's container and the host.

It serves the channel (relay, events), opens the gate when a verb has measured the start, brings pushed work
into the repository, and when the container ends, however it ends, sees to it that the work is saved. It may
die at any time: the agent works on, and the next verb that needs it starts it again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from msgspec.structs import asdict, replace

from coding_agents.engine.api import ContainerState
from coding_agents.errors import (
    CodingAgentsError,
    EngineError,
    EngineStoppedError,
    SessionStateError,
    StoreError,
    SupervisorError,
    SupervisorGoneError,
)
from coding_agents.gitsync.relay import RelayService
from coding_agents.gitsync.relay_events import TipChange
from coding_agents.gitsync.relay_repo import Identity
from coding_agents.gitsync.rules import load_policy
from coding_agents.model.audit import Outcome, RecordType
from coding_agents.model.notice import WAITING, Notice
from coding_agents.supervisor.abandoned import phase_at_gate, stop_abandoned
from coding_agents.supervisor.activity import ActivityWatch
from coding_agents.supervisor.auth_files import record_auth_files
from coding_agents.supervisor.autosaving import Autosaving
from coding_agents.supervisor.ballast import drop_ballast, hold_ballast
from coding_agents.supervisor.bounds_watch import watch_of
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.deadline import deadline_of
from coding_agents.supervisor.egress import EgressLink
from coding_agents.supervisor.ending import Ending
from coding_agents.supervisor.guest_config import parse_config
from coding_agents.supervisor.guest_link import GuestLink, Service
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.notify import Notifier
from coding_agents.supervisor.origin_access import OriginAccess
from coding_agents.supervisor.protocol import Op, told
from coding_agents.supervisor.relay_budgets import relay_limits
from coding_agents.supervisor.services import Services
from coding_agents.supervisor.session_link import SessionLink
from coding_agents.supervisor.settle import bring_home_or_say_why, saved_of
from coding_agents_guest.lfspointer import LFS
from coding_agents_guest.mux import Stream
from coding_agents_guest.nestedref import TO_SIGN

# How often a bridge that dies under a running container is started again before we give up serving it.
_REOPEN_TRIES = 5
_REOPEN_PAUSE_S = 0.5
# A supervisor without a running container and without a question to answer leaves after this time.
_IDLE_S = 2.0
# So long a start waits for who reads the volume; the verb waits for our answer for twice as long.
_BUSY_S = 30.0


class Supervisor:
    """The state of one supervisor process; `run` is its life."""

    def __init__(self, session: SessionContext, journal: Journal) -> None:
        self._session = session
        self._journal = journal
        self._link = SessionLink(session, journal, self._offered)
        self._measurable: GuestLink | None = None  # the channel to the start whose gate may be opened
        self._watch: asyncio.Task[None] | None = None
        self._homing = asyncio.Lock()
        # Held by who reads the volume and writes down what was there, and by who begins a start.
        self._volume = asyncio.Lock()
        self._arrivals: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._trouble: CodingAgentsError | None = None
        self._quit = asyncio.Event()
        self._resumed = asyncio.Event()
        self._questions = 0
        self._notifier = Notifier(session, journal)
        self._origin = OriginAccess(session, journal, self._notifier.tell)
        self._relay = RelayService(
            session.relay,
            policy=load_policy(),
            record=journal.relay,
            on_update=self._on_update,
            limits=relay_limits(session),
            others=self._origin,
        )
        self._egress = EgressLink(session, journal, self._warn) if session.record.network == "squid" else None
        self._activity = ActivityWatch(session, lambda: self._notifier.tell(Notice("waiting", WAITING)))
        self._services = Services(session, journal, end_for=self._end_for, activity=self._activity)
        self._autosaving = Autosaving(session, journal, self._relay, self._channel, self._homing)
        self._ending = Ending(session, journal, self._relay, self._homing)

    async def run(self) -> None:
        """Serve until the session has ended and nobody asks any more."""
        self._journal.note(RecordType.SUPERVISOR_STARTED, detail={"phase": self._session.record.phase})
        with suppress(CodingAgentsError):  # whoever needs the engine meets the same error again
            # While the launch is still busy, so that ATTACH need not wait for the engine's facts.
            await asyncio.to_thread(getattr, self._session, "engine")
        await self._resume()
        self._resumed.set()
        while not self._quit.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._quit.wait(), _IDLE_S)
            if self._watch is None and not self._questions:
                self._quit.set()  # from here on every question is sent to our successor
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._link.close()
        await self._services.close()
        await self._notifier.finish()

    def leave(self) -> None:
        """End soon; the session goes on without us."""
        self._quit.set()

    @property
    def removed(self) -> bool:
        """Whether `--rm` has removed the session, so that its directory is to go, too."""
        return self._ending.removed

    async def handle(self, op: Op, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request of the control socket. Raises the error that the answer carries."""
        if self._quit.is_set():
            raise SupervisorGoneError("the supervisor is leaving")
        if op is Op.NOTICES:  # for as long as it takes: nobody stays for it
            after = request.get("after")
            return await self._notifier.after(after if isinstance(after, int) else None)
        if op is Op.QUIT:
            self.leave()
            return {}
        self._questions += 1
        try:
            if op is Op.DECIDE:  # it takes no channel
                return await self._origin.decide(request)
            if op not in (Op.STATUS, Op.RECORD):
                await self._resumed.wait()  # a stop must not overtake the channel that is being opened
            return await self._answer(op, request)
        finally:
            self._questions -= 1

    async def _answer(self, op: Op, request: dict[str, Any]) -> dict[str, Any]:
        match op:
            case Op.STATUS:
                record = self._session.reload()
                return {"phase": record.phase, "gate_open": bool(record.started_at)}
            case Op.ATTACH:
                return {"facts": await self._attach()}
            case Op.OPEN_GATE:
                return await self._open_gate(request)
            case Op.RECORD:
                return self._record(request)
            case Op.AUTOSAVE:
                return await self._autosave(branch=bool(request.get("branch")))
            case Op.STOP:
                return await self._stop(int(request.get("stop_timeout_s", 120)))
            case Op.WAIT:
                return await self._wait()
            case Op.SALVAGE:
                return await self._salvage()
            case Op.NOTICES | Op.DECIDE | Op.QUIT:
                raise AssertionError("answered by handle")

    def _record(self, request: dict[str, Any]) -> dict[str, Any]:
        """Write the record of a verb. Raises AuditError when one that is required cannot be written."""
        kind, subject = RecordType(str(request.get("type"))), str(request.get("subject", ""))
        detail = {str(key): str(value) for key, value in dict(request.get("detail") or {}).items()}
        outcome: Outcome = "failed" if request.get("outcome") == "failed" else "allowed"
        if request.get("required") is True:
            self._journal.require(kind, subject=subject, detail=detail)
        else:
            self._journal.note(kind, subject=subject, outcome=outcome, detail=detail)
        return {}

    async def _resume(self) -> None:
        """After our own restart: go on serving a running container, or settle one that ended meanwhile.

        What fails is recorded, and told to whoever asks: a supervisor that died of it would do so again each time.
        """
        try:
            await self._go_on()
        except Exception as error:  # noqa: BLE001 - see above
            self._journal.broken(told(error))

    async def _go_on(self) -> None:
        record = self._session.record
        if record.phase not in ("running", "stopping"):
            return
        # Whoever asks for what needs the engine is told the same; nothing is settled without having looked.
        state = await self._inspect()
        if state is not None and state.running and state.started_at == record.started_at:
            # A guest that lets no bridge in (it may hold every process id) must still be stopped and saved.
            await self._link.open()
            self._watch = asyncio.create_task(self._watch_container())
        else:
            async with self._volume:
                await self._settle(state)

    async def _attach(self) -> dict[str, object]:
        """Open the channel to a start, when nobody reads the volume that it may change. Raises SessionStateError."""
        try:
            async with asyncio.timeout(_BUSY_S):
                await self._volume.acquire()
        except TimeoutError:
            raise SessionStateError(
                f"the volume of session {self._session.record.name} is still being read by a salvage",
                hint="Wait until that has finished, then try again.",
            ) from None
        try:
            record = self._session.reload()
            if self._watch is not None or self._link.current is not None:
                raise SessionStateError(f"session {record.name} is already being served")
            self._ended.clear()
            self._trouble = None
            if self._egress is not None:
                self._egress.begin()  # beside the channel: the gate waits for both
            facts = await self._link.open()
            self._measurable = self._link.current
            self._journal.note(RecordType.CHANNEL_OPENED)
            self._watch = asyncio.create_task(self._watch_container())
            return facts
        finally:
            if self._egress is not None and self._watch is None:
                self._egress.leave()
            self._volume.release()

    def _offered(self) -> tuple[dict[str, Service], tuple[str, ...]]:
        """What a channel that is opened now serves, and its bridge's options."""
        services, options = self._services.offered()
        return {"relay": self._serve_relay, **services}, options + (("--egress",) if self._egress else ())

    async def _serve_relay(self, stream: Stream) -> None:
        await self._relay.serve(stream, identity=Identity.AGENT)

    async def _open_gate(self, request: dict[str, Any]) -> dict[str, Any]:
        """Let exactly the start begin that the caller has measured.

        The caller looked at the container after `ATTACH`. A channel ends with the start that it was opened to,
        so while that very channel is open, this is the start that the caller saw.
        """
        link = self._link.require()
        if link is not self._measurable:
            raise SessionStateError("the container was started again meanwhile; its gate stays closed")
        config = parse_config(request.get("config"))
        started_at = str(request.get("started_at", ""))
        enforced = {str(key): str(value) for key, value in dict(request.get("enforced") or {}).items()}
        if self._egress is not None:
            await self._egress.until_in_force()
        self._journal.require(RecordType.ENFORCEMENT_MEASURED, detail=enforced)
        network = {str(key): str(value) for key, value in dict(request.get("network") or {}).items()}
        self._journal.require(
            RecordType.NETWORK_APPLIED, subject=self._session.record.network, detail=network
        )
        await record_auth_files(self._session, self._journal)
        self._journal.require(RecordType.GATE_OPENED, subject=started_at)
        self._session.update(
            phase="running",
            started_at=started_at,
            enforced=enforced,
            exit_status=None,
            deadline=deadline_of(self._session.record.limits),
            activity="working",
            saved=replace(self._session.record.saved, verified=False),  # from here on the volume may differ
        )
        await link.open_gate(config)
        return {}

    async def _autosave(self, *, branch: bool) -> dict[str, Any]:
        saved = await self._autosaving.save(branch=branch)
        if branch:
            await self._home()  # the relay may not have told of the push yet
        return saved

    async def _stop(self, timeout_s: int) -> dict[str, Any]:
        state = await self._inspect()
        if state is not None and state.running:
            with suppress(StoreError):  # a full disk must not keep the session running
                self._session.update(phase="stopping")
            await asyncio.to_thread(self._session.engine.stop, state.id, timeout_s=timeout_s)
        if self._watch is None:
            await self._settle_unwatched("starting", "running", "stopping")
            return self._result()
        return await self._wait()

    def _end_for(self, reason: str, at_once: bool = False) -> None:
        """A budget is used up: the work is saved and the session stopped, as `stop` does it, or at once by a kill."""
        self._notifier.tell(Notice("budget", reason))
        task = asyncio.create_task(self._ending.stop_for(reason, at_once=at_once))
        self._arrivals.add(task)
        task.add_done_callback(self._arrivals.discard)

    async def _wait(self) -> dict[str, Any]:
        if self._watch is None:
            await self._settle_unwatched("running", "stopping")
        if self._watch is not None:
            await self._ended.wait()
            if self._trouble is not None:
                raise self._trouble  # what the record says is not how the session ended
        return self._result()

    async def _settle_unwatched(self, *phases: str) -> None:
        """Settle what has ended in one of `phases` without our seeing it, after whoever reads the volume by now."""
        async with self._volume:
            if self._watch is not None or self._session.reload().phase not in phases:
                return
            state = await self._inspect()  # what kept us from watching may be over by now
            if state is not None and state.running:
                raise SupervisorError(
                    "the session runs, but its channel cannot be opened",
                    hint=f"Run `coding-agents stop {self._session.record.name}`: its work is saved from the volume.",
                )
            await self._settle(state)

    async def _salvage(self) -> dict[str, Any]:
        await self._require_ended()
        if self._watch is not None:
            await self._ended.wait()  # its end is being settled right now
        async with self._volume:
            await self._require_ended()  # it may have been started while we waited
            await self._ending.verify()
            return self._result()

    async def _require_ended(self) -> None:
        state = await self._inspect()
        if state is not None and state.running:
            raise SessionStateError("the session is running", hint="Stop it first.")

    def _result(self) -> dict[str, Any]:
        record = self._session.record
        return {
            "phase": record.phase,
            "exit_status": record.exit_status,
            "saved": asdict(record.saved),
            "spent": asdict(record.spent),
            "removed": self._ending.removed,
        }

    async def _on_update(self, change: TipChange) -> None:
        """A push of the agent arrived in the relay: bring it home at once, after the guest has its answer.

        Large files go ahead of the commit that names them, and home with it; so does what is to be signed.
        """
        if change.identity is Identity.AGENT and not change.ref.startswith((LFS, TO_SIGN)):
            task = asyncio.create_task(self._home())
            self._arrivals.add(task)
            task.add_done_callback(self._arrivals.discard)

    async def _home(self) -> None:
        async with self._homing:
            came = await bring_home_or_say_why(self._session)
            self._journal.integrated(came.result, came.failure)
            self._session.update(saved=saved_of(came.result, trouble=came.failure, note=came.refused))

    async def _watch_container(self) -> None:
        """Follow the channel until the container has ended, then settle.

        When the engine does not say whether it has, the session stays as it is for our successor.
        """
        # Before all that may end it: what is held later would not be given back.
        await asyncio.to_thread(hold_ballast, self._session)
        saving = asyncio.create_task(self._autosaving.save_regularly())
        bounds = asyncio.create_task(
            watch_of(self._session, on_end=self._end_for, on_warning=self._warn).watch()
        )
        gate = asyncio.create_task(stop_abandoned(self._session))
        end = asyncio.create_task(self._link.cut_at_end())
        if self._egress is not None:
            self._egress.begin()
        try:
            await self._follow(saving)
        except Exception as error:  # noqa: BLE001 - whoever waits for the end must hear of it
            self._journal.broken(told(error))
            await self._link.close()
            self._watch = None
            self._trouble = told(error)
            self._ended.set()
        finally:
            for task in (saving, bounds, gate, end):
                task.cancel()
            if self._egress is not None:
                self._egress.leave()

    def _warn(self, text: str) -> None:
        self._notifier.tell(Notice("budget", text))

    async def _follow(self, saving: asyncio.Task[None]) -> None:
        tries = 0
        while self._link.current is not None:
            await self._link.until_closed()
            state = await self._inspect_patiently()
            if state is None or not state.running:
                break
            record = self._session.record
            if record.started_at and state.started_at != record.started_at:
                await self._restarted_by_others()
                return
            tries += 1
            if tries > _REOPEN_TRIES:
                raise SupervisorError("the channel to the running container does not stay open")
            await asyncio.sleep(_REOPEN_PAUSE_S)
            with suppress(CodingAgentsError):
                await self._link.open()
        saving.cancel()
        if self._egress is not None:
            await self._egress.finish()
        async with self._volume:
            await self._settle(await self._inspect_patiently())

    async def _restarted_by_others(self) -> None:
        """Somebody restarted the container behind our back: its guest waits at the gate until `start`."""
        self._journal.note(RecordType.GATE_CLOSED, subject="restarted by somebody else")
        self._session.update(started_at="", phase="starting")
        await self._home()
        await self._link.close()
        self._watch = None
        self._ended.set()

    async def _settle(self, state: ContainerState | None) -> None:
        link = self._link.let_go()
        try:
            await asyncio.gather(*self._arrivals, return_exceptions=True)
            self._activity.stop()
            await asyncio.to_thread(drop_ballast, self._session)
            if state is not None and (phase := phase_at_gate(self._session.record)):
                await self._ending.not_begun(phase)
                return
            await self._ending.settle(state, link)
            self._notifier.tell(self._ending.notice())
        finally:
            if link is not None:
                await link.close()
            self._ended.set()
            self._watch = None

    async def _inspect_patiently(self) -> ContainerState | None:
        """The container's state, also while the engine restarts. Raises EngineError when it stays silent."""
        for pause_s in (0.5, 2.0, 5.0, 10.0, 20.0):
            with suppress(EngineError, EngineStoppedError):
                return await self._inspect()
            await asyncio.sleep(pause_s)
        return await self._inspect()

    async def _inspect(self) -> ContainerState | None:
        self._session.reload()  # we are started before there is a container
        return await asyncio.to_thread(self._session.container_state)

    async def _channel(self) -> GuestLink:
        """The channel, also where `_follow` is just about to open the next one."""
        return await self._link.until_open() if self._watch is not None else self._link.require()
