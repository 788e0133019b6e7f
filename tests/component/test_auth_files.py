"""Configurations that hold logins: only those that settings name, only one's own, and none without a record."""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path

import pytest
from msgspec.structs import replace

from coding_agents.app.credentials import SessionCredentials, renewed_files, session_credentials
from coding_agents.audit.log import open_log
from coding_agents.cli import connect, launch_view
from coding_agents.cli.context import AppContext
from coding_agents.cli.output import Output
from coding_agents.config.environ import HostEnvironment
from coding_agents.config.load import load_settings
from coding_agents.errors import AuditError, CredentialError, UntrustedSettingError
from coding_agents.gitsync.rules import load_policy
from coding_agents.model.audit import decode_record
from coding_agents.model.release import FILES, Given
from coding_agents.model.settings import Settings
from coding_agents.policy.matrix import Operation, Policy
from coding_agents.supervisor import auth_files
from coding_agents.supervisor.auth_files import record_auth_files
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.credential_settings import credential_settings
from coding_agents.supervisor.credentials_kept import read_given, write_given
from coding_agents.supervisor.guest_program import GuestProgram
from coding_agents.supervisor.journal import Journal
from coding_agents.workspace.tar import tar_of
from support.fake_engine import FakeEngine
from support.host import host_environment
from support.logins import put
from support.supervised import make_session

SECRET = b"s3cret-0123456789"
PLACES = {
    "claude": ".claude/.credentials.json", "codex": ".codex/auth.json", "gh": ".config/gh/hosts.yml",
    "git-credentials": ".git-credentials", "gitconfig": ".gitconfig",
    "github-copilot": ".config/github-copilot/apps.json",
    "mcp-secrets.env": ".config/coding-agents/mcp-secrets.env",
}  # fmt: skip


def settings(env: HostEnvironment, *names: str, more: str = "") -> Settings:
    listed = ", ".join(f'"{name}"' for name in names)
    put(env.home, ".config/coding-agents/config.toml", f"[credentials]\nfiles = [{listed}]\n{more}".encode())
    return load_settings(env)


def test_nothing_is_read_unasked(tmp_path: Path) -> None:
    env = host_environment(tmp_path)
    for place in PLACES.values():
        put(tmp_path, place, SECRET)
    assert session_credentials(env, settings(env)) == SessionCredentials()


@pytest.mark.parametrize("name", FILES)
def test_each_name_is_its_own_file_and_no_other(tmp_path: Path, name: str) -> None:
    env = host_environment(tmp_path)
    for one, place in PLACES.items():
        put(tmp_path, place, one.encode())
    found = session_credentials(env, settings(env, name))
    assert found.given == Given(files=(name,))
    assert [content for content, _ in found.volume.values()] == [name.encode()]
    assert not any(executable for _, executable in found.volume.values())
    assert [target.removeprefix("/opt/coding-agents-config/") for target in found.links.values()] == list(
        found.volume
    )
    assert SECRET.decode() not in repr(found)


def test_what_is_not_there_is_told_and_not_given(tmp_path: Path) -> None:
    env = host_environment(tmp_path)
    found = session_credentials(env, settings(env, "gh", "codex"))
    assert found.given == Given()
    assert found.problems == (
        "credentials.files: this host has no file of codex", "credentials.files: this host has no file of gh",
    )  # fmt: skip


def test_a_login_that_others_can_read_is_not_copied(tmp_path: Path) -> None:
    env = host_environment(tmp_path)
    put(tmp_path, PLACES["gh"], SECRET).chmod(0o644)
    with pytest.raises(CredentialError, match="can be read or written by others"):
        session_credentials(env, settings(env, "gh"))
    put(tmp_path, PLACES["gitconfig"], b"[user]\n\tname = x\n").chmod(0o644)
    assert session_credentials(env, settings(env, "gitconfig")).given.files == ("gitconfig",)


def test_a_repository_can_give_nothing(tmp_path: Path) -> None:
    env = host_environment(tmp_path / "home")
    for line in (
        'files = ["gh"]',
        'release = ["https://git.example/x"]',
        f'ssh_agent = ["SHA256:{"a" * 43} x"]',
    ):
        put(tmp_path, "project/.coding-agents.toml", f"[credentials]\n{line}\n".encode())
        with pytest.raises(UntrustedSettingError, match="credentials"):
            load_settings(env, project=tmp_path / "project")


