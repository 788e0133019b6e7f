"""Credentials the whole way: git as it runs inside, its helper, the bridge, the host's git, and a forge that asks."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from coding_agents.audit.log import open_log
from coding_agents.channel.exec_channel import open_channel
from coding_agents.model.audit import decode_record
from coding_agents.model.release import Given
from coding_agents.supervisor import credential_access
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.credential_access import CredentialAccess
from coding_agents.supervisor.credentials_kept import write_given
from coding_agents.supervisor.journal import Journal
from coding_agents_guest.mux import Stream
from support.fake_engine import FakeEngine
from support.forge import READ, forge_server, user_env
from support.forge_tricks import redirect
from support.guest import bridge_command, guest_program, short_directory
from support.logins import put
from support.repos import git_env, make_repo, sh, sh_fails
from support.supervised import make_session

_HELPER = "import sys; sys.path.insert(0, {!r}); from coding_agents_guest.credential_client import main; "
_HELPER += "sys.exit(main(sys.argv[1:], {!r}))"


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SessionContext:
    (tmp_path / "engine").mkdir()
    monkeypatch.setattr(credential_access, "GUEST_UID", os.geteuid())
    return make_session(tmp_path, FakeEngine(tmp_path / "engine"))


def test_one_repository_is_opened_and_neither_its_sibling_nor_where_it_redirects(
    session: SessionContext, tmp_path: Path
) -> None:
    repo = make_repo(tmp_path / "repo", env=git_env(tmp_path / "author"))
    with forge_server(tmp_path / "forge") as forge, short_directory() as short:
        for name in ("team/app", "team/other"):
            forge.host(name, source=repo)
        ada = forge.account("ada", team__app=READ, team__other=READ)
        forge.trust(session.env.home, ada)
        forge.trust(
            session.env.home, ada, host="evil.localhost"
        )  # the user's git would answer for all of them
        place = f"https://localhost:{forge.port}/team/app"
        put(
            session.env.home,
            ".config/coding-agents/config.toml",
            f'[credentials]\nrelease = ["{place}"]\n'.encode(),
        )
        write_given(session.directory, Given(release=(place,)))

        program = guest_program(tmp_path)
        inside = tmp_path / "inside"
        forge.trust(inside)
        helper = put(
            inside, "helper", _HELPER.format(str(program), str(short / "s/credential.sock")).encode()
        )
        with (inside / ".gitconfig").open("a") as config:
            config.write(f'[credential]\n\thelper = "!{sys.executable} -IS {helper}"\n\tuseHttpPath = true\n')
        env = user_env(inside)

        def test() -> None:
            assert "refs/heads/main" in sh(tmp_path, "ls-remote", forge.url("team/app"), env=env)
            assert forge.secrets_seen() == {ada.token}
            forge.asked.clear()
            for url in (
                forge.url("team/other"),
                forge.url("team/app", host="evil.localhost"),
                forge.url("team/app/../other"),
                f"https://localhost:{forge.port}/team/app.git%2f..%2fother.git",
                f"https://localhost:{forge.port}/team/%61pp.git/../other.git",
            ):
                assert "no credential: " in sh_fails(tmp_path, "ls-remote", url, env=env)
            forge.tricks["team/app"] = redirect(forge.url("team/other", host="evil.localhost"))
            assert "no credential: " in sh_fails(tmp_path, "ls-remote", forge.url("team/app"), env=env)
            assert forge.asked
            assert forge.secrets_seen() == set()

        async def served() -> None:
            access = CredentialAccess(session, Journal(log))

            async def on_stream(stream: Stream) -> None:
                await access.serve(stream)

            sockets = short / "s"
            sockets.mkdir()
            sockets.chmod(0o1777)
            command = bridge_command(program, sockets, "--credential")
            channel = await open_channel(command, on_stream=on_stream)
            try:
                async with asyncio.timeout(60):
                    await asyncio.to_thread(test)
            finally:
                await channel.close()

        with open_log(session.audit_path, session=session.record.id, time_ms=0) as log:
            asyncio.run(served())
        content = session.audit_path.read_bytes()
        assert ada.token.encode() not in content
        kept = [decode_record(line) for line in content.splitlines()]
        assert [one.outcome for one in kept] == ["allowed", *["denied"] * 6]
