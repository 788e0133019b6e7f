"""Whose credential an agent's requests carry: the order, what is refused, and what people are told."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from coding_agents.app import login
from coding_agents.app.doctor import examine
from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.fresh import fresh_credential
from coding_agents.credentials.memory import KEPT_MS, Memory
from coding_agents.credentials.model import ModelCredential, find_credential
from coding_agents.credentials.sealing import Sealer
from coding_agents.credentials.standing import credential_source, login_in_use, standing
from coding_agents.credentials.store import SecretStore
from coding_agents.errors import CredentialError, UsageError
from coding_agents.images.manifests import load_manifest
from coding_agents.model.manifest import AgentManifest
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.model_access import account_of
from component.test_secrets import age_identity, run
from support.host import host_environment
from support.logins import HOUR, NOW, SECRET, claude, claude_file, codex, jwt, program, put

FILE = ".claude/.credentials.json"


@pytest.fixture
def env(tmp_path: Path) -> HostEnvironment:
    (tmp_path / "home").mkdir()
    return host_environment(tmp_path / "home")


def with_variables(env: HostEnvironment, **variables: str) -> HostEnvironment:
    return replace(env, environ={**env.environ, **variables})


def found(manifest: AgentManifest, env: HostEnvironment, *, now_ms: int = NOW) -> ModelCredential:
    """The credential, the same by both ways."""
    credential = find_credential(manifest, env, now_ms=now_ms)
    assert credential is not None
    assert asyncio.run(fresh_credential(manifest, env, now_ms=now_ms)) == credential
    assert credential.secret not in repr(credential)
    return credential


def refusal(manifest: AgentManifest, env: HostEnvironment, *, now_ms: int = NOW) -> CredentialError:
    with pytest.raises(CredentialError) as caught:
        find_credential(manifest, env, now_ms=now_ms)
    with pytest.raises(CredentialError) as again:
        asyncio.run(fresh_credential(manifest, env, now_ms=now_ms))
    error = caught.value
    assert again.value.message == error.message
    assert error.hint
    assert SECRET not in repr((error.message, error.details, error.hint, error.__cause__, error.__context__))
    return error


def stored(env: HostEnvironment) -> str:
    return (env.config_dir / "secrets.json").read_text()


# --- what is taken ----------------------------------------------------------------------------------------


def test_who_has_no_login_has_none(env: HostEnvironment) -> None:
    assert find_credential(claude(), env, now_ms=NOW) is None
    assert asyncio.run(fresh_credential(claude(), env, now_ms=NOW)) is None


def test_the_choice_goes_before_variables_and_these_before_the_programs_own_login(
    env: HostEnvironment,
) -> None:
    put(env.home, FILE, claude_file())
    own = found(claude(), env)
    assert (own.kind, own.source, own.secret, own.expires_ms) == ("oauth", f"~/{FILE}", SECRET, NOW + HOUR)
    assert own.headers == {"authorization": f"Bearer {SECRET}", "anthropic-beta": "oauth-2025-04-20"}
    keyed = with_variables(env, ANTHROPIC_API_KEY="sk-ant-variable")
    of_variable = found(claude(), keyed)
    assert (of_variable.kind, of_variable.source) == ("api-key", "ANTHROPIC_API_KEY")
    assert of_variable.headers == {"x-api-key": "sk-ant-variable"}
    login.choose_key(claude(), env, "api-key", "sk-ant-chosen", now_ms=NOW)
    assert found(claude(), keyed).headers == {"x-api-key": "sk-ant-chosen"}
    assert login.forget_login(claude(), env)
    assert not login.forget_login(claude(), env)
    assert found(claude(), keyed).source == "ANTHROPIC_API_KEY"


def test_an_account_of_codex_goes_to_its_own_address_with_its_id(env: HostEnvironment) -> None:
    access = jwt(exp=(NOW + HOUR) // 1000)
    tokens = {"access_token": access, "refresh_token": "r", "account_id": "acc-1", "id_token": "i"}
    put(env.home, ".codex/auth.json", json.dumps({"OPENAI_API_KEY": None, "tokens": tokens}).encode())
    account = found(codex(), env)
    assert account.upstream == "https://chat.example.com/backend"
    assert account.headers == {"authorization": f"Bearer {access}", "chatgpt-account-id": "acc-1"}
    assert account.expires_ms == NOW + HOUR
    put(env.home, ".codex/auth.json", b'{"auth_mode":"apikey","OPENAI_API_KEY":"sk-o"}')
    key = found(codex(), env)
    assert (key.kind, key.upstream) == ("api-key", "https://api.example.com/v1")
    assert key.headers == {"authorization": "Bearer sk-o"}


def test_an_account_of_github_has_the_cli_ask_as_githubs_own(env: HostEnvironment) -> None:
    manifest = load_manifest("copilot")
    generic = with_variables(env, GH_TOKEN="gho_for-much-else", GITHUB_TOKEN="gho_for-much-else")
    assert find_credential(manifest, generic, now_ms=NOW) is None
    assert login_in_use(manifest, generic, now_ms=NOW) is None
    key = with_variables(env, OPENAI_API_KEY="sk-1")
    assert (found(manifest, key).kind, found(manifest, key).login.api) == ("api-key", None)
    inside = manifest.endpoint_of(login_in_use(manifest, key, now_ms=NOW))
    assert inside["COPILOT_OFFLINE"] == "true"

    put(env.home, ".copilot/config.json", b'{"copilotTokens":{"https://github.com:me":"gho_1"}}')
    for on_host in (env, with_variables(env, COPILOT_GITHUB_TOKEN="gho_1", OPENAI_API_KEY="sk-1")):
        credential = found(manifest, on_host)
        assert credential.headers == {"authorization": "Bearer gho_1"}
        assert (credential.login.api, credential.upstream) == ("copilot", "https://api.githubcopilot.com")
        login = login_in_use(manifest, on_host, now_ms=NOW)
        assert login is not None
        assert set(manifest.endpoint_of(login)) == {
            "COPILOT_API_URL", "COPILOT_DEBUG_GITHUB_API_URL", "COPILOT_GITHUB_TOKEN",
        }  # fmt: skip
        assert standing(manifest, on_host, now_ms=NOW).told.startswith("subscription from ")


@pytest.mark.parametrize(
    "words", [("--token", "--env", "GH_TOKEN"), ("--token", "--", "/bin/echo", "gho_2")], ids=str
)
def test_a_token_of_github_that_is_for_more_is_chosen_by_a_person(
    env: HostEnvironment, words: tuple[str, ...]
) -> None:
    chosen = with_variables(env, GH_TOKEN="gho_2", OPENAI_API_KEY="sk-1")
    run(chosen, "login", "copilot", *words)
    manifest = load_manifest("copilot")
    credential = asyncio.run(fresh_credential(manifest, chosen, now_ms=NOW))
    assert credential is not None
    assert (credential.headers["authorization"], credential.login.api) == ("Bearer gho_2", "copilot")
    assert login_in_use(manifest, chosen, now_ms=NOW) == credential.login
    account = account_of(manifest, credential, "")
    assert account.account_address is not None
    assert (account.address.host, account.account_address.host) == ("api.githubcopilot.com", "api.github.com")
    at_gateway = account_of(manifest, credential, "http://127.0.0.1:9")
    assert (at_gateway.address.port, at_gateway.account_address) == (9, None)

    # Without --token it would be a key for another provider: it goes to none.
    run(chosen, "login", "copilot", *words[1:])
    with pytest.raises(CredentialError, match="is a token of GitHub's"):
        account_of(manifest, found(manifest, chosen), "")


def test_a_login_that_the_user_has_moved_is_found(env: HostEnvironment, tmp_path: Path) -> None:
    put(env.home, FILE, claude_file("sk-ant-of-old"))
    put(tmp_path, "moved/.credentials.json", claude_file())
    moved = found(claude(), with_variables(env, CLAUDE_CONFIG_DIR=str(tmp_path / "moved")))
    assert (moved.secret, moved.source) == (SECRET, str(tmp_path / "moved/.credentials.json"))
    assert found(claude(), with_variables(env, CLAUDE_CONFIG_DIR="relative")).secret == "sk-ant-of-old"


def test_a_variable_of_any_name_can_be_chosen(env: HostEnvironment) -> None:
    login.choose_variable(claude(), env, None, "WORK_KEY")
    assert "WORK_KEY, which the login" in refusal(claude(), env).message
    assert found(claude(), with_variables(env, WORK_KEY="sk-work")).headers == {"x-api-key": "sk-work"}
    login.choose_variable(claude(), env, None, "CLAUDE_CODE_OAUTH_TOKEN")
    token = found(claude(), with_variables(env, CLAUDE_CODE_OAUTH_TOKEN="sk-ant-oat"))
    assert token.headers["authorization"] == "Bearer sk-ant-oat"
    with pytest.raises(UsageError):
        login.choose_variable(claude(), env, None, SECRET)


def test_a_program_is_asked_once_in_a_while_and_its_failure_too(env: HostEnvironment, tmp_path: Path) -> None:
    log = tmp_path / "log"
    works = program(tmp_path, "op", f"echo x >> {log}; test ! -e {tmp_path}/locked && echo sk-{{1,2}}$#")
    login.choose_program(claude(), env, "api-key", (str(works), "read"), now_ms=NOW)
    choice = SecretStore(env).read().logins["claude"]
    memory = Memory()

    def asked(now_ms: int) -> str:
        return memory.held(claude(), choice, env, now_ms=now_ms).secret

    assert asked(NOW) == asked(NOW + KEPT_MS - 1) == "sk-{1,2}1"
    assert log.read_text() == "x\n"
    (tmp_path / "locked").touch()
    for later in (KEPT_MS, KEPT_MS + 1000):
        with pytest.raises(CredentialError, match="op fails with exit status 1"):
            asked(NOW + later)
    assert log.read_text() == "x\n" * 2
    (tmp_path / "locked").unlink()
    assert asked(NOW + 2 * KEPT_MS) == "sk-{1,2}1"


def test_what_age_opens_is_opened_once_in_a_while(
    env: HostEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An identity may be on hardware that wants a touch each time."""
    age_identity(env)
    assert login.choose_key(claude(), env, "api-key", SECRET, now_ms=NOW) == "age"
    assert SECRET not in stored(env)
    memory, choice = Memory(), SecretStore(env).read().logins["claude"]
    assert memory.held(claude(), choice, env, now_ms=NOW).secret == SECRET
    monkeypatch.setattr(Sealer, "open", None)
    assert memory.held(claude(), choice, env, now_ms=NOW + 1000).secret == SECRET


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "a b", "ключ", f"{SECRET} x"])
def test_nothing_that_could_add_a_header_is_a_credential(
    env: HostEnvironment, value: str, tmp_path: Path
) -> None:
    refusal(claude(), with_variables(env, ANTHROPIC_API_KEY=value))
    put(env.home, FILE, claude_file(value))
    refusal(claude(), env)
    with pytest.raises(CredentialError):
        login.choose_key(claude(), env, "api-key", value, now_ms=NOW)
    login.choose_program(claude(), env, "api-key", ("printf", "%s", value.replace("\0", "\\0")), now_ms=NOW)
    if "\0" not in value:
        refusal(claude(), env)