def test_a_later_start_has_what_the_settings_say_then(tmp_path: Path) -> None:
    env = host_environment(tmp_path)
    put(tmp_path, PLACES["gh"], SECRET)
    put(tmp_path, PLACES["codex"], SECRET)
    launched = session_credentials(env, settings(env, "gh", "codex"))
    put(tmp_path, PLACES["codex"], b"renewed")
    now = settings(env, "codex", "claude", more='release = ["https://git.example/x"]\n')
    put(tmp_path, PLACES["claude"], SECRET)
    given, files = renewed_files(env, now, launched.given)
    assert given == Given(release=("https://git.example/x",), files=("codex",))
    assert files == {
        "auth/gh/hosts.yml": (b"", False),
        "auth/gh/config.yml": (b"", False),
        "auth/codex/auth.json": (b"renewed", False),
    }


def test_links_of_the_home_lead_to_roots_files() -> None:
    made = tar_of({"a/b": b"x"}, owner=1000, mode=0o600, links={"a/c": "/opt/x", "d/e": "/opt/y"})
    with tarfile.open(fileobj=io.BytesIO(made)) as archive:
        found = [(one.name, one.type, one.linkname) for one in archive]
    assert found == [
        ("a", b"5", ""), ("a/b", b"0", ""), ("a/c", b"2", "/opt/x"), ("d", b"5", ""), ("d/e", b"2", "/opt/y"),
    ]  # fmt: skip


@pytest.fixture
def session(tmp_path: Path) -> SessionContext:
    (tmp_path / "engine").mkdir()
    made = make_session(tmp_path, FakeEngine(tmp_path / "engine"))
    settings(made.env, "gh")
    write_given(made.directory, Given(files=("gh",)))
    return made


def record(session: SessionContext, journal: type[Journal] = Journal) -> list[tuple[str, int, str]]:
    with open_log(session.audit_path, session=session.record.id, time_ms=0) as log:
        asyncio.run(record_auth_files(session, journal(log)))
    kept = map(decode_record, session.audit_path.read_bytes().splitlines())
    return [(one.type.value, one.tier, one.subject) for one in kept]


def test_files_are_recorded_before_the_gate_may_open(
    session: SessionContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert record(session) == [("auth-files-given", 3, "gh")]

    class Full(Journal):
        async def broker(self, event: object) -> None:
            raise AuditError("the disk is full", hint="Make room.")

    with pytest.raises(AuditError):
        record(session, Full)
    without = Policy(
        {one: rule for one, rule in load_policy().rules.items() if one is not Operation.AUTH_FILE}
    )
    monkeypatch.setattr(auth_files, "load_policy", lambda: without)
    with pytest.raises(CredentialError, match="no rule allows"):
        record(session)
    monkeypatch.undo()
    settings(session.env)
    with pytest.raises(CredentialError, match="not in the user's setting"):
        record(session)


@pytest.mark.parametrize("how", ["connect", "launch"])
def test_who_starts_a_session_without_a_banner_is_told_what_it_was_given(
    session: SessionContext, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start gives what the settings name by now: nobody has been told of that yet."""
    out = io.StringIO()
    app = AppContext(replace(session.env, stdin_tty=True, stdout_tty=True), Output(out, out))
    for module in ("app.start", "cli.launch_view"):
        monkeypatch.setattr(f"coding_agents.{module}.start", lambda *_: {"user": "on"})
    for module in ("app.inside", "cli.launch_view"):
        monkeypatch.setattr(f"coding_agents.{module}.attach", lambda *_args, **_more: 0)
    monkeypatch.setattr("coding_agents.cli.launch_view.after_leaving", lambda *_: None)
    monkeypatch.setattr("coding_agents.cli.connect.find_session", lambda *_: session)
    if how == "connect":
        connect.command.main([session.record.name], standalone_mode=False, obj=app)
    else:
        monkeypatch.setattr("coding_agents.cli.launch_view._stay", lambda *_args, **_more: 0)
        launch_view._join(app, session, None, "", detach=False, as_json=False)  # type: ignore[arg-type]
    assert "given    your gh, which the agent can read and take away\n" in out.getvalue()


def test_git_inside_is_told_whom_to_ask_when_its_program_can(session: SessionContext) -> None:
    assert credential_settings(session) == ()
    program = GuestProgram.of_this_version(session.env.data_dir)
    session.update(guest_digest=program.digest)
    (section,) = credential_settings(session)
    assert section.settings == (("helper", "/usr/lib/coding-agents/git-credential"), ("useHttpPath", "true"))
    write_given(session.directory, Given(files=("git-credentials",)))
    assert "git-credential" in credential_settings(session)[0].settings[1][1]


def test_a_list_that_is_not_whole_gives_nothing(session: SessionContext) -> None:
    (session.directory / "credentials.json").write_text('{"files": ["gh"]')
    assert read_given(session.directory) == Given()
