"""The user's ssh-agent through the host: a real agent, a real sshd, and clients that want more than they may have."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from coding_agents.audit.log import open_log
from coding_agents.brokers.sshagent.wire import FAILURE, SUCCESS, Bind, identities_message, packed
from coding_agents.channel.exec_channel import open_channel
from coding_agents.errors import AuditError
from coding_agents.model.audit import AuditRecord, decode_record
from coding_agents.model.release import Given
from coding_agents.supervisor import ssh_agent_access
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.credentials_kept import write_given
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.ssh_agent_access import SshAgentAccess
from support.fake_engine import FakeEngine
from support.guest import bridge_command, guest_program, short_directory
from support.host import host_environment
from support.keys import SshKey, ssh_agent, ssh_key
from support.logins import put
from support.repos import sh
from support.sshd import HOST, ssh_forge
from support.supervised import make_session

LIST, SIGN = b"\x0b", 13


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SessionContext:
    (tmp_path / "engine").mkdir()
    monkeypatch.setattr(ssh_agent_access, "GUEST_UID", os.geteuid())
    return make_session(tmp_path, FakeEngine(tmp_path / "engine"))


def give(session: SessionContext, agent: Path | str, key: SshKey, host_key: SshKey, host: str = HOST) -> None:
    """Let the session log in at `host` with a key of the agent; the user knows the host by its key."""
    entry = f"{key.fingerprint} {host}"
    write_given(session.directory, Given(ssh_agent=(entry,)))
    put(
        session.env.home,
        ".config/coding-agents/config.toml",
        f'[credentials]\nssh_agent = ["{entry}"]\n'.encode(),
    )
    put(session.env.home, ".ssh/known_hosts", f"{host} {host_key.public}\n".encode())
    session.env = host_environment(session.env.home, SSH_AUTH_SOCK=str(agent))


@asynccontextmanager
async def served(session: SessionContext, directory: Path, journal: Journal) -> AsyncIterator[Path]:
    """The socket that programs inside have, on this host."""
    with short_directory() as short:
        sockets = short / "s"
        sockets.mkdir()
        sockets.chmod(0o1777)
        access = SshAgentAccess(session, journal)
        command = bridge_command(guest_program(directory), sockets, "--ssh-agent")

        async def on_stream(stream: object) -> None:
            await access.serve(stream)  # type: ignore[arg-type]

        channel = await open_channel(command, on_stream=on_stream)
        try:
            yield sockets / "ssh-agent.sock"
        finally:
            await channel.close()


def inside(
    session: SessionContext, directory: Path, test: Callable[[Path], object], journal: Journal | None = None
) -> list[AuditRecord]:
    """Run `test` with the socket; what was recorded."""

    async def go() -> None:
        async with asyncio.timeout(60), served(session, directory, journal or Journal(log)) as path:
            result = await asyncio.to_thread(test, path)
            if isinstance(result, Awaitable):
                await result

    with open_log(session.audit_path, session=session.record.id, time_ms=0) as log:
        asyncio.run(go())
    return [decode_record(line) for line in session.audit_path.read_bytes().splitlines()]


def ask(link: socket.socket, message: bytes) -> bytes:
    link.sendall(packed(message))
    head = link.recv(4, socket.MSG_WAITALL)
    return link.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL) if len(head) == 4 else b""


def ends(link: socket.socket) -> bool:
    """Whether the connection is ended without an answer, be it before it was asked."""
    try:
        return ask(link, LIST) == b""
    except (BrokenPipeError, ConnectionResetError):
        return True


def connect(path: Path) -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(20)
    link.connect(str(path))
    return link


def blob(key: SshKey) -> bytes:
    return base64.b64decode(key.public.split()[1])


def signed_by(agent: Path, key: SshKey, data: bytes) -> bytes:
    """A signature by a key of the agent: a host's own, over what is said to be its session."""
    with connect(agent) as link:
        answer = ask(link, bytes([SIGN]) + packed(blob(key)) + packed(data) + b"\0\0\0\0")
    assert answer[:1] == b"\x0e"
    return answer[5:]


def login(session_id: bytes, key: SshKey) -> bytes:
    data = packed(session_id) + b"\x32" + packed(b"git") + packed(b"ssh-connection") + packed(b"publickey")
    data += b"\1" + packed(b"ssh-ed25519") + packed(blob(key))
    return bytes([SIGN]) + packed(blob(key)) + packed(data) + b"\0\0\0\0"


