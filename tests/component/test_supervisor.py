"""One session's supervisor: it settles what has ended, answers or says that it has left, and can be replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from coding_agents.app import recover as recover_module
from coding_agents.audit.log import open_log
from coding_agents.errors import (
    ChannelError,
    EngineError,
    EngineStoppedError,
    GitError,
    SessionStateError,
    SupervisorError,
    SupervisorGoneError,
)
from coding_agents.gitsync.lfs import Brought
from coding_agents.gitsync.relay_limits import Pressure, Usage
from coding_agents.gitsync.relay_thinning import Thinned
from coding_agents.model.audit import RecordType, decode_record
from coding_agents.model.refs import Oid
from coding_agents.store.files import locked
from coding_agents.supervisor import autosaving, ending, process, session_link, settle
from coding_agents.supervisor import client as client_module
from coding_agents.supervisor.adoption import WORKTREE
from coding_agents.supervisor.client import SupervisorClient
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.guest_config import to_plain
from coding_agents.supervisor.guest_link import GUEST_UID, GuestLink
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.process import Supervisor
from coding_agents.supervisor.protocol import Op
from coding_agents_guest import events
from coding_agents_guest.nestedref import LATEST, NESTED
from support.guest import mux_pair, short_directory
from support.product import git, wait_for
from support.specs import helper
from support.supervised import (
    BridgedEngine,
    SilentEngine,
    commit,
    give_volume,
    home,
    integrated,
    make_session,
    supervise,
)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[SilentEngine]:
    made = SilentEngine(tmp_path / "engine")
    made.directory.mkdir()
    yield made
    for state in list(made.find({"coding-agents.type": "helper"})):
        made.remove(state.id, force=True)


@pytest.fixture
def session(tmp_path: Path, fake: SilentEngine, monkeypatch: pytest.MonkeyPatch) -> SessionContext:
    monkeypatch.setattr(process, "_IDLE_S", 0.05)
    return make_session(tmp_path, fake)


def test_container_that_is_gone_is_lost_and_its_pushed_work_comes_home(session: SessionContext) -> None:
    pushed = commit(session, "pushed")
    supervise(session)
    record = session.reload()
    assert (record.phase, record.started_at, record.exit_status) == ("lost", "", None)
    assert home(session) == pushed
    assert integrated(session) == [pushed]
    # The volume was not compared, so nobody may believe that this is all.
    assert not record.saved.verified
    assert record.saved.where == "branch"
    assert "the session's volume is gone" in record.saved.note


def test_without_its_volume_a_session_comes_home_as_its_last_automatic_save_has_it(
    session: SessionContext,
) -> None:
    commit(session, "pushed", ref=LATEST)
    base = str(session.relay.base)
    other = commit(session, "inside", ref=f"{NESTED}lib")
    supervise(session)
    saved = session.reload().saved
    assert home(session) == str(session.relay.store.resolve(LATEST))
    assert git(Path(session.record.repo.work_tree), "rev-parse", f"{home(session)}^") == base
    assert (saved.where, saved.verified) == ("branch", False)
    assert git(Path(session.record.repo.work_tree), "rev-parse", *saved.nested) == other


def test_an_automatic_save_that_does_not_continue_the_branch_is_kept_beside_it(
    session: SessionContext,
) -> None:
    pushed = commit(session, "pushed")
    aside = commit(session, "aside", ref=LATEST, content="other\n")
    unfinished = commit(session, "unfinished", ref=WORKTREE, content="third\n")
    supervise(session)
    saved = session.reload().saved
    assert home(session) == pushed
    assert saved.where == "incoming"
    repo = Path(session.record.repo.work_tree)
    incoming = git(repo, "for-each-ref", "--format=%(objectname)", "refs/coding-agents/incoming").split()
    assert sorted(incoming) == sorted([aside, unfinished])


def test_container_that_has_ended_is_settled_with_its_status(
    session: SessionContext, fake: SilentEngine
) -> None:
    spec = helper(name="demo-shop", image=fake.add_image("x:local"), argv=("/bin/sh", "-c", "exit 3"))
    container = fake.create(spec)
    fake.start(container)
    wait_for(lambda: not (state := fake.inspect(container)) or not state.running, "the end")
    session.update(container_id=container)
    supervise(session)
    assert (session.reload().phase, session.record.exit_status) == ("stopped", 3)


@pytest.mark.parametrize("op", [Op.WAIT, Op.STOP, Op.SALVAGE])
def test_what_another_engine_does_not_have_is_not_gone(
    session: SessionContext, fake: SilentEngine, op: Op
) -> None:
    """As after `docker context use`, or with a data disk that is not mounted: the agent may run on, elsewhere."""
    pushed = commit(session, "pushed")
    session.update(engine_id="the engine of the launch")

    async def ask(supervisor: Supervisor) -> None:
        with pytest.raises(EngineError, match="not the one that session"):
            await supervisor.handle(op, {})

    supervise(session, ask)
    assert session.reload().phase == "running"
    session.update(engine_id=str(fake.directory))
    supervise(session)
    assert session.reload().phase == "lost"
    assert home(session) == pushed


@pytest.mark.parametrize("op", [Op.WAIT, Op.STOP, Op.SALVAGE])
def test_silent_engine_is_named_to_who_asks_and_nothing_is_settled(
    session: SessionContext, fake: SilentEngine, op: Op
) -> None:
    fake.silent = 1000

    async def ask(supervisor: Supervisor) -> None:
        with pytest.raises(EngineStoppedError):
            await supervisor.handle(op, {})

    supervise(session, ask)
    assert session.reload().phase == "running"
    fake.silent = 0
    supervise(session)
    assert session.reload().phase == "lost"


def test_engine_that_answers_again_lets_who_waits_have_the_end(
    session: SessionContext, fake: SilentEngine
) -> None:
    fake.silent = 1

    async def ask(supervisor: Supervisor) -> dict[str, Any]:
        return await supervisor.handle(Op.WAIT, {})

    assert supervise(session, ask)["phase"] == "lost"


def test_running_session_without_a_channel_is_not_waited_for_in_vain(
    session: SessionContext, fake: SilentEngine
) -> None:
    container = fake.create(
        helper(name="demo-shop", image=fake.add_image("x:local"), argv=("/bin/sleep", "60"))
    )
    fake.start(container)
    state = fake.inspect(container)
    assert state is not None
    session.update(
        container_id=container, started_at=state.started_at
    )  # its bridge is a program that is not here

    async def ask(supervisor: Supervisor) -> None:
        with pytest.raises(SupervisorError, match="channel cannot be opened"):
            await supervisor.handle(Op.WAIT, {})

    supervise(session, ask)


def test_settled_session_is_left_alone(session: SessionContext) -> None:
    session.update(phase="stopped", exit_status=7)
    commit(session, "late")
    supervise(session)
    assert (session.reload().phase, session.record.exit_status) == ("stopped", 7)
    assert home(session) == ""


def test_it_stays_while_a_question_is_open_and_then_leaves(session: SessionContext) -> None:
    session.update(phase="stopped", exit_status=7)
    answered = asyncio.Event()

    async def ask(supervisor: Supervisor) -> dict[str, Any]:
        answer = await supervisor.handle(Op.WAIT, {})
        answered.set()
        return answer

    assert supervise(session, ask)["exit_status"] == 7
    assert answered.is_set()


def test_who_asks_a_leaving_supervisor_is_sent_away(session: SessionContext) -> None:
    session.update(phase="stopped")

    async def ask(supervisor: Supervisor) -> None:
        await supervisor.handle(Op.QUIT, {})
        with pytest.raises(SupervisorGoneError):
            await supervisor.handle(Op.STOP, {})

    supervise(session, ask)


@pytest.fixture
def channel_directory() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def test_a_gate_is_opened_on_the_channel_alone_that_was_there_when_its_start_was_measured(
    session: SessionContext, channel_directory: Path
) -> None:
    engine = session.engine = BridgedEngine(channel_directory)
    image = engine.add_image("x:local")
    container = engine.create(helper(name="demo-shop", image=image, argv=("/bin/sleep", "60")))
    engine.start(container)
    session.update(phase="starting", started_at="", container_id=container)

    async def ask(supervisor: Supervisor) -> None:
        assert (await supervisor.handle(Op.ATTACH, {}))["facts"]
        config = to_plain(
            events.GuestConfig(
                session="0" * 12, branch="demo/b", identity=events.Identity("a", "a@example.com")
            )
        )
        first = supervisor._link.current
        assert first is not None
        await first.close()  # as by the end of the start that it belonged to
        async with asyncio.timeout(10):
            while supervisor._link.current is first:  # noqa: ASYNC110 - the supervisor opens another one by itself
                await asyncio.sleep(0.05)
        with pytest.raises(SessionStateError, match="its gate stays closed"):
            await supervisor.handle(Op.OPEN_GATE, {"started_at": "any", "config": config})
        assert session.reload().started_at == ""
        await supervisor.handle(Op.QUIT, {})

    try:
        with session.store.lock(session.record.id):  # as the verb that brings it up
            supervise(session, ask)
    finally:
        engine.remove(container, force=True)


def test_reports_are_taken_of_the_entry_point_alone() -> None:
    """What any other user says on a stream of events opens no gate and ends no session."""
    heard: list[object] = []

    async def say(peer_uid: int) -> None:
        link = GuestLink({}, heard.append)
        async with mux_pair(on_host_open=link._on_stream) as (guest, _):
            stream = guest.open("events", peer_uid)
            with suppress(ConnectionError):
                await stream.write(events.encode_event(events.Exit(0)))
                stream.write_eof()
            with suppress(ConnectionError):
                async with asyncio.timeout(10):
                    assert await stream.read() == b""

    for uid in (1001, 1002, 0):
        asyncio.run(say(uid))
        assert heard == []
    asyncio.run(say(GUEST_UID))
    assert heard == [events.Exit(0)]


@pytest.mark.parametrize("runtime", ["runsc", ""])
def test_a_container_in_gvisor_that_ended_is_noticed_although_its_channel_stays_open(
    session: SessionContext, channel_directory: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    """The bridge lives on, as Docker's client of an exec does there. Elsewhere nobody waits beside the channel."""
    monkeypatch.setattr(session_link, "_LAST_WORDS_S", 0.1)
    engine = session.engine = BridgedEngine(channel_directory)
    image = engine.add_image("x:local")
    container = engine.create(helper(name="demo-shop", image=image, argv=("/bin/sleep", "60")))
    engine.start(container)
    session.update(phase="starting", started_at="", container_id=container, runtime=runtime)

    async def ask(supervisor: Supervisor) -> bool:
        await supervisor.handle(Op.ATTACH, {})
        await asyncio.to_thread(engine.kill, container)
        with suppress(TimeoutError):
            await asyncio.wait_for(supervisor._ended.wait(), 10 if runtime else 1)
        ended = supervisor._ended.is_set()
        await supervisor.handle(Op.QUIT, {})
        return ended

    with session.store.lock(session.record.id):
        assert supervise(session, ask) is bool(runtime)