def test_an_account_id_that_could_add_a_header_is_refused(env: HostEnvironment) -> None:
    for account in ("a\r\nX-Evil: 1", "", None):
        tokens = {"access_token": jwt(exp=NOW), "refresh_token": "r", "account_id": account}
        put(env.home, ".codex/auth.json", json.dumps({"tokens": tokens}).encode())
        refusal(codex(), env)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_a_programs_login_that_others_can_read_is_refused(env: HostEnvironment, mode: int) -> None:
    put(env.home, FILE, claude_file(), mode)
    assert "can be read or written by others" in refusal(claude(), env).message


def test_a_link_of_the_users_own_is_followed_and_then_judged(env: HostEnvironment) -> None:
    real = put(env.home, "dotfiles/claude", claude_file())
    (env.home / ".claude").mkdir()
    (env.home / FILE).symlink_to(real)
    assert found(claude(), env).secret == SECRET
    real.chmod(0o604)
    refusal(claude(), env)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a link to somebody else")
def test_a_link_of_somebody_else_is_not_followed(env: HostEnvironment) -> None:
    real = put(env.home, "elsewhere/mine", claude_file())
    (env.home / ".claude").mkdir()
    (env.home / FILE).symlink_to(real)
    os.chown(env.home / FILE, 12345, -1, follow_symlinks=False)
    assert "symbolic link" in refusal(claude(), env).message


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff", b'{"claudeAiOauth":{"accessToken":7}}', b"[" * 200_000]
)
def test_a_login_that_cannot_be_read_is_told(env: HostEnvironment, data: bytes) -> None:
    put(env.home, FILE, data)
    assert f"~/{FILE} is not what claude writes" in refusal(claude(), env).message


