"""Entry point and salvage in their real containers, with a hostile agent of the same uid."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coding_agents.channel.exec_channel import open_channel
from coding_agents.proc.runner import Command
from coding_agents.sandbox.guest import NOT_OURS, guest_argv
from coding_agents.sandbox.plan import plan_salvage, plan_session
from coding_agents.sandbox.spec import AGENT_USER, BRIDGE_USER, WORKSPACE, Network
from coding_agents_guest import __version__
from coding_agents_guest.events import Event, Exit, Failed, Go, GuestConfig, Ready, Running, Salvaged, Saved
from coding_agents_guest.mux import Stream
from coding_agents_guest.records import replace
from coding_agents_guest.salvage import REFS
from support.agentrepo import AgentRepo, make_agent_repo
from support.engines import EngineUnderTest
from support.guestbox import (
    GUEST_DIGEST,
    GUEST_PROGRAM,
    Host,
    guest_volume,
    make_volumes,
    plan,
    restricted_session,
    send,
)
from support.product import wait_for

# What the agent may try against the first process, which has its uid. Prints what worked.
_HOSTILE = """
import ctypes, json, os, signal
worked = []
for name in ("SIGKILL", "SIGSTOP"):
    os.kill(1, getattr(signal, name))  # no error; the kernel ignores it
for file in ("mem", "environ", "fd/0", "cwd", "maps"):
    try:
        os.readlink("/proc/1/" + file) if file in ("fd/0", "cwd") else open("/proc/1/" + file, "rb").read(1)
        worked.append(file)
    except OSError:
        pass
if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0:
    worked.append("ptrace")
for path in ("/run/coding-agents/events.sock", "/run/coding-agents/relay.sock"):
    for act in (os.unlink, lambda path: os.rename(path, path + "2"), lambda path: os.chmod(path, 0)):
        try:
            act(path)
            worked.append(path)
        except OSError:
            pass
with open("/workspace/worked.json", "w") as file:
    json.dump(worked, file)
"""
_AGENT = f"""
cat > /tmp/hostile.py <<'END'
{_HOSTILE}
END
python3 /tmp/hostile.py
mkdir shut; echo x > shut/x; echo x > unreadable; chmod 0 shut unreadable
(setsid sh -c 'while :; do date +%N > /workspace/alive; done' &)
git commit --quiet --allow-empty --message 'The agent was here'
git push --quiet
git fetch --quiet local
exit 9
"""


@pytest.fixture(scope="module")
def volume(engine: EngineUnderTest) -> str:
    return guest_volume(engine)


@pytest.fixture
def repo(tmp_path: Path) -> AgentRepo:
    return make_agent_repo(tmp_path / "r")


def fill(engine: EngineUnderTest, container: str, work: Path) -> None:
    """Copy a work tree into the workspace, owned by the agent."""
    target = io.BytesIO()

    def own(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 1000
        return entry

    with tarfile.open(fileobj=target, mode="w") as archive:
        archive.add(work, arcname=".", filter=own)
    engine.api.copy_in(container, WORKSPACE, lambda out: out.write(target.getvalue()) and None)


@contextmanager
def waiting_container(engine: EngineUnderTest, volume: str, repo: AgentRepo) -> Iterator[str]:
    """An agent's container, filled and started, its entry point at the gate."""
    _, session = restricted_session(engine, volume)
    container = engine.api.create(session.sandbox)
    try:
        fill(engine, container, repo.work)
        engine.api.start(container)
        yield container
    finally:
        engine.api.remove(container, force=True)


def bridge(engine: EngineUnderTest, container: str) -> Command:
    return engine.api.exec_command(
        container, guest_argv(GUEST_DIGEST, "bridge"), user=BRIDGE_USER, interactive=True
    )


def live(command: Command, relay: Path, config: GuestConfig, *, last: type[Event]) -> list[Event]:
    """Open the channel by `command`, open the gate, and take events until `last` or a failure."""

    async def run() -> list[Event]:
        ended = asyncio.Event()

        async def on_event(event: Event, stream: Stream) -> None:
            if isinstance(event, Ready):
                await send(stream, Go(config))
            elif isinstance(event, (last, Failed)):
                ended.set()

        host = Host(relay, config, on_event)
        channel = await open_channel(command, on_stream=host.serve)
        try:
            await asyncio.wait_for(ended.wait(), 100)
        finally:
            await channel.close()
        return host.events

    return asyncio.run(run())


def test_a_hostile_agent_can_not_keep_its_work_from_being_saved(
    engine: EngineUnderTest, volume: str, repo: AgentRepo
) -> None:
    repo.write("mine.txt", "not committed by the user\n")
    config = replace(repo.config, command=("sh", "-c", _AGENT), deny=("*.pem",))
    with waiting_container(engine, volume, repo) as container:
        events = live(bridge(engine, container), repo.relay, config, last=Exit)
        end = time.monotonic() + 20
        while (state := engine.api.inspect(container)) is not None and state.running:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert state is not None
        logs = engine.api.logs(container).decode()

    assert events[-1] == Exit(9), (events, logs)
    assert state.exit_code == 9
    (report,) = (event for event in events if isinstance(event, Saved))
    assert (report.head, report.pushed, report.committed) == (repo.tip(), True, True)
    assert report.left_out == ("shut/", "unreadable")
    assert set(repo.files(report.head)) >= {"mine.txt", "alive", "README", "worked.json"}
    assert json.loads(repo.in_relay("show", f"{report.head}:worked.json")) == []
    subjects = repo.in_relay("log", "--format=%s", report.head).splitlines()
    assert subjects[1:] == ["The agent was here", "Change README"]


