"""Servers that hold a secret, without a container: the guest's parent of one as user 1001, and the host's end of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from coding_agents.audit.log import open_log
from coding_agents.brokers.mcp.stdio import (
    BrokenOffError,
    NotStartedError,
    SecretBackError,
    StdioLimits,
    StdioRun,
    start_server,
)
from coding_agents.errors import AuditError
from coding_agents.mcp.apart import ApartServer, write_given
from coding_agents.mcp.pin import Pinned
from coding_agents.mcp.trust import TrustStore
from coding_agents.model.audit import decode_record
from coding_agents.model.mcp import McpServer
from coding_agents.proc.runner import Command
from coding_agents.supervisor import mcp_access
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.mcp_access import McpAccess
from coding_agents_guest.mcp_server import in_reach
from coding_agents_guest.mux import Stream
from support.fake_engine import FakeEngine
from support.guest import ENV, guest_program, mux_pair
from support.logins import put
from support.product import wait_for
from support.supervised import make_session

SECRET = "s3cr3t-0123456789"
AS_SERVER = (
    "setpriv", "--reuid=1001", "--regid=1001", "--clear-groups", "--no-new-privs", "--bounding-set=-all",
    "--inh-caps=-all", "--",
)  # fmt: skip
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
Talk = Callable[[Stream, StdioRun], Awaitable[None]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = Path(f"/tmp/ca-mcp-{os.getpid()}")  # user 1001 must reach it
    directory.mkdir(mode=0o755)
    yield guest_program(directory)
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()


def command(program: Path, *prefix: str) -> Command:
    return Command(
        (*prefix, "/usr/bin/python3", "-IS", str(program), "mcp-server"), env={**ENV, "LEFT": "over"}
    )


@asynccontextmanager
async def running(
    program: Path,
    code: str,
    *,
    limits: StdioLimits | None = None,
    prefix: tuple[str, ...] = AS_SERVER,
    **env: str,
) -> AsyncIterator[StdioRun]:
    run = await start_server(command(program, *prefix), (SECRET,), limits or StdioLimits())
    try:
        await run.order(("python3", "-Ic", code), {"TOKEN": SECRET, **env}, "")
        yield run
    finally:
        await run.close()


async def carried(run: StdioRun, talk: Callable[[Stream], Awaitable[Any]]) -> Any:
    """`talk` as the guest with a running server; what it returns, or the error with which the run ended."""
    failed: list[Exception] = []

    async def serve(stream: Stream) -> None:
        try:
            await run.carry(stream)
        except BrokenOffError as error:
            failed.append(error)

    async with asyncio.timeout(40), mux_pair(on_host_open=serve) as (guest, _):
        told = await talk(guest.open("mcp", 1000))
        await asyncio.sleep(0)
        return failed[0] if failed else told


async def read_all(stream: Stream) -> bytes:
    data = b""
    try:
        while piece := await stream.read():
            data += piece
    except ConnectionResetError:
        pass
    return data


def processes(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def home_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/cwd").readlink()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


TELL = """
import json, os
from pathlib import Path
status = Path("/proc/self/status").read_text()
fields = {line.split(":")[0]: line.split(":")[1].split() for line in status.splitlines()}
home = os.stat(os.environ["HOME"])
print(json.dumps({"env": dict(os.environ), "cwd": os.getcwd(), "mode": oct(home.st_mode), "owner": home.st_uid,
                  "umask": oct(os.umask(0)), "fds": sorted(os.listdir("/proc/self/fd"))[:3],
                  "groups": os.getgroups(), **{key: fields[key] for key in ("Uid", "CapEff", "NoNewPrivs")}}))