def test_a_login_that_has_expired_says_whose_it_is_to_renew(env: HostEnvironment) -> None:
    path = put(env.home, FILE, claude_file(expires_ms=NOW + 29_000))
    before = path.read_bytes(), path.stat()
    error = refusal(claude(), env)
    assert "only Claude Code itself renews it" in error.message
    assert error.hint.startswith("Run `claude` once on this host")
    after = path.stat()
    assert (path.read_bytes(), after.st_mtime_ns, after.st_ino) == (
        before[0],
        before[1].st_mtime_ns,
        before[1].st_ino,
    )
    put(env.home, FILE, claude_file("renewed-by-claude"))
    assert found(claude(), env).secret == "renewed-by-claude"


def test_what_was_chosen_and_is_gone_is_no_reason_to_take_another(env: HostEnvironment) -> None:
    put(env.home, FILE, claude_file())
    assert login.choose_host_login(claude(), env, now_ms=NOW)
    (env.home / FILE).unlink()
    keyed = with_variables(env, ANTHROPIC_API_KEY="sk-ant-somebody-elses")
    assert "login of Claude Code on this host is gone" in refusal(claude(), keyed).message


def test_the_programs_own_login_is_never_taken_over(env: HostEnvironment) -> None:
    """Two owners of one rotating token log each other out."""
    own = put(env.home, FILE, claude_file())
    with pytest.raises(CredentialError, match="two owners"):
        login.choose_tokens(claude(), env, own, now_ms=NOW)
    with pytest.raises(CredentialError, match="is a copy of the login"):
        login.choose_tokens(claude(), env, put(env.home, "copy.json", claude_file()), now_ms=NOW)
    assert not (env.config_dir / "secrets.json").exists()