def test_git_over_ssh_works_without_a_key_inside(session: SessionContext, tmp_path: Path) -> None:
    root = tmp_path / "repos"
    plain = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    sh(tmp_path, "init", "--quiet", "--bare", str(root / "team/app.git"), env=plain)
    mine, other = ssh_key(tmp_path / "keys/mine"), ssh_key(tmp_path / "keys/other")
    with ssh_forge(tmp_path / "sshd", root) as server, ssh_agent(mine, other) as agent:
        server.allow("mine", mine, team__app="write")
        server.allow("other", other, team__app="write")
        give(session, agent, mine, server.host_key)

        def test(path: Path) -> None:
            config = server.client(tmp_path / "client", agent=path)
            env = {**plain, "GIT_SSH_COMMAND": f"ssh -F {config}"}
            sh(tmp_path, "ls-remote", server.url("team/app"), env=env)
            listed = subprocess.run(("ssh-add", "-l"), env={**env, "SSH_AUTH_SOCK": str(path)},
                                    capture_output=True, text=True, timeout=20, check=True)  # fmt: skip
            assert mine.fingerprint in listed.stdout
            assert other.fingerprint not in listed.stdout
            for words in (("ssh-add", "-D"), ("ssh-add", "-x"), ("ssh-add", str(other.path))):
                done = subprocess.run(words, env={**env, "SSH_AUTH_SOCK": str(path)}, input=b"a\na\n",
                                      capture_output=True, timeout=20, check=False)  # fmt: skip
                assert done.returncode != 0
            (tmp_path / "text").write_text("x")
            words = (
                "ssh-keygen",
                "-Y",
                "sign",
                "-n",
                "git",
                "-f",
                f"{mine.path}.pub",
                str(tmp_path / "text"),
            )
            done = subprocess.run(words, env={**env, "SSH_AUTH_SOCK": str(path)}, capture_output=True,
                                  timeout=20, check=False)  # fmt: skip
            assert done.returncode != 0, "a commit, or any text, was signed with the user's key"

        mine.path.rename(tmp_path / "gone")  # so that only an agent can sign
        found = inside(session, tmp_path, test)
        assert [line.split()[0] for line in server.asked] == ["mine"]
    signed = [one for one in found if one.type == "ssh-agent-signed"]
    assert [(one.tier, one.outcome, one.detail["key"]) for one in signed] == [
        (3, "allowed", mine.fingerprint)
    ]
    assert signed[0].subject.endswith(f"@{HOST}")
    assert {one.type for one in found} == {"ssh-agent-signed", "ssh-agent-refused"}


def test_a_login_elsewhere_is_not_signed(session: SessionContext, tmp_path: Path) -> None:
    """The guest is its own evil host: it has a session there, and the public key of the named host."""
    mine, evil, host = (ssh_key(tmp_path / f"keys/{name}") for name in ("mine", "evil", "host"))
    sid = b"s" * 32
    with ssh_agent(mine, evil, host) as agent:
        give(session, agent, mine, host)
        by_evil, by_host = signed_by(agent, evil, sid), signed_by(agent, host, sid)

        def test(path: Path) -> None:
            def refused(*binds: Bind, session_id: bytes = sid, key: SshKey = mine) -> None:
                with connect(path) as link:
                    for bind in binds:
                        ask(link, bind.message())
                    assert ask(link, login(session_id, key)) == FAILURE

            own = Bind(blob(evil), sid, by_evil, forwarding=False)
            forged = Bind(blob(host), sid, by_evil, forwarding=False)
            real = Bind(blob(host), sid, by_host, forwarding=False)
            refused()
            refused(own)
            refused(forged)
            refused(forged, own)
            refused(Bind(blob(host), sid, by_host, forwarding=True))
            refused(real, session_id=b"t" * 32)
            refused(real, key=evil)
            with connect(path) as link:
                assert ask(link, real.message()) == SUCCESS
                assert ask(link, login(sid, mine))[:1] == b"\x0e"

        found = inside(session, tmp_path, test)
    assert [one.type for one in found].count("ssh-agent-signed") == 1


