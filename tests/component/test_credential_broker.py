"""Credentials for git inside: a hostile guest on one side, the host's real git and helpers on the other."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from coding_agents.audit.log import open_log
from coding_agents.errors import AuditError
from coding_agents.model.audit import AuditRecord, decode_record
from coding_agents.model.release import Given
from coding_agents.supervisor import credential_access
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.credential_access import CredentialAccess
from coding_agents.supervisor.credentials_kept import session_token, write_given
from coding_agents.supervisor.journal import Journal
from support.fake_engine import FakeEngine
from support.forge import READ, forge_server
from support.guest import ENV, guest_program, mux_pair, short_directory
from support.logins import put
from support.supervised import make_session

TOKEN = "ghx_0123456789abcdef"
PLACE = "https://git.example/team/one"
ASK = b"protocol=https\nhost=git.example\npath=team/one.git\n\n"


@pytest.fixture
def session(tmp_path: Path) -> SessionContext:
    """A session that was given one place, of which the host's git knows a token."""
    (tmp_path / "engine").mkdir()
    made = make_session(tmp_path, FakeEngine(tmp_path / "engine"))
    give(made, PLACE)
    put(made.env.home, ".git-credentials", f"https://me:{TOKEN}@git.example\n".encode())
    helper(made, f"store --file={made.env.home}/.git-credentials")
    return made


def give(session: SessionContext, *release: str, now: tuple[str, ...] | None = None) -> None:
    listed = ", ".join(f'"{one}"' for one in (release if now is None else now))
    put(
        session.env.home,
        ".config/coding-agents/config.toml",
        f"[credentials]\nrelease = [{listed}]\n".encode(),
    )
    write_given(session.directory, Given(release=release))


def helper(session: SessionContext, value: str) -> None:
    put(session.env.home, ".gitconfig", f'[credential]\n\thelper = "{value}"\n'.encode())


def script(session: SessionContext, text: str) -> None:
    path = session.env.home / "helper"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    helper(session, str(path))


def answers(
    session: SessionContext, *requests: bytes, uid: int = 1000, journal: Journal | None = None
) -> list[bytes]:
    """What the guest gets for each request, one connection each."""

    async def one(access: CredentialAccess, request: bytes) -> bytes:
        async with asyncio.timeout(30), mux_pair(on_host_open=access.serve) as (guest, _):
            stream = guest.open("credential", uid)
            found = b""
            try:
                await stream.write(request)
                stream.write_eof()
                while data := await stream.read():
                    found += data
            except ConnectionResetError:
                return b"reset"
            return found

    async def test() -> list[bytes]:
        access = CredentialAccess(session, journal or Journal(log))
        return [await one(access, request) for request in requests]

    with open_log(session.audit_path, session=session.record.id, time_ms=0) as log:
        return asyncio.run(test())


def records(session: SessionContext) -> list[AuditRecord]:
    content = session.audit_path.read_bytes()
    assert TOKEN.encode() not in content
    return [decode_record(line) for line in content.splitlines()]


def test_a_named_place_is_answered_by_the_hosts_git_and_recorded(session: SessionContext) -> None:
    assert answers(session, ASK) == [f"credential\nusername=me\npassword={TOKEN}\n".encode()]
    (record,) = records(session)
    assert (record.type, record.outcome, record.tier) == ("credential-released", "allowed", 3)
    assert record.subject == "https://git.example/team/one.git"
    assert record.detail == {"account": "me", "entry": PLACE}


@pytest.mark.parametrize(
    "place",
    ["git.example team/one-two", "git.example team", "git.example Team/one", "evil.example team/one",
     "git.example.evil.example team/one", "git.example:8443 team/one", "git.example other/team/one"],
)  # fmt: skip
def test_a_sibling_and_another_host_get_nothing(session: SessionContext, place: str) -> None:
    put(
        session.env.home,
        ".git-credentials",
        b"".join(
            f"https://me:{TOKEN}@{one}\n".encode()
            for one in ("git.example", "evil.example", "git.example%3a8443")
        ),
    )
    host, _, path = place.partition(" ")
    (answer,) = answers(session, f"protocol=https\nhost={host}\npath={path}\n".encode())
    assert answer == b"this place is not in the user's setting credentials.release\n"
    (record,) = records(session)
    assert (record.type, record.outcome, record.rule, record.tier) == (
        "credential-refused", "denied", "credential-release", 3,
    )  # fmt: skip


