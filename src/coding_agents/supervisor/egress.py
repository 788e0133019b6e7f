"""The host's end of a session's proxy: tells it the rules as they are now, and records what it tells.

The proxy goes on without us with the rules that it has, and keeps what it has to tell until we have recorded it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from coding_agents.errors import AuditError, CodingAgentsError, EngineError
from coding_agents.model.audit import AuditEvent, Outcome, RecordType
from coding_agents.model.limits import MIB
from coding_agents.network.allowlist import FILE, Egress, effective, read_rules
from coding_agents.network.host_proxy import find_host_proxy
from coding_agents.proc.runner import kill_group, start
from coding_agents.sandbox.guest import guest_argv
from coding_agents.sandbox.spec import BRIDGE_USER
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.egress_kept import EGRESS_FILE, read_egress
from coding_agents.supervisor.journal import Journal
from coding_agents_guest.egress.orders import HostProxy, Orders, orders_json
from coding_agents_guest.egress.rules import REASONS, Rules
from coding_agents_guest.guard import Endpoint
from coding_agents_guest.records import replace

_LOOK_S = 1.0
_AGAIN_S = 0.5
_IN_FORCE_S = 30.0
_LAST_S, _QUIET_S = 2.0, 0.3
_LARGE_REQUEST, _LARGE_SESSION = 10 * MIB, 100 * MIB  # bytes that an agent seldom has a reason to send
_MOST = 2**53
_BREACHES = frozenset({"budget", "busy", "unrecorded"})  # of which the user is told, each once


class _Told(msgspec.Struct, frozen=True):
    """A line of the proxy, of which each has one of these."""

    boot: str = ""
    version: int = 0
    number: int = 0
    event: dict[str, int | str] | None = None


class _Bytes(msgspec.Struct, frozen=True):
    up: int = 0
    down: int = 0


class EgressLink:
    """Of one session in mode `squid`; `alert` is told, in words of ours, of much that was sent."""

    def __init__(self, session: SessionContext, journal: Journal, alert: Callable[[str], None]) -> None:
        self._session = session
        self._journal = journal
        self._alert = alert
        self._told_of: frozenset[str] = frozenset()
        self._in_force = asyncio.Event()
        self._stamp: object = None
        self._rules: Rules | None = None
        self._version = 0
        self._heard = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._troubles: dict[str, str] = {}  # what fails now: of the link, the rules or the record
        self._boot = ""  # of the proxy that we heard last
        self._recorded = 0  # its last event that is recorded; -1: not known
        self._used, self._used_before = _Bytes(), _Bytes()  # in all, and by proxies before this one

    def begin(self) -> None:
        """Serve from now on, until `finish`; once more is not too often."""
        if self._serving is not None and not (self._serving.done() or self._serving.cancelling()):
            return
        self._in_force.clear()
        self._boot, self._used, self._used_before = "", _Bytes(), _Bytes()
        self._serving = asyncio.create_task(self._serve())

    async def finish(self) -> None:
        """The session's container has ended: record what its proxy still has to tell, and leave it alone."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                while await self._hears_more():
                    pass
        self.leave()

    async def _hears_more(self) -> bool:
        self._heard.clear()
        with suppress(TimeoutError):
            return await asyncio.wait_for(self._heard.wait(), _QUIET_S)
        return False

    def leave(self) -> None:
        if self._serving is not None:
            self._serving.cancel()

    async def _serve(self) -> None:
        """Until cancelled: link after link, and the proxy's container started again when it has ended."""
        while True:
            try:
                await self._one_link()
                await self._require_proxy()
            except (CodingAgentsError, OSError, ValueError) as error:
                self._note_trouble("link", error)
            await asyncio.sleep(_AGAIN_S)

    def _note_trouble(self, subject: str, error: Exception) -> None:
        """Record what fails once, however often it is tried, until the same has gone well again."""
        reason = error.message if isinstance(error, CodingAgentsError) else str(error)
        if reason != self._troubles.get(subject):
            self._troubles[subject] = reason
            self._journal.note(
                RecordType.EGRESS_CHANGED, subject=subject, outcome="failed", detail={"reason": reason}
            )

    async def until_in_force(self) -> None:
        """Until the proxy keeps the session's rules. Raises EngineError when it does not."""
        try:
            async with asyncio.timeout(_IN_FORCE_S):
                await self._in_force.wait()
        except TimeoutError:
            raise EngineError(
                "the session's proxy does not take its rules",
                details="; ".join(self._troubles.values()),
                hint=f"See what it says: {self._session.record.engine} logs {self._session.record.name}-holder",
            ) from None

    async def _require_proxy(self) -> None:
        """Start the proxy's container again when it has ended; its guard is the first thing that it puts up."""
        holder, engine = self._session.record.holder_id, self._session.engine
        state = await asyncio.to_thread(engine.inspect, holder)
        if state is not None and not state.running:
            self._journal.note(RecordType.EGRESS_CHANGED, subject="proxy started again", outcome="failed")
            await asyncio.to_thread(engine.start, holder)

    async def _one_link(self) -> None:
        record = self._session.record
        command = self._session.engine.exec_command(
            record.holder_id,
            guest_argv(record.guest_digest, "egress-link"),
            user=BRIDGE_USER,
            interactive=True,
        )
        process = await start(command, pipe_stderr=False)
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the link needs both pipes")
        looking: asyncio.Task[None] | None = None
        try:
            while line := await process.stdout.readline():
                await self._take(msgspec.json.decode(line, type=_Told), process.stdin)
                await process.stdin.drain()
                if looking is None:  # it has said which proxy it is, so we know what is left of its budgets
                    looking = asyncio.create_task(self._keep_told(process.stdin))
        finally:
            if looking is not None:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)
            with suppress(ProcessLookupError):
                kill_group(process.pid)
            await process.wait()

    async def _keep_told(self, proxy: asyncio.StreamWriter) -> None:
        """Tell a new link the rules at once, and from then on each change of them."""
        self._stamp = None
        while True:
            stamp = self._looked()
            if stamp != self._stamp:
                await self._tell(proxy)
                self._stamp = stamp
            await asyncio.sleep(_LOOK_S)

    async def _tell(self, proxy: asyncio.StreamWriter) -> None:
        try:
            egress, rules = await asyncio.to_thread(self._read)
            host_proxy = self._host_proxy(egress)
        except (CodingAgentsError, ValueError) as error:  # what was in force stays so
            self._note_trouble("rules", error)
            return
        self._record_change(rules)
        self._rules = rules
        self._troubles.pop("rules", None)
        self._version += 1
        limits = replace(
            egress.limits,
            up=_left(egress.upload, self._used_before.up),
            down=_left(egress.download, self._used_before.down),
        )
        orders = Orders(rules, limits, egress.allow_ech, host_proxy, tuple(egress.names.items()))
        order = {"version": self._version, **orders_json(orders)}
        proxy.write(json.dumps(order).encode() + b"\n")
        await proxy.drain()

    def _host_proxy(self, egress: Egress) -> HostProxy | None:
        """The host's proxy as it was found at the launch; what it is told is nowhere but in our environment."""
        if not egress.host_proxy:
            return None
        there = Endpoint.parse(egress.host_proxy)
        found = find_host_proxy(self._session.env.environ, lambda _name: str(there.address))
        return replace(found, port=there.port) if found is not None else None

    def _read(self) -> tuple[Egress, Rules]:
        egress = read_egress(self._session.directory)
        return egress, effective(egress, read_rules(self._user_file, "user"))

    def _record_change(self, rules: Rules) -> None:
        """Record what came and went since the rules that were in force, by source."""
        before = {rule.name for rule in self._rules.opened} if self._rules is not None else set()
        now = {rule.name for rule in rules.opened}
        if self._rules is None:
            detail: dict[str, str | int] = {"opened": len(rules.opened), "closed": len(rules.closed)}
            self._journal.note(RecordType.EGRESS_CHANGED, subject="in force", detail=detail)
        elif before != now:
            detail = {"added": " ".join(sorted(now - before)), "removed": " ".join(sorted(before - now))}
            self._journal.note(RecordType.EGRESS_CHANGED, subject="changed", detail=detail)

    async def _take(self, told: _Told, proxy: asyncio.StreamWriter) -> None:
        """One line of the proxy, which keeps what it tells of until we say that it is taken."""
        if told.boot and told.boot != self._boot:
            if self._boot:
                self._recorded, self._used_before = 0, self._used
            else:
                self._recorded = -1  # what an earlier supervisor has recorded of it we do not know
            self._boot = told.boot
        if told.version and told.version == self._version:
            self._in_force.set()
            self._troubles.pop("link", None)
        if told.event is not None:
            if told.number > self._recorded:
                await self._until_recorded(told.number, told.event)
            self._heard.set()
            proxy.write(json.dumps({"taken": told.number}).encode() + b"\n")

    async def _until_recorded(self, number: int, event: Mapping[str, int | str]) -> None:
        """Try until it is: meanwhile the proxy keeps it and all that comes after, and hears of new rules."""
        while True:
            self._heard.set()
            try:
                return await self._record(number, event)
            except AuditError as error:
                self._note_trouble("record", error)
            await asyncio.sleep(_AGAIN_S)

    async def _record(self, number: int, event: Mapping[str, int | str]) -> None:
        missing = number - self._recorded - 1 if self._recorded >= 0 else 0
        if missing:  # it keeps whatever has passed; refusals it may forget
            self._journal.note(
                RecordType.GAP, outcome="failed", detail={"reason": "refused by the proxy", "lost": missing}
            )
            self._recorded = number - 1
        record = _record_of(event)
        await asyncio.to_thread(self._journal.egress, record)
        self._recorded = number
        self._troubles.pop("record", None)
        if "begun" not in record.detail:
            self._notice_uploads(_bytes(event.get("up")))
            self._used = _Bytes(
                self._used.up + _bytes(event.get("up")), self._used.down + _bytes(event.get("down"))
            )
        self._notice_breach(str(event.get("reason", "")))

    def _notice_breach(self, reason: str) -> None:
        """Tell the session's user once of each kind of bound that was met."""
        if reason in _BREACHES - self._told_of:
            self._told_of |= {reason}
            self._alert(f"requests are refused: {REASONS[reason]}")

    def _notice_uploads(self, up: int) -> None:
        """Tell the session's user of each large request, and once of a session that has sent much."""
        if up > _LARGE_REQUEST:
            self._alert(
                f"one request has sent {up // MIB} MiB; see `coding-agents audit query --type egress`"
            )
        elif self._used.up <= _LARGE_SESSION < self._used.up + up:
            self._alert(f"the session has sent more than {_LARGE_SESSION // MIB} MiB in all")

    def _looked(self) -> object:
        return tuple(_stamp_of(path) for path in (self._session.directory / EGRESS_FILE, self._user_file))

    @property
    def _user_file(self) -> Path:
        return self._session.env.config_dir / FILE


def _record_of(event: Mapping[str, int | str]) -> AuditEvent:
    """The record of one request, of values of known kinds only: the proxy has seen what the guest sends."""
    fields = {
        key: max(-_MOST, min(_MOST, value)) if isinstance(value, int) else value
        for key, value in event.items()
    }
    said = str(fields.pop("outcome", ""))
    outcome: Outcome = "denied" if said == "denied" else "failed" if said == "failed" else "allowed"
    subject = f"{fields.pop('scheme', '')}://{fields.pop('host', '')}:{fields.pop('port', '')}{fields.pop('path', '')}"
    rule = str(fields.pop("rule", ""))
    if said == "begun":
        fields["begun"] = 1
    return AuditEvent(
        RecordType.EGRESS, source="proxy", outcome=outcome, rule=rule, subject=subject, detail=fields
    )


def _bytes(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < _MOST else 0


def _left(budget: int, used: int) -> int:
    """What is left of a budget for a proxy that counts from nothing; 0 is none, so one byte stays."""
    return max(1, budget - used) if budget else 0


def _stamp_of(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