@pytest.mark.parametrize("answer", [SUCCESS, b"\x0e" + packed(b"signature"), b"\0", b""])
def test_an_agent_that_checks_no_sessions_signs_nothing(
    session: SessionContext, tmp_path: Path, answer: bytes
) -> None:
    mine, host = ssh_key(tmp_path / "keys/mine"), ssh_key(tmp_path / "keys/host")
    with short_directory() as short, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short / "a"))
        listener.listen()
        give(session, short / "a", mine, host)

        async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while head := await reader.read(4):
                    message = await reader.readexactly(int.from_bytes(head, "big"))
                    listed = identities_message(((blob(mine), b"c"),))
                    writer.write(packed(listed if message == LIST else answer))
                    await writer.drain()
            except (OSError, EOFError):
                pass
            writer.close()

        async def go() -> None:
            server = await asyncio.start_unix_server(agent, sock=listener)
            async with server, asyncio.timeout(30), served(session, tmp_path, Journal(log)) as path:

                def test() -> None:
                    with connect(path) as link:
                        assert (
                            ask(link, Bind(blob(host), b"s" * 32, b"x" * 83, forwarding=False).message())
                            == FAILURE
                        )
                        assert ask(link, login(b"s" * 32, mine)) == FAILURE

                await asyncio.to_thread(test)

        with open_log(session.audit_path, session=session.record.id, time_ms=0) as log:
            asyncio.run(go())
    kept = [decode_record(line) for line in session.audit_path.read_bytes().splitlines()]
    assert {one.type for one in kept} == {"ssh-agent-refused"}


def test_a_lost_key_or_host_or_agent_is_a_failure_and_no_hang(
    session: SessionContext, tmp_path: Path
) -> None:
    mine, host = ssh_key(tmp_path / "keys/mine"), ssh_key(tmp_path / "keys/host")
    with ssh_agent(mine, host) as agent:
        give(session, agent, mine, host)
        bind = Bind(blob(host), b"s" * 32, signed_by(agent, host, b"s" * 32), forwarding=False)
        put(session.env.home, ".config/coding-agents/config.toml", b"[credentials]\nssh_agent = []\n")
        empty = identities_message(())

        def taken_back(path: Path) -> None:
            with connect(path) as link:
                assert ask(link, LIST) == empty
                assert ask(link, bind.message()) == FAILURE
                assert ask(link, login(b"s" * 32, mine)) == FAILURE

        inside(session, tmp_path, taken_back)
        give(session, agent, mine, host)

        def later(path: Path) -> None:
            with connect(path) as link:
                assert ask(link, bind.message()) == SUCCESS
                put(session.env.home, ".config/coding-agents/config.toml", b"")
                assert ask(link, login(b"s" * 32, mine)) == FAILURE

        inside(session, tmp_path, later)
        give(session, agent, mine, host)

        class Full(Journal):
            async def broker(self, event: object) -> None:
                raise AuditError("the disk is full", hint="Make room.")

        def full(path: Path) -> None:
            with connect(path) as link:
                assert ask(link, bind.message()) == SUCCESS
                assert ask(link, login(b"s" * 32, mine)) == FAILURE

        with open_log(session.audit_path, session=session.record.id, time_ms=0) as log:
            journal = Full(log)
        inside(session, tmp_path, full, journal)
    give(session, tmp_path / "gone", mine, host)

    def gone(path: Path) -> None:
        with connect(path) as link:
            assert ask(link, LIST) == FAILURE
        with connect(path) as link:
            link.sendall(b"\xff\xff\xff\xff")
            assert link.recv(10) == b""

    inside(session, tmp_path, gone)


def test_only_the_agent_reaches_it(
    session: SessionContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_agent_access, "GUEST_UID", os.geteuid() + 1)

    def test(path: Path) -> None:
        with connect(path) as link:
            assert ends(link)

    assert inside(session, tmp_path, test) == []


def test_a_flood_of_logins_messages_and_connections_ends(
    session: SessionContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_BURST", 2), ("_CONNECTIONS", 3), ("_MESSAGES", 4), ("_OPEN", 1)):
        monkeypatch.setattr(ssh_agent_access, name, value)
    mine, host = ssh_key(tmp_path / "keys/mine"), ssh_key(tmp_path / "keys/host")
    with ssh_agent(mine, host) as agent:
        give(session, agent, mine, host)
        bind = Bind(blob(host), b"s" * 32, signed_by(agent, host, b"s" * 32), forwarding=False)

        def test(path: Path) -> None:
            with connect(path) as link:
                assert ask(link, bind.message()) == SUCCESS
                assert [ask(link, login(b"s" * 32, mine))[:1] for _ in range(3)] == [
                    b"\x0e",
                    b"\x0e",
                    FAILURE,
                ]
                assert ask(link, LIST) == b""
            with connect(path) as first, connect(path) as second:
                assert ask(first, LIST)
                assert ends(second)  # too many at once
            with connect(path) as link:
                assert ends(link)  # too many in all

        found = inside(session, tmp_path, test)
    assert [one.type for one in found].count("ssh-agent-signed") == 2