# --- as a user runs it ------------------------------------------------------------------------------------


def test_login_takes_what_is_there_and_says_what_it_took(env: HostEnvironment, tmp_path: Path) -> None:
    assert b"no terminal" in run(env, "login", "claude", status=2).stderr
    done = run(env, "login", "claude", "--api-key", stdin=f"{SECRET}\n".encode())
    assert done.stdout == b"claude: API key from coding-agents login claude\n"
    assert find_credential(claude(), env, now_ms=NOW) is not None
    run(env, "login", "claude", "--token", stdin=SECRET.encode())
    put(env.home, FILE, claude_file(expires_ms=4_102_444_800_000))
    done = run(env, "login", "claude")
    assert (
        done.stdout
        == b"claude: subscription from ~/.claude/.credentials.json, valid until 2100-01-01 00:00 UTC\n"
    )
    assert SECRET not in stored(env)
    mine = put(tmp_path, "mine.json", claude_file(refresh=SECRET, expires_ms=4_102_444_800_000))
    done = run(env, "login", "claude", "--tokens", str(mine))
    assert done.stdout.endswith(b"valid until 2100-01-01 00:00 UTC, renewed when it is needed\n")
    prints = program(tmp_path, "op", f"echo {SECRET}")
    assert b"from the program op, asked when" in run(env, "login", "claude", "--", str(prints), "x").stdout
    assert b"is not set" in run(env, "login", "claude", "--env", "WORK_KEY").stdout
    assert b"forgot" in run(env, "login", "claude", "--remove").stderr
    assert json.loads(stored(env))["logins"] == {}


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (("nobody",), 21, "unknown agent"),
        (("demo",), 26, "asks no model"),
        (("claude", "--api-key", "--token"), 2, "exclude each other"),
        (("claude", "--remove", "--env", "X"), 2, "remove and env exclude each other"),
        (("claude", "--env", "X", "--", "op"), 2, "env and command exclude each other"),
        (("claude", "--remove", "--token"), 2, "exclude each other"),
        (("claude", "--tokens", "nowhere"), 26, "there is no file nowhere"),
        (("claude", "--api-key"), 26, "is empty"),
    ],
)
def test_mistakes_are_told_and_change_nothing(
    env: HostEnvironment, args: tuple[str, ...], status: int, says: str
) -> None:
    assert says in run(env, "login", *args, status=status).stderr.decode()
    assert not (env.config_dir / "secrets.json").exists()


