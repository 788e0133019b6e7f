"""The host's end of the proxy's line: rules that follow files, and events that are recorded before all else."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.audit.log import AuditLog, open_log
from coding_agents.audit.verify import verify
from coding_agents.errors import AuditError, EngineError
from coding_agents.model.audit import AuditRecord, decode_record, encode_record, make_record
from coding_agents.network.allowlist import FILE, Egress
from coding_agents.proc.runner import Command
from coding_agents.supervisor import egress
from coding_agents.supervisor.egress import EgressLink
from coding_agents.supervisor.egress_kept import write_egress
from coding_agents.supervisor.journal import Journal
from coding_agents_guest.egress.link import Link
from coding_agents_guest.egress.orders import Orders
from coding_agents_guest.egress.outbox import Outbox
from coding_agents_guest.egress.rules import REASONS
from support.egress import link_client
from support.guest import short_directory
from support.host import host_environment

_SESSION = "0123456789ab"
KEPT = Egress({"builtin": ("a.example",)})


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Short: sockets stand in it, whose paths have 107 bytes."""
    with short_directory() as directory:
        yield directory


@dataclass
class Scene:
    """A session with a supervisor's end; `proxy` stands for what is at the other end."""

    home: Path
    log: AuditLog
    link: EgressLink
    engine: Any
    alerts: list[str] = field(default_factory=list)
    outbox: Outbox = field(default_factory=Outbox)
    taken: list[Orders] = field(default_factory=list)

    @property
    def records(self) -> list[AuditRecord]:
        lines = (self.home / "audit.jsonl").read_bytes().splitlines(keepends=True)
        assert not lines or verify(lines).ok
        return [decode_record(line) for line in lines]

    def told(self, kind: str) -> list[AuditRecord]:
        return [record for record in self.records if record.type.value == kind]

    @property
    def rules(self) -> list[str]:
        return sorted(rule.text for rule in self.taken[-1].rules.opened) if self.taken else []

    def allow(self, text: str) -> None:
        path = self.home / ".config/coding-agents" / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    async def ending(self, proxy: asyncio.Task[None]) -> None:
        """End the supervisor's end first, so that the other sees it."""
        self.link.leave()
        if self.link._serving is not None:
            await asyncio.gather(self.link._serving, return_exceptions=True)
        await asyncio.sleep(0.05)
        proxy.cancel()
        await asyncio.gather(proxy, return_exceptions=True)
        await asyncio.sleep(0.02)

    def serve(self) -> asyncio.Task[None]:
        """The real other end."""
        return asyncio.ensure_future(
            Link(self.outbox, self.taken.append).serve(listen(self.home / "link.sock"))
        )


def listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(path))
    listener.listen()
    return listener


async def until(condition: Callable[[], object], within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - files are looked at
            await asyncio.sleep(0.02)


@asynccontextmanager
async def supervised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: Egress = KEPT
) -> AsyncIterator[Scene]:
    monkeypatch.setattr(egress, "_AGAIN_S", 0.05)
    started: list[str] = []
    engine = SimpleNamespace(
        exec_command=lambda *args, **options: Command(
            link_client(tmp_path / "link.sock"), env={"PATH": os.defpath}
        ),
        inspect=lambda container: SimpleNamespace(running=True),
        start=started.append,
        started=started,
    )
    record = SimpleNamespace(
        id=_SESSION, name="demo-x", holder_id="h", guest_digest="0" * 64, engine="docker"
    )
    session: Any = SimpleNamespace(
        record=record, engine=engine, directory=tmp_path, env=host_environment(tmp_path)
    )
    write_egress(tmp_path, kept)
    alerts: list[str] = []
    with open_log(tmp_path / "audit.jsonl", session=_SESSION, time_ms=1) as log:
        scene = Scene(tmp_path, log, EgressLink(session, Journal(log), alerts.append), engine, alerts)
        try:
            yield scene
        finally:
            scene.link.leave()
            if scene.link._serving is not None:
                await asyncio.gather(scene.link._serving, return_exceptions=True)