"""


@needs_root
def test_a_server_has_a_home_and_an_environment_of_its_own(program: Path) -> None:
    async def test() -> dict[str, Any]:
        async with running(program, TELL.replace("dict(os.environ)", "sorted(os.environ)")) as run:
            return dict(json.loads(await carried(run, read_all)))

    told = asyncio.run(test())
    assert told["env"] == ["GIT_CONFIG_NOSYSTEM", "HOME", "LANG", "PATH", "SHELL", "TMPDIR", "TOKEN", "USER"]
    assert (told["mode"], told["owner"], told["umask"]) == ("0o40700", 1001, "0o77")
    assert told["cwd"].startswith("/tmp/mcp-")
    assert not Path(told["cwd"]).exists()
    assert (told["Uid"], told["CapEff"], told["NoNewPrivs"]) == (["1001"] * 4, ["0" * 16], ["1"])
    assert told["groups"] == []


@needs_root
@pytest.mark.parametrize(
    "left_out", ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--reuid=1001"]
)
def test_without_any_of_its_walls_nothing_is_started(program: Path, left_out: str) -> None:
    instead = ("--groups=1000",) if left_out == "--clear-groups" else ()
    prefix = (*AS_SERVER[:1], *instead, *(word for word in AS_SERVER[1:] if word != left_out))

    async def test() -> None:
        async with running(program, "print('runs')", prefix=prefix):
            pass

    with pytest.raises(NotStartedError, match="more than it must have") as caught:
        asyncio.run(test())
    assert SECRET not in str(caught.value)


@needs_root
@pytest.mark.parametrize(
    ("argv", "env", "reason"),
    [
        (("no-such-program",), {}, "no program of the image"),
        (("{open}",), {}, "can be changed by the agent"),
        (("python3", "{open}"), {}, "can be changed by the agent"),
        (("python3", "--x={open}"), {}, "can be changed by the agent"),
        (("python3",), {"PYTHONPATH": "/usr/lib:{open}"}, "can be changed by the agent"),
    ],
)
def test_what_the_agent_can_change_is_not_started(
    program: Path, argv: tuple[str, ...], env: dict[str, str], reason: str
) -> None:
    theirs = program.with_name("theirs")
    theirs.write_text("#!/bin/sh\ntouch /tmp/pwned\n")
    theirs.chmod(0o755)
    os.chown(theirs, 1000, 1000)

    async def test() -> None:
        run = await start_server(command(program, *AS_SERVER), (), StdioLimits())
        try:
            words = tuple(word.format(open=theirs) for word in argv)
            await run.order(words, {name: value.format(open=theirs) for name, value in env.items()}, "")
        finally:
            await run.close()

    with pytest.raises(NotStartedError, match=reason):
        asyncio.run(test())


@needs_root
def test_what_is_in_reach(tmp_path: Path) -> None:
    assert in_reach("/usr/bin/env") == in_reach("/dev/null") == in_reach("/nowhere/at/all") == ""
    assert in_reach("/tmp/..") == "/tmp"
    place = Path(f"/opt/ca-test-{os.getpid()}")
    place.mkdir(mode=0o755)
    try:
        file = place / "file"
        file.write_text("x")
        assert in_reach(str(file)) == ""
        file.chmod(0o646)
        assert in_reach(str(file)) == str(file)
        file.chmod(0o664)
        assert in_reach(str(file)) == ""
        os.chown(file, 0, 1000)
        assert in_reach(str(file)) == str(file)
        file.unlink()
        (tmp_path / "target").write_text("x")
        os.chown(tmp_path / "target", 1000, 1000)
        file.symlink_to(tmp_path / "target")
        assert in_reach(str(file)) == os.path.realpath(tmp_path / "target")
    finally:
        file.unlink()
        place.rmdir()


SPLIT = """
import os, sys, time
token = os.environ["TOKEN"]
sys.stdout.write("before " + token[:9]); sys.stdout.flush(); time.sleep(0.3)
print(token[9:], "after", flush=True); time.sleep(60)
"""


@needs_root
@pytest.mark.parametrize("secret", [SECRET, 'a "quoted" \\ secret é', "at the end: "])
def test_a_server_that_sends_its_secret_is_ended(program: Path, secret: str) -> None:
    """Also when it comes in pieces, and as JSON writes it."""
    code = (
        SPLIT if secret == SECRET else "import os, json; print(json.dumps({'x': 'y' + os.environ['TOKEN']}))"
    )

    async def test() -> tuple[Any, bytes]:
        run = await start_server(command(program, *AS_SERVER), (secret,), StdioLimits())
        got = bytearray()

        async def talk(stream: Stream) -> None:
            got.extend(await read_all(stream))

        try:
            await run.order(("python3", "-Ic", code), {"TOKEN": secret}, "")
            return await carried(run, talk), bytes(got)
        finally:
            await run.close()

    ended, got = asyncio.run(test())
    assert isinstance(ended, SecretBackError)
    assert secret[:9].encode() not in got
    assert b"after" not in got


@needs_root
def test_the_end_of_its_input_ends_it_with_all_it_started(program: Path) -> None:
    mark = f"mark-{os.getpid()}"
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"subprocess.Popen(['python3', '-c', 'import time; time.sleep(600)', '{mark}'], start_new_session=True);"
        "print('up', flush=True); time.sleep(600)"
    )

    async def test() -> None:
        async with running(program, code) as run:

            async def talk(stream: Stream) -> None:
                assert await stream.read() == b"up\n"
                wait_for(lambda: len(processes(mark)) == 2, "both to have their words")
                stream.write_eof()
                await read_all(stream)

            await carried(run, talk)

    began = time.monotonic()
    asyncio.run(test())
    assert time.monotonic() - began < 30  # it was told to, then killed
    assert processes(mark) == []


@needs_root
def test_its_parent_takes_it_along(program: Path) -> None:
    mark = f"orphan-{os.getpid()}"

    async def test() -> None:
        async with running(
            program, f"print('up', flush=True); import time; time.sleep(600)  # {mark}"
        ) as run:

            async def talk(stream: Stream) -> None:
                assert await stream.read() == b"up\n"
                (server,) = wait_for(lambda: processes(mark), "the server to have its words")
                homes.append(home_of(server))
                os.kill(parent_of(server), signal.SIGKILL)
                await read_all(stream)

            await carried(run, talk)

    homes: list[Path] = []
    asyncio.run(test())
    assert wait_for(lambda: processes(mark) == [], "the server to end")
    (home,) = homes  # in a container it goes with the session
    assert home.name.startswith("mcp-")
    home.rmdir()


@needs_root
def test_a_side_that_does_not_read_stops_the_other(program: Path) -> None:
    """Nothing piles up: neither what the agent sends to a deaf server, nor what a server sends to a deaf agent."""

    async def deaf_server() -> int:
        async with running(program, "import time; time.sleep(600)") as run:

            async def talk(stream: Stream) -> int:
                async def flood() -> None:
                    while True:
                        await stream.write(b"x" * 65536)

                flooding = asyncio.ensure_future(flood())
                await asyncio.wait((flooding,), timeout=1)
                flooding.cancel()
                stream.reset("gone")
                return run.received

            return int(await carried(run, talk))

    async def deaf_agent() -> int:
        async with running(program, "while True: print('x' * 65536)") as run:

            async def talk(stream: Stream) -> int:
                await asyncio.sleep(1)
                sent = run.sent
                stream.reset("gone")
                return sent

            return int(await carried(run, talk))

    assert 0 < asyncio.run(deaf_server()) < 2 << 20
    assert 0 < asyncio.run(deaf_agent()) < 2 << 20


@needs_root
@pytest.mark.parametrize(("limits", "which"), [({"in_bytes": 9}, "agent"), ({"out_bytes": 9}, "server")])
def test_beyond_its_bytes_it_is_ended(program: Path, limits: dict[str, int], which: str) -> None:
    async def test() -> Any:
        async with running(program, "print(input(), flush=True)", limits=StdioLimits(**limits)) as run:

            async def talk(stream: Stream) -> None:
                await stream.write(b"0123456789\n")
                await read_all(stream)

            return await carried(run, talk)

    assert f"the {which} sent more than 9 bytes" in str(asyncio.run(test()))


# --- who is let in ------------------------------------------------------------------------------------------


class Box(FakeEngine):
    """An engine whose container is this host, with the guest's real program in it."""

    program = Path()
    execs = 0

    def exec_command(self, container: str, argv: Any, **options: Any) -> Command:
        self.execs += 1
        assert options["user"] == "1001:1001"
        assert SECRET not in repr((argv, options))
        return command(self.program, *AS_SERVER)