@pytest.mark.parametrize(
    ("variables", "file", "status", "detail"),
    [
        ({}, b"", "absent", "no login: run `coding-agents login claude`"),
        ({"ANTHROPIC_API_KEY": SECRET}, b"", "ok", "API key from ANTHROPIC_API_KEY"),
        (
            {},
            claude_file(expires_ms=4_102_444_800_000),
            "ok",
            "subscription from ~/.claude/.credentials.json, valid",
        ),
        ({}, claude_file(expires_ms=1), "warn", "has expired, and only Claude Code itself renews it"),
        ({"ANTHROPIC_API_KEY": f"{SECRET} x"}, b"", "warn", "ANTHROPIC_API_KEY is no credential"),
    ],
)
def test_doctor_says_how_it_stands_with_each_login(
    env: HostEnvironment, variables: dict[str, str], file: bytes, status: str, detail: str
) -> None:
    if file:
        put(env.home, FILE, file)
    checks = examine(with_variables(env, **variables), SessionStore(env.state_dir))
    check = next(one for one in checks if one.id == "login-claude")
    assert (check.status, detail in check.detail) == (status, True)
    assert SECRET not in repr(checks)
    assert bool(check.fix) == (status != "ok")
    assert not [one for one in checks if one.id == "login-demo"]


def test_doctor_asks_no_program(env: HostEnvironment, tmp_path: Path) -> None:
    asked = program(tmp_path, "op", f"touch {tmp_path}/asked")
    login.choose_program(claude(), env, "api-key", (str(asked),), now_ms=NOW)
    checks = examine(env, SessionStore(env.state_dir))
    assert "the program op, asked when it is needed" in next(
        one.detail for one in checks if one.id == "login-claude"
    )
    assert not (tmp_path / "asked").exists()


def test_a_launch_names_a_program_and_asks_it_nothing(env: HostEnvironment, tmp_path: Path) -> None:
    """The supervisor asks it once it is needed; a key that wants a touch is not to want two."""
    asked = tmp_path / "asked"
    prints = program(tmp_path, "op", f"touch {asked}; echo {SECRET}")
    run(env, "login", "claude", "--", str(prints))
    asked.unlink(missing_ok=True)
    assert credential_source(claude(), env, now_ms=NOW) == "the program op"
    assert not asked.exists()
    assert found(claude(), env).secret == SECRET
    assert asked.exists()


def test_a_launch_loads_no_http_and_no_tls() -> None:
    """They are loaded with the first request to a model, by the supervisor."""
    loads = "import sys, coding_agents.cli.launch_view, coding_agents.app.model"
    script = f"{loads}; print({{'h11', 'ssl', 'asyncio'}} & set(sys.modules))"
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