EVENT = {
    "outcome": "allowed",
    "scheme": "https",
    "host": "a.example",
    "port": 443,
    "rule": "builtin:a.example",
    "up": 5,
    "down": 6,
}


def test_rules_are_in_force_before_a_gate_opens_and_events_are_recorded_then_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with supervised(tmp_path, monkeypatch, Egress({"builtin": ("a.example",)}, upload=9)) as here:
            proxy = here.serve()
            here.link.begin()
            await asyncio.wait_for(here.link.until_in_force(), 10)
            assert (here.rules, here.taken[-1].limits.up) == (["a.example"], 9)
            here.outbox.put({**EVENT, "ms": 3})
            await until(lambda: not here.outbox.after(0))
            found = here.told("egress")[-1]
            assert (found.source, found.outcome, found.rule) == ("proxy", "allowed", "builtin:a.example")
            assert found.subject == "https://a.example:443"
            assert found.detail == {"up": 5, "down": 6, "ms": 3}
            assert here.told("egress-changed")[0].subject == "in force"
            await here.ending(proxy)

    asyncio.run(scene())


def test_without_a_proxy_no_gate_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "_IN_FORCE_S", 0.3)

    async def scene() -> None:
        async with supervised(tmp_path, monkeypatch) as here:
            here.link.begin()
            with pytest.raises(EngineError, match="does not take its rules"):
                await here.link.until_in_force()

    asyncio.run(scene())


def test_what_cannot_be_recorded_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with supervised(tmp_path, monkeypatch) as here:
            proxy = here.serve()
            here.link.begin()
            await here.link.until_in_force()
            record, tries = here.log.record, []

            def full(event: Any, *, time_ms: int) -> Any:
                tries.append(event)
                raise AuditError("cannot record: the disk is full")

            monkeypatch.setattr(here.log, "record", full)
            here.outbox.put(EVENT)
            here.outbox.put({**EVENT, "outcome": "failed"})
            await until(lambda: len(tries) >= 3)
            here.allow("b.example\n")
            await until(lambda: "b.example" in here.rules)  # a record that fails keeps no rule from the proxy
            tried = len(tries)
            await until(lambda: len(tries) > tried + 1)
            assert [number for number, _ in here.outbox.after(0)] == [1, 2]
            assert here.told("egress") == []
            monkeypatch.setattr(here.log, "record", record)
            await until(lambda: not here.outbox.after(0))
            assert [one.outcome for one in here.told("egress")] == ["allowed", "failed"]
            troubles = [
                one.detail["reason"] for one in here.told("egress-changed") if one.outcome == "failed"
            ]
            assert troubles.count("cannot record: the disk is full") == 1, (
                "told once, however often it was tried"
            )
            await here.ending(proxy)

    asyncio.run(scene())