def test_stop_saves_within_its_budget(engine: EngineUnderTest, volume: str, repo: AgentRepo) -> None:
    config = replace(repo.config, command=("sh", "-c", "echo work > work.txt; exec sleep 600"))

    async def run(container: str) -> list[Event]:
        ended = asyncio.Event()

        async def on_event(event: Event, stream: Stream) -> None:
            if isinstance(event, Ready):
                await send(stream, Go(config))
            elif isinstance(event, Running):
                await asyncio.sleep(0.5)
                stopping.append(
                    asyncio.ensure_future(asyncio.to_thread(engine.api.stop, container, timeout_s=60))
                )
            elif isinstance(event, Exit):
                ended.set()

        stopping: list[asyncio.Future[None]] = []
        host = Host(repo.relay, config, on_event)
        channel = await open_channel(bridge(engine, container), on_stream=host.serve)
        try:
            await asyncio.wait_for(ended.wait(), 60)
            await stopping[0]
        finally:
            await channel.close()
        return host.events

    with waiting_container(engine, volume, repo) as container:
        events = asyncio.run(run(container))
    assert events[-2:] == [Saved(repo.tip(), pushed=True, committed=True), Exit(143)]
    assert "work.txt" in repo.files(repo.tip())


def test_the_container_waits_at_the_gate_and_nothing_of_the_agent_runs(
    engine: EngineUnderTest, volume: str, repo: AgentRepo
) -> None:
    with waiting_container(engine, volume, repo) as container:
        time.sleep(1)
        listed = engine.api.exec(container, ("ps", "-e", "-o", "args="), user=AGENT_USER).text()
        shown = " ".join(guest_argv(GUEST_DIGEST, "entrypoint")).replace("\n", " ")
        assert [line for line in listed.splitlines() if not line.startswith("ps ")] == [shown]
        began = time.monotonic()
        engine.api.stop(container, timeout_s=30)
        assert time.monotonic() - began < 10


def await_end(engine: EngineUnderTest, container: str) -> None:
    def ended() -> bool:
        state = engine.api.inspect(container)
        return state is not None and not state.running

    wait_for(ended, "the end of the container")


def test_no_container_runs_a_program_that_is_not_ours(engine: EngineUnderTest) -> None:
    """One byte at the end: the zip file is still a good one."""
    facts = plan(engine, guest_volume(engine, GUEST_PROGRAM + b"\0"), network=Network.RESTRICTED)
    session = plan_session(facts)
    make_volumes(engine, session)
    for spec in (session.sandbox, plan_salvage(facts)):
        container = engine.api.create(spec)
        engine.api.start(container)
        await_end(engine, container)
        assert engine.api.logs(container).startswith(NOT_OURS.encode())
        state = engine.api.inspect(container)
        assert state is not None
        assert state.exit_code == 1
        engine.api.remove(container)


def test_the_bridge_is_the_program_that_was_meant(
    engine: EngineUnderTest, volume: str, repo: AgentRepo
) -> None:
    with waiting_container(engine, volume, repo) as container:
        meant = engine.api.exec(container, guest_argv(GUEST_DIGEST, "version"), user=BRIDGE_USER)
        other = engine.api.exec(container, guest_argv("0" * 64, "version"), user=BRIDGE_USER)
    assert meant.text().strip() == __version__
    assert not other.ok
    assert other.stdout == b""
    assert NOT_OURS.encode() in other.stderr


def test_salvage_after_a_kill_brings_back_what_was_never_committed(
    engine: EngineUnderTest, volume: str, repo: AgentRepo
) -> None:
    facts, session = restricted_session(engine, volume)
    container = engine.api.create(session.sandbox)
    head = repo.commit("committed.txt")
    repo.write("never-committed.txt")
    repo.write("key.pem")
    fill(engine, container, repo.work)
    engine.api.remove(container, force=True)

    helper = engine.api.create(plan_salvage(facts))
    try:
        config = replace(repo.config, deny=("*.pem",))
        events = live(engine.api.start_attached_command(helper), repo.relay, config, last=Salvaged)
    finally:
        engine.api.remove(helper, force=True)

    worktree = repo.in_relay("rev-parse", f"{REFS}/worktree")
    assert events == [Ready(), Salvaged(head, worktree, clean=False, left_out=("key.pem",))]
    assert repo.in_relay("rev-parse", f"{REFS}/head", f"{worktree}^").splitlines() == [head, head]
    assert repo.files(worktree) == [".gitignore", "README", "committed.txt", "never-committed.txt"]