def test_what_is_taken_back_is_gone_at_once_and_what_is_new_waits_for_a_start(
    session: SessionContext,
) -> None:
    give(session, PLACE, now=())
    assert TOKEN.encode() not in answers(session, ASK)[0]
    give(session, now=(PLACE,))
    assert TOKEN.encode() not in answers(session, ASK)[0]


def test_a_malformed_request_is_refused_and_recorded_without_its_words(session: SessionContext) -> None:
    bad = b"protocol=https\nhost=git.example\npath=team/one\nhost=evil\x1b[2J.example\n"
    assert answers(session, bad)[0].startswith(b"a value is told twice")
    (record,) = records(session)
    assert (record.rule, record.subject) == ("credential-malformed", "")
    assert b"evil" not in session.audit_path.read_bytes()


def test_only_the_agent_may_ask(session: SessionContext) -> None:
    assert answers(session, ASK, uid=1001) == [b"reset"]


def test_requests_have_turns(session: SessionContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_access, "_BURST", 2)
    found = answers(session, ASK, ASK, ASK)
    assert [b"password" in one for one in found] == [True, True, False]
    assert found[2].startswith(b"credentials are asked for too often")


def test_a_helper_that_hangs_holds_up_few_requests(
    session: SessionContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credential_access, "_WAITING", 2)
    monkeypatch.setattr(
        "coding_agents.credentials.git.git_credential.__kwdefaults__", {"user": "", "timeout_s": 0.5}
    )
    script(session, "sleep 60")

    async def ask(access: CredentialAccess) -> bytes:
        async with mux_pair(on_host_open=access.serve) as (guest, _):
            stream = guest.open("credential", 1000)
            await stream.write(ASK)
            stream.write_eof()
            return await stream.read()

    async def test() -> list[bytes]:
        access = CredentialAccess(session, Journal(log))
        async with asyncio.timeout(30):
            return await asyncio.gather(*(ask(access) for _ in range(4)))

    with open_log(session.audit_path, session=session.record.id, time_ms=0) as log:
        found = asyncio.run(test())
    assert sorted(one.startswith(b"the host is still asking") for one in found) == [False, False, True, True]


def test_nothing_is_released_that_cannot_be_recorded(session: SessionContext) -> None:
    class Full(Journal):
        async def broker(self, event: object) -> None:
            raise AuditError("the disk is full", hint="Make room.")

    with open_log(session.audit_path, session=session.record.id, time_ms=0) as log:
        journal = Full(log)
    assert answers(session, ASK, journal=journal) == [b"the disk is full\n"]


BAD_HELPERS = {
    "hangs": ("sleep 60", b"no whole answer"),
    "asks": ("read word < /dev/tty; echo password=$word", b"no credential for"),
    "says nothing": ("exit 0", b"no credential for"),
    "fails": (f"echo {TOKEN} >&2; exit 3", b"no credential for"),
    "garbage": ("head -c 4096 /dev/urandom", b""),
    "never ends": ("yes username=me", b"no whole answer"),
    "another place": (f"echo host=evil.example; echo username=me; echo password={TOKEN}", b"another place"),
    "refuses": ("echo quit=1", b"no credential for"),
    "an escape": (f"printf 'username=me\\npassword={TOKEN}\\033[2J\\n'", b"no line can carry"),
}