def test_what_passed_is_recorded_however_many_refusals_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusals have a budget of their own; who uses it up hides nothing by breaking its connections off."""

    async def scene() -> None:
        async with supervised(tmp_path, monkeypatch) as here:
            proxy = here.serve()
            here.link.begin()
            for _ in range(400):
                here.outbox.put({"outcome": "denied", "reason": "not-listed", "up": 0, "down": 0})
            for outcome in ("failed", "denied", "allowed"):
                here.outbox.put({**EVENT, "outcome": outcome, "note": "passed"})
            await until(lambda: not here.outbox.after(0), 30)
            assert len(here.told("egress")) < 300
            assert [one.outcome for one in here.told("egress") if one.detail.get("note")] == [
                "failed",
                "denied",
                "allowed",
            ]
            await here.ending(proxy)

    asyncio.run(scene())


def test_a_change_is_followed_within_two_seconds_and_a_mistake_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with supervised(tmp_path, monkeypatch) as here:
            here.allow("b.example\n")
            proxy = here.serve()
            here.link.begin()
            await here.link.until_in_force()
            assert here.rules == ["a.example", "b.example"]

            began = time.monotonic()
            here.allow("c.example\n# more\n")
            await until(lambda: here.rules == ["a.example", "c.example"])
            write_egress(here.home, Egress({"builtin": ("a.example",)}, added=("d.example",)))
            await until(lambda: "d.example" in here.rules)
            assert time.monotonic() - began < 4

            count = len(here.taken)
            here.allow("c.example\n10.0.0.1\n")
            await until(lambda: [one for one in here.told("egress-changed") if one.outcome == "failed"])
            assert len(here.taken) == count, "the old rules stay in force"
            here.allow("e.example\n")
            await until(lambda: here.rules == ["a.example", "d.example", "e.example"])

            told = [(one.subject, one.outcome) for one in here.told("egress-changed")]
            changes = ["in force", "changed", "changed", "rules", "changed"]
            assert told == [(one, "failed" if one == "rules" else "allowed") for one in changes]
            changed = [one.detail for one in here.told("egress-changed") if one.subject == "changed"]
            assert changed[0] == {"added": "user:c.example", "removed": "user:b.example"}
            assert changed[1] == {"added": "session:d.example", "removed": ""}
            failed = next(one for one in here.told("egress-changed") if one.outcome == "failed")
            assert f"{FILE}:2: not a rule: '10.0.0.1'" in str(failed.detail["reason"])
            await here.ending(proxy)

    asyncio.run(scene())


@dataclass
class Scripted:
    """A proxy that says what a test wants it to, a list of lines a connection, and notes what it is told."""

    lines: list[list[object]]
    heard: list[dict[str, Any]] = field(default_factory=list)
    tasks: set[asyncio.Future[Any]] = field(default_factory=set)

    async def serve(self, path: Path) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self.tasks.add(task)
            with suppress(OSError, TimeoutError):
                for line in self.lines.pop(0) if self.lines else [{"boot": "last"}]:
                    writer.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
                if not self.lines:
                    while said := await reader.readline():
                        self.heard.append(json.loads(said))
                else:
                    await asyncio.sleep(0.2)
                    while not reader.at_eof() and (said := await asyncio.wait_for(reader.readline(), 0.2)):
                        self.heard.append(json.loads(said))
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

        server = await asyncio.start_unix_server(connected, sock=listen(path), limit=1 << 22)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    @property
    def taken(self) -> list[int]:
        return [one["taken"] for one in self.heard if "taken" in one]

    @property
    def budgets(self) -> list[int]:
        return [one["limits"]["up"] for one in self.heard if "limits" in one]


def event(number: int, **more: Any) -> dict[str, object]:
    return {"number": number, "event": {**EVENT, **more}}


def test_an_event_that_is_told_again_is_recorded_once_and_what_is_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with supervised(tmp_path, monkeypatch, Egress(upload=100)) as here:
            one = Scripted(
                [
                    [{"boot": "x"}, event(7, up=30), event(8, up=10)],
                    [{"boot": "x"}, event(8, up=10), event(12, up=20)],
                    [{"boot": "y"}, event(1, up=50)],
                    [{"boot": "z"}, event(1, up=0)],
                ]
            )
            proxy = asyncio.ensure_future(one.serve(here.home / "link.sock"))
            here.link.begin()
            await until(lambda: len(here.told("egress")) == 5, 20)
            assert [record.detail["up"] for record in here.told("egress")] == [30, 10, 20, 50, 0]
            assert [record.detail["lost"] for record in here.told("gap")] == [3]
            await until(lambda: one.taken[-1:] == [1])
            await until(lambda: one.budgets[-1:] == [1])  # 110 of 100 are used: what is left is nothing
            assert 40 in one.budgets, (
                "a proxy that is started anew has what the one before has left of the budget"
            )
            await here.ending(proxy)

    asyncio.run(scene())


@pytest.mark.parametrize(
    "line",
    [
        b"[]\n", b"null\n", b"1\n", b"nonsense\n", b"\xff\n", b"[" * 60_000 + b"\n", b"x" * 200_000 + b"\n",
        {"number": "1", "event": {}}, {"number": 1, "event": []}, {"number": 1, "event": {"up": True}},
        {"number": 1, "event": {"up": {}}}, {"number": 1, "event": {"up": 1.5}}, {"number": 1, "event": {"host": None}},
        b'{"number":1,"event":{"host":"\\ud800"}}\n', {"boot": 5}, {"version": "1"},
    ],
    ids=range(16),
)  # fmt: skip
def test_whatever_the_proxy_says_costs_it_its_line_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: object
) -> None:
    async def scene() -> None:
        async with supervised(tmp_path, monkeypatch) as here:
            one = Scripted([[{"boot": "x"}, line], [{"boot": "x"}, event(1)]])
            proxy = asyncio.ensure_future(one.serve(here.home / "link.sock"))
            here.link.begin()
            await until(lambda: here.told("egress"), 20)
            assert [record.outcome for record in here.told("egress-changed")].count("failed") == 1
            assert len(here.told("egress")) == 1
            await here.ending(proxy)

    asyncio.run(scene())


def test_a_proxy_whose_container_has_ended_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with supervised(tmp_path, monkeypatch) as here:
            proxy = here.serve()
            link = here.engine.exec_command
            here.engine.inspect = lambda container: SimpleNamespace(running=bool(here.engine.started))
            here.engine.exec_command = lambda *args, **options: (
                link() if here.engine.started else Command(("false",), env={"PATH": os.defpath})
            )
            here.link.begin()
            await here.link.until_in_force()
            assert here.engine.started == ["h"]
            assert here.told("egress-changed")[0].subject == "proxy started again"
            await here.ending(proxy)

    asyncio.run(scene())


def test_what_is_still_to_tell_is_recorded_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with supervised(tmp_path, monkeypatch) as here:
            proxy = here.serve()
            here.link.begin()
            await here.link.until_in_force()
            for _ in range(50):
                here.outbox.put(EVENT)
            await here.link.finish()
            assert len(here.told("egress")) == 50
            await here.ending(proxy)

    asyncio.run(scene())


_VALUES = (
    st.integers()
    | st.text(max_size=3000)
    | st.sampled_from(["denied", "failed", "begun", "\n\x1b[2J\u2028\"'"])
)


_KEYS = st.sampled_from(["outcome", "scheme", "host", "port", "path", "rule", "up", "down", "reason", "note"])


@given(st.dictionaries(_KEYS | st.text(max_size=5), _VALUES, max_size=40))
def test_no_value_of_an_event_breaks_the_record(values: dict[str, int | str]) -> None:
    found = egress._record_of(values)
    assert (found.type.value, found.source) == ("egress", "proxy")
    record = make_record(found, seq=1, prev="0" * 64, time_ms=1, session=_SESSION)
    line = encode_record(record)
    assert line.count(b"\n") == 1
    assert len(line) < 20_000
    assert decode_record(line) == record


def test_the_user_is_told_once_of_each_bound_that_was_met_and_of_much_that_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with supervised(tmp_path, monkeypatch) as here:
            told = [
                {"boot": "x"},
                event(1, outcome="denied", reason="budget"),
                event(2, outcome="denied", reason="budget"),
                event(3, outcome="denied", reason="not-listed"),
                event(4, up=11 << 20),
                event(5, outcome="denied", reason="busy"),
            ]
            proxy = asyncio.ensure_future(Scripted([told]).serve(here.home / "link.sock"))
            here.link.begin()
            await until(lambda: len(here.alerts) == 3)
            assert len(here.told("egress")) == len(told) - 1
            assert [text.partition(";")[0] for text in here.alerts] == [
                f"requests are refused: {REASONS['budget']}",
                "one request has sent 11 MiB",
                f"requests are refused: {REASONS['busy']}",
            ]
            await here.ending(proxy)

    asyncio.run(scene())