def test_a_closed_channel_is_said_and_not_waited_for(session: SessionContext) -> None:
    session.update(phase="stopped")

    async def ask(supervisor: Supervisor) -> None:
        with pytest.raises(SupervisorError, match="channel is not open"):
            await supervisor.handle(Op.AUTOSAVE, {})
        with pytest.raises(SupervisorError, match="channel is not open"):
            await supervisor.handle(Op.OPEN_GATE, {"started_at": "then"})

    supervise(session, ask)


@pytest.mark.parametrize(
    ("changes", "pressure", "thinned", "expected"),
    [
        ({"started_at": "then"}, Pressure.NONE, None, True),
        ({"started_at": "then"}, Pressure.THIN, None, False),
        ({"started_at": "then"}, Pressure.THIN, Pressure.NONE, True),
        ({"started_at": "then"}, Pressure.THIN, Pressure.THIN, False),
        ({"started_at": "then"}, Pressure.FULL, Pressure.NONE, True),
        ({"started_at": "then"}, Pressure.FULL, Pressure.FULL, False),
        ({"started_at": ""}, Pressure.NONE, None, False),
        ({"started_at": "then", "push": False}, Pressure.NONE, None, False),
    ],
)
def test_a_running_session_is_saved_again_and_again(
    session: SessionContext,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    pressure: Pressure,
    thinned: Pressure | None,
    expected: bool,
) -> None:
    """Also after one that failed, which is recorded; not with a closed gate, push off, or a nearly full relay that
    could not be thinned out."""
    monkeypatch.setattr(autosaving, "_PAUSE_S", 0.005)
    monkeypatch.setattr(autosaving, "_SPARED", 0)
    session.update(**changes)
    saves = []

    async def run() -> None:
        with open_log(session.audit_path, session=session.record.id, time_ms=0) as log:
            supervisor = Supervisor(session, Journal(log))

            async def autosave() -> dict[str, Any]:
                saves.append(len(saves))
                if len(saves) == 1:
                    raise ChannelError("the guest is busy")
                return {}

            async def how_full() -> Pressure:
                return pressure

            async def thin(**_: object) -> Thinned | None:
                return None if thinned is None else Thinned(Usage(9, 9), Usage(1, 2), thinned)

            monkeypatch.setattr(supervisor._autosaving, "save", autosave)
            monkeypatch.setattr(supervisor._relay, "pressure", how_full)
            monkeypatch.setattr(supervisor._relay, "thin", thin)
            with suppress(TimeoutError):
                await asyncio.wait_for(supervisor._autosaving.save_regularly(), 0.3)

    asyncio.run(run())
    assert (len(saves) > 2) is expected
    assert expected or saves == []
    records = [decode_record(line) for line in session.audit_path.read_bytes().splitlines()]
    failed = [record for record in records if record.type is RecordType.AUTOSAVED]
    assert [record.detail["reason"] for record in failed] == ["the guest is busy"] * expected
    told = {
        (record.outcome, record.detail["disk"], record.detail["unpacked"])
        for record in records
        if record.type is RecordType.THINNED
    }
    outcome = "allowed" if thinned is Pressure.NONE else "failed"
    assert told == ({(outcome, "9 to 1", "9 to 2")} if thinned else set())