@pytest.mark.parametrize("kind", BAD_HELPERS)
def test_a_bad_helper_of_the_host_ends_in_a_reason(
    session: SessionContext, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, reason = BAD_HELPERS[kind]
    monkeypatch.setattr(
        "coding_agents.credentials.git.git_credential.__kwdefaults__", {"user": "", "timeout_s": 1.0}
    )
    script(session, f"cat > /dev/null\n{text}")
    began = time.monotonic()
    (answer,) = answers(session, ASK)
    assert time.monotonic() - began < 8
    assert reason in answer
    assert TOKEN.encode() not in answer
    assert b"password=" not in answer
    assert [one.outcome for one in records(session)] == ["denied"]


def test_helpers_of_a_repository_have_no_say(session: SessionContext, tmp_path: Path) -> None:
    """Neither that of the session's repository, nor of one that the supervisor happens to stand in."""
    planted = tmp_path / "planted"
    for place in (Path(session.record.repo.work_tree), session.directory / "relay.git"):
        subprocess.run(
            (
                "git",
                "-C",
                str(place),
                "config",
                "credential.helper",
                f"!touch {planted}; echo password=x; echo username=x",
            ),
            check=True,
        )
    before = Path.cwd()
    os.chdir(session.record.repo.work_tree)
    try:
        assert answers(session, ASK) == [f"credential\nusername=me\npassword={TOKEN}\n".encode()]
    finally:
        os.chdir(before)
    assert not planted.exists()


def test_the_guest_does_not_choose_among_the_users_accounts(session: SessionContext) -> None:
    other = f"https://admin:{TOKEN}-admin@git.example\nhttps://me:{TOKEN}@git.example\n"
    put(session.env.home, ".git-credentials", other.encode())
    assert b"admin" in answers(session, ASK)[0]  # the first, by the user's own order
    assert b"password" not in answers(session, ASK.replace(b"\n\n", b"\nusername=me\n\n"))[0]
    give(session, PLACE.replace("://", "://me@"))
    assert answers(session, ASK) == [f"credential\nusername=me\npassword={TOKEN}\n".encode()]
    assert b"password" not in answers(session, ASK.replace(b"\n\n", b"\nusername=admin\n\n"))[0]


def test_the_sessions_own_origin_is_answered_with_a_token_that_opens_nothing(
    session: SessionContext, tmp_path: Path
) -> None:
    with forge_server(tmp_path / "forge") as forge:
        forge.host("team/app")
        forge.account("me", team__app=READ)
        url = f"https://localhost:{forge.port}/team/app.git"
        give(session)
        session.update(repo=session.record.repo.__class__(**{**_fields(session.record.repo), "url": url}))
        asked = f"protocol=https\nhost=localhost:{forge.port}\npath=".encode()
        own, sibling, below = answers(
            session, asked + b"team/app\n", asked + b"team/other\n", asked + b"team/app.git/info/lfs\n"
        )
        token = session_token(session.directory)
        assert own == f"credential\nusername=coding-agents\npassword={token}\n".encode()
        assert token.encode() not in sibling + below
        kept = records(session)
        assert kept[0].tier == 2
        assert kept[0].detail["sha256"] == hashlib.sha256(token.encode()).hexdigest()
        assert token.encode() not in session.audit_path.read_bytes()
        assert forge.admitted(_basic("coding-agents", token))[0] is None
    assert session_token(session.directory) == token
    assert (session.directory / "credential-token").stat().st_mode & 0o077 == 0


def _fields(struct: object) -> dict[str, object]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}  # type: ignore[attr-defined]


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("words", "said", "out", "status"),
    [
        (("get",), b"credential\nusername=me\npassword=x\n", b"username=me\npassword=x\n", 0),
        (("get",), b"not for you\nsecond line\n", b"", 0),
        (("get",), b"", b"", 0),
        (("store",), None, b"", 0),
        (("erase",), None, b"", 0),
        ((), None, b"", 2),
    ],
)
def test_the_guests_helper(
    tmp_path: Path, words: tuple[str, ...], said: bytes | None, out: bytes, status: int
) -> None:
    program = guest_program(tmp_path)
    got = []
    with short_directory() as short, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short / "s"))
        listener.listen()

        def host() -> None:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(1000):
                    got.append(data)
                connection.sendall(said or b"")

        thread = threading.Thread(target=host, daemon=True)
        if said is not None:
            thread.start()
        code = "import sys; sys.path.insert(0, sys.argv[1]); from coding_agents_guest.credential_client import main; "
        code += "sys.exit(main(sys.argv[3:], sys.argv[2]))"
        done = subprocess.run(
            (sys.executable, "-IS", "-c", code, str(program), str(short / "s"), *words),
            input=ASK, capture_output=True, env=ENV, timeout=20, check=False,
        )  # fmt: skip
        if said is not None:
            thread.join(5)
    assert (done.stdout, done.returncode) == (out, status)
    assert b"".join(got) == (ASK if said is not None else b"")
    assert b"Traceback" not in done.stderr
    if said and not out:
        assert done.stderr == b"coding-agents: no credential: not for you\n"


def test_the_guests_helper_says_when_nobody_is_there(tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); from coding_agents_guest.credential_client import main; "
    code += "sys.exit(main(['get'], '/nonexistent'))"
    done = subprocess.run(
        (sys.executable, "-IS", "-c", code, str(guest_program(tmp_path))),
        input=ASK, capture_output=True, env=ENV, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"the host is not reachable: No such file or directory" in done.stderr