@pytest.fixture
def box(tmp_path: Path, program: Path) -> Box:
    made = Box(tmp_path / "engine")
    made.directory.mkdir()
    made.program = program
    return made


@pytest.fixture
def session(tmp_path: Path, box: Box) -> SessionContext:
    """A session that was given the trusted server `probe` with the secret TOKEN."""
    made = make_session(tmp_path, box)
    code = "import os; print(len(os.environ['TOKEN']), input(), flush=True)"
    server = McpServer(name="probe", command="python3", args=("-Ic", code), env={"TOKEN": "${TOKEN}"})
    trusted = TrustStore(made.env.data_dir, made.record.repo.repo_id).save(
        "r", "f", server, Pinned(), now_ms=1
    )
    write_given(
        made.directory, {"probe": ApartServer(digest=trusted.digest, server=server, needs=("TOKEN",))}
    )
    put(made.env.home, ".config/coding-agents/mcp-secrets.env", f"TOKEN={SECRET}\n".encode())
    return made


def asked(session: SessionContext, *lines: bytes, uid: int = 1000) -> list[bytes]:
    """What the guest gets for each first line, with a word for the server behind it."""

    async def ask(line: bytes) -> bytes:
        async with mux_pair(on_host_open=access.serve) as (guest, host):
            stream = guest.open("mcp", uid)
            await stream.write(line + b"hello\n")
            stream.write_eof()
            told = await read_all(stream)
            await asyncio.gather(*host._servings)  # its end is recorded when nobody waits any more
            return told

    async def test() -> list[bytes]:
        async with asyncio.timeout(60):
            return [await ask(line) for line in lines]

    with open_log(session.audit_path, session=session.record.id, time_ms=0) as log:
        access = McpAccess(session, Journal(log))
        return asyncio.run(test())