def test_salvage_of_a_running_session_is_refused(session: SessionContext, fake: SilentEngine) -> None:
    container = fake.create(
        helper(name="demo-shop", image=fake.add_image("x:local"), argv=("/bin/sleep", "60"))
    )
    fake.start(container)
    session.update(phase="stopped", container_id=container)

    async def ask(supervisor: Supervisor) -> None:
        with pytest.raises(SessionStateError, match="is running"):
            await supervisor.handle(Op.SALVAGE, {})

    supervise(session, ask)


@pytest.fixture
def reading(session: SessionContext, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """A salvage that reads a large volume: set when it has begun, and what it waits for until it goes on."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def salvage(*_: object) -> events.Salvaged:
        begun.set()
        await go_on.wait()
        return events.Salvaged(head="", worktree="", clean=True)

    monkeypatch.setattr(ending, "salvage", salvage)
    give_volume(session)
    session.update(phase="stopped", started_at="")
    return begun, go_on


def test_a_start_waits_for_who_reads_the_volume(
    session: SessionContext,
    channel_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    reading: tuple[asyncio.Event, asyncio.Event],
) -> None:
    """What the salvage of the old state found says nothing of a volume in which the agent works again."""
    monkeypatch.setattr(process, "_BUSY_S", 0.2)
    engine = session.engine = BridgedEngine(channel_directory)
    give_volume(session)
    image = engine.add_image("x:local")
    container = engine.create(helper(name="demo-shop", image=image, argv=("/bin/sleep", "60")))
    session.update(container_id=container)
    config = to_plain(
        events.GuestConfig(session="0" * 12, branch="demo/b", identity=events.Identity("a", "a@example.com"))
    )
    begun, go_on = reading

    async def ask(supervisor: Supervisor) -> None:
        recovering = asyncio.ensure_future(supervisor.handle(Op.SALVAGE, {}))
        await begun.wait()
        waiting = asyncio.ensure_future(supervisor.handle(Op.WAIT, {}))
        engine.start(container)
        with pytest.raises(SessionStateError, match="still being read"):
            await supervisor.handle(Op.ATTACH, {})
        assert not waiting.done()
        go_on.set()
        assert (await recovering)["saved"]["verified"]
        await waiting
        await supervisor.handle(Op.ATTACH, {})
        with pytest.raises(SessionStateError, match="is running"):
            await supervisor.handle(Op.SALVAGE, {})
        opening = asyncio.ensure_future(
            supervisor.handle(Op.OPEN_GATE, {"started_at": "now", "config": config})
        )
        async with asyncio.timeout(10):
            while session.store.load(session.record.id).started_at != "now":  # noqa: ASYNC110 - in a file
                await asyncio.sleep(0.01)
        assert not session.reload().saved.verified
        await supervisor.handle(Op.QUIT, {})
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening

    try:
        supervise(session, ask)
    finally:
        engine.remove(container, force=True)


def test_two_that_ask_for_a_salvage_have_one_after_the_other(
    session: SessionContext, monkeypatch: pytest.MonkeyPatch, reading: tuple[asyncio.Event, asyncio.Event]
) -> None:
    """Each removes the container of one that was killed."""
    begun, go_on = reading

    async def ask(supervisor: Supervisor) -> None:
        first, second = (asyncio.ensure_future(supervisor.handle(Op.SALVAGE, {})) for _ in range(2))
        await begun.wait()
        begun.clear()
        await asyncio.sleep(0.1)
        assert not begun.is_set()
        go_on.set()
        await asyncio.gather(first, second)
        assert begun.is_set()

    supervise(session, ask)


def test_a_salvage_says_nothing_of_a_session_that_was_started_meanwhile(
    session: SessionContext, reading: tuple[asyncio.Event, asyncio.Event]
) -> None:
    begun, go_on = reading

    async def ask(supervisor: Supervisor) -> None:
        recovering = asyncio.ensure_future(supervisor.handle(Op.SALVAGE, {}))
        await begun.wait()
        session.store.update(session.record.id, phase="starting")  # as a verb does
        go_on.set()
        with pytest.raises(SessionStateError, match="was started while"):
            await recovering

    supervise(session, ask)
    assert not session.reload().saved.verified


def test_recover_holds_the_session(session: SessionContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `start` or `remove` beside it waits, as beside each other."""
    busy = []

    def salvage(context: SessionContext) -> None:
        busy.append(context.store.is_busy(context.record.id))

    monkeypatch.setattr(recover_module, "salvage", salvage)
    recover_module.recover(session)
    assert busy == [True]


def test_work_that_cannot_come_home_is_told_and_kept(session: SessionContext) -> None:
    pushed = commit(session, "pushed")
    work_tree = Path(session.record.repo.work_tree)
    moved = work_tree.rename(work_tree.with_name("moved"))
    supervise(session)
    record = session.reload()
    assert (record.phase, record.saved.where) == ("lost", "volume")
    assert session.relay.store.resolve(session.relay.branch.ref) == pushed
    moved.rename(work_tree)
    session.update(phase="running")
    supervise(session)
    assert home(session) == pushed


@pytest.mark.parametrize(
    ("brought", "where", "says"),
    [
        (Brought(too_large=("a" * 64,)), "volume", f"{'a' * 64} exceed relay.unpacked"),
        (
            Brought(refused=("b" * 64,)),
            "incoming",
            f"refused, as they are not what they are called: {'b' * 64}",
        ),
        (GitError("cannot read them"), "volume", "were not brought home: cannot read them"),
    ],
)
def test_large_files_that_do_not_come_home_hold_nothing_else_up(
    session: SessionContext,
    monkeypatch: pytest.MonkeyPatch,
    brought: Brought | GitError,
    where: str,
    says: str,
) -> None:
    """Neither the branch, nor what does not continue it, nor repositories inside; and they are named."""
    pushed = commit(session, "pushed")
    aside = commit(session, "aside", ref=LATEST, content="other\n")
    inside = commit(session, "inside", ref=f"{NESTED}lib")

    def bring(*_: object, **__: object) -> Brought:
        if isinstance(brought, GitError):
            raise brought
        return brought

    monkeypatch.setattr(settle, "bring_large_files", bring)
    supervise(session)
    saved = session.reload().saved
    repo = Path(session.record.repo.work_tree)
    assert home(session) == pushed
    assert git(repo, "rev-parse", f"refs/coding-agents/incoming/{session.record.id}-autosave") == aside
    assert git(repo, "rev-parse", *saved.nested) == inside
    assert saved.where == where
    assert says in saved.note
    assert "history was rewritten" in saved.note


def plant(session: SessionContext, oid: Oid, *names: bytes) -> None:
    """Refs below NESTED that an earlier version let an agent push."""
    commands = (b"create %s%s %s\n" % (NESTED.encode(), name, oid.encode()) for name in names)
    session.relay.store.git("update-ref", "--stdin", stdin=b"".join(commands))


def test_a_name_that_is_no_text_or_too_deep_does_not_keep_a_session_from_its_end(
    session: SessionContext,
) -> None:
    pushed = commit(session, "pushed")
    plant(session, pushed, b"x\xff", b"x" + b"/a" * 1200)
    supervise(session)
    record = session.reload()
    assert (record.phase, record.saved.where) == ("lost", "branch")
    assert home(session) == pushed
    repo = Path(session.record.repo.work_tree)
    assert len(record.saved.nested) == 2
    assert set(git(repo, "rev-parse", *record.saved.nested).split()) == {pushed}
    session.store.remove(session.record.id)
    assert not session.directory.exists()


def test_names_beyond_what_a_record_holds_are_counted_there(session: SessionContext) -> None:
    pushed = commit(session, "pushed")
    names = [f"{number:04d}/{'b' * 200}/{'c' * 200}/{'d' * 200}/{'e' * 200}" for number in range(300)]
    plant(session, pushed, *map(str.encode, names))
    supervise(session)
    saved = session.reload().saved
    assert 100 < len(saved.nested) < 200
    assert f"{300 - len(saved.nested)} more repositories inside are home" in saved.note
    repo = Path(session.record.repo.work_tree)
    assert git(repo, "for-each-ref", NESTED).count(pushed) == 300


def test_a_mistake_of_ours_at_the_end_is_recorded_and_met_once(
    session: SessionContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = commit(session, "pushed")

    def fail(*_: object) -> None:
        raise UnicodeEncodeError("utf-8", "x\udcff", 1, 2, "surrogates not allowed")

    with monkeypatch.context() as patched:
        patched.setattr(ending, "bring_nested_home", fail)
        supervise(session)
        record = session.reload()
        assert (record.phase, record.saved.where) == ("lost", "volume")
        assert "the end was not settled: the supervisor failed: UnicodeEncodeError" in record.saved.note
        assert "coding-agents recover" in record.saved.note
        with pytest.raises(UnicodeEncodeError):  # which the control socket tells
            supervise(session, lambda supervisor: supervisor.handle(Op.SALVAGE, {}))
    supervise(session, lambda supervisor: supervisor.handle(Op.SALVAGE, {}))
    assert session.reload().saved.where == "branch"
    assert home(session) == pushed


# The process itself, asked by its client


def _pid(session: SessionContext) -> int | None:
    """The supervisor's process, by the session's directory in its command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"coding_agents.supervisor" in words and os.fsencode(session.directory) in words:
                return int(entry.name)
    return None


def _end(session: SessionContext, client: SupervisorClient, number: signal.Signals) -> None:
    """Send a signal to a supervisor that answers; one without work leaves by itself when the machine is slow."""
    while True:
        client.ask(Op.STATUS)
        pid = _pid(session)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                return


def test_a_killed_supervisor_is_replaced_by_the_next_question(session: SessionContext) -> None:
    session.update(phase="stopped")
    client = session.supervisor()
    with pytest.raises(SupervisorGoneError):
        client.call(Op.STATUS)
    assert client.ask(Op.STATUS)["phase"] == "stopped"
    _end(session, client, signal.SIGKILL)
    wait_for(lambda: _pid(session) is None, "the end of the killed one")
    assert client.ask(Op.STATUS)["phase"] == "stopped"  # its socket, left behind, hinders nobody
    _end(session, client, signal.SIGTERM)
    client.quit()
    with pytest.raises(SupervisorGoneError):
        client.call(Op.STATUS)


@pytest.mark.parametrize("answer", [b"", b"{"])
def test_a_supervisor_that_leaves_while_it_is_told_to_has_left(
    session: SessionContext, answer: bytes
) -> None:
    path = session.store.control_socket(session.record.id)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def hang_up() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(answer)

        thread = threading.Thread(target=hang_up)
        thread.start()
        session.supervisor().quit()
        thread.join()


def test_who_does_not_leave_is_told(session: SessionContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_LEAVE_S", 0.1)
    with (
        locked(session.directory / "supervisor.lock"),
        pytest.raises(SupervisorError, match="does not end"),
    ):
        session.supervisor().quit()


def test_many_that_start_a_supervisor_at_once_share_one(session: SessionContext) -> None:
    session.update(phase="stopped", exit_status=7)
    answers: list[Any] = []

    def ask() -> None:
        answers.append(session.supervisor().ask(Op.WAIT)["exit_status"])

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [7] * 6
    session.supervisor().quit()


def test_a_supervisor_that_cannot_start_says_why(session: SessionContext) -> None:
    session.update(phase="stopped")
    (session.directory / "session.json").write_text("{")
    with pytest.raises(SupervisorError) as caught:
        session.supervisor().ask(Op.WAIT)
    assert "corrupt" in caught.value.details