def recorded(session: SessionContext) -> list[tuple[str, str, str]]:
    records = map(decode_record, session.audit_path.read_bytes().splitlines())
    assert SECRET.encode() not in session.audit_path.read_bytes()
    return [(one.type.value, one.outcome, one.rule) for one in records]


@needs_root
def test_a_trusted_server_is_recorded_then_started(session: SessionContext) -> None:
    assert asked(session, b"probe\n") == [f"started\n{len(SECRET)} hello\n".encode()]
    assert recorded(session) == [
        ("mcp-server-started", "allowed", "mcp-server"), ("mcp-server-ended", "allowed", ""),
    ]  # fmt: skip


def test_what_the_session_was_not_given_is_not_started(session: SessionContext, box: Box) -> None:
    lines = (b"other\n", b"../probe\n", b"\n", b"x" * 100_000, b"\xff\n", b"PROBE\n", b"")
    answers = asked(session, *lines)
    assert not [answer for answer in answers if answer.startswith(b"started")]
    assert asked(session, b"probe\n", uid=1001) == asked(session, b"probe\n", uid=2**32 - 1) == [b""]
    assert box.execs == 0
    assert {(kind, outcome) for kind, outcome, _ in recorded(session)} == {("mcp-server-refused", "denied")}


@pytest.mark.parametrize("how", ["untrusted", "changed", "forgotten", "unset", "no list"])
def test_what_changed_since_the_session_began_is_not_started(
    session: SessionContext, box: Box, how: str
) -> None:
    store = TrustStore(session.env.data_dir, session.record.repo.repo_id)
    record = store.load("probe")
    assert record is not None
    if how == "untrusted":
        store.remove("probe")
    elif how == "changed":
        other = McpServer(name="probe", command="sh", env={"TOKEN": "${TOKEN}"})
        store.save("r", "f", other, Pinned(), now_ms=2)
    elif how == "forgotten":
        write_given(session.directory, {})
    elif how == "unset":
        put(session.env.home, ".config/coding-agents/mcp-secrets.env", b"")
    else:
        (session.directory / "mcp.json").write_text("{")
    (answer,) = asked(session, b"probe\n")
    assert answer
    assert not answer.startswith(b"started")
    assert (box.execs, [outcome for _, outcome, _ in recorded(session)]) == (0, ["denied"])


def test_what_cannot_be_recorded_is_not_started(
    session: SessionContext, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise AuditError("no space left on device")

    monkeypatch.setattr(Journal, "broker", full)
    assert asked(session, b"probe\n") == [b"no space left on device\n"]
    assert box.execs == 0


def test_starts_have_turns(session: SessionContext, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_access, "_BURST", 2)
    monkeypatch.setattr(mcp_access, "_PATIENCE_S", 0.0)
    answers = asked(session, *([b"other\n"] * 4))
    assert [b"too often" in answer for answer in answers] == [False, False, True, True]


@needs_root
def test_what_is_mounted_read_only_is_out_of_reach_whoever_owns_it() -> None:
    place = Path(f"/opt/ca-mounted-{os.getpid()}")
    place.mkdir(mode=0o755)
    try:
        subprocess.run(("mount", "-t", "tmpfs", "-o", "mode=755,uid=1000", "none", place), check=True)
        try:
            file = place / "file"
            file.write_text("x")
            assert in_reach(str(file)) == str(place)
            subprocess.run(("mount", "-o", "remount,ro", place), check=True)
            assert in_reach(str(file)) == ""
        finally:
            subprocess.run(("umount", place), check=True)
    finally:
        place.rmdir()
