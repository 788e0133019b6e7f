"""Tokens that are coding-agents' own, renewed where each is good once: races, crashes, hostile answers."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from coding_agents.app import login
from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials import fresh as fresh_module
from coding_agents.credentials import renewal
from coding_agents.credentials.fresh import fresh_credential
from coding_agents.credentials.memory import Memory
from coding_agents.credentials.store import SecretStore
from coding_agents.credentials.tokens import Tokens, read_tokens
from coding_agents.errors import CredentialError, StoreError
from component.test_model_upstream import authority  # noqa: F401 - a fixture
from support.host import host_environment
from support.logins import HOUR, NOW, SECRET, TokenServer, claude, claude_file, put, token_server

_SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with token_server() as one:
        yield one


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that remembers nothing yet."""
    monkeypatch.setattr(fresh_module, "_MEMORY", Memory())


@pytest.fixture
def env(tmp_path: Path) -> HostEnvironment:
    (tmp_path / "home").mkdir()
    return host_environment(tmp_path / "home")


def logged_in(env: HostEnvironment, *, ends_in_ms: int = 60_000) -> None:
    """The user has given coding-agents a login of its own, whose token ends soon."""
    file = put(env.home, "own.json", claude_file("access-0", expires_ms=NOW + ends_in_ms))
    login.choose_tokens(claude(), env, file, now_ms=NOW)


def fresh(env: HostEnvironment, server: TokenServer, *, now_ms: int = NOW) -> str:
    """The token that a request would carry now, of which nothing is shown."""
    credential = asyncio.run(fresh_credential(claude(server.url), env, now_ms=now_ms))
    assert credential is not None
    assert credential.headers["authorization"] == f"Bearer {credential.secret}"
    return credential.secret


def slow(server: TokenServer, seconds: float) -> None:
    """Let the endpoint take its time, so that the others come while it does."""
    server.before_answer = lambda: time.sleep(seconds)


def kept(env: HostEnvironment) -> Tokens:
    return read_tokens(SecretStore(env), claude())[1]


def test_a_token_that_is_about_to_end_is_renewed_and_kept(env: HostEnvironment, server: TokenServer) -> None:
    logged_in(env, ends_in_ms=renewal.LEAD_MS - 1)
    assert fresh(env, server) == "access-1"
    body = {"grant_type": "refresh_token", "refresh_token": "refresh-0", "client_id": "client-of-the-test"}
    assert server.asked == [body]
    assert kept(env) == Tokens(access="access-1", refresh="refresh-1", expires_ms=NOW + 8 * HOUR)
    assert fresh(env, server) == "access-1"
    assert fresh(env, server, now_ms=NOW + 8 * HOUR - 1000) == "access-2"
    assert len(server.asked) == 2
    assert (env.config_dir / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_a_token_that_is_good_for_long_is_left_alone(env: HostEnvironment, server: TokenServer) -> None:
    logged_in(env, ends_in_ms=renewal.LEAD_MS)
    assert fresh(env, server) == "access-0"
    assert server.asked == []


def in_a_process(home: str, url: str) -> str:
    manifest, env = claude(url), host_environment(Path(home))
    credential = asyncio.run(fresh_credential(manifest, env, now_ms=NOW))
    assert credential is not None
    return credential.secret


def test_processes_that_want_it_at_the_same_time_ask_once(env: HostEnvironment, server: TokenServer) -> None:
    logged_in(env)
    slow(server, 0.3)
    with _SPAWN.Pool(4) as pool:
        tokens = pool.starmap(in_a_process, [(str(env.home), server.url)] * 8)
    assert tokens == ["access-1"] * 8
    assert len(server.asked) == 1


def test_requests_of_one_process_at_the_same_time_ask_once(env: HostEnvironment, server: TokenServer) -> None:
    logged_in(env)
    slow(server, 0.2)

    async def all_of_them() -> list[str]:
        wanted = [fresh_credential(claude(server.url), env, now_ms=NOW) for _ in range(10)]
        return [one.secret for one in await asyncio.gather(*wanted) if one is not None]

    assert asyncio.run(all_of_them()) == ["access-1"] * 10
    assert len(server.asked) == 1


def test_a_request_that_is_given_up_still_keeps_the_new_token(
    env: HostEnvironment, server: TokenServer
) -> None:
    logged_in(env)
    slow(server, 0.5)

    async def give_up() -> None:
        async with asyncio.timeout(0.1):
            await fresh_credential(claude(server.url), env, now_ms=NOW)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert fresh(env, server) == "access-1"
    assert len(server.asked) == 1


def die_before_it_is_kept(home: str, url: str) -> None:
    written = renewal._put

    def put_or_die(*args: object, **options: object) -> object:
        tokens = args[3]
        assert isinstance(tokens, Tokens)
        if tokens.access != "access-0":
            os._exit(9)
        return written(*args, **options)  # type: ignore[arg-type]

    renewal._put = put_or_die  # type: ignore[assignment]
    in_a_process(home, url)


def test_a_crash_between_the_answer_and_the_disk(env: HostEnvironment, server: TokenServer) -> None:
    """What was spent is lost: the old token serves to its end, then the user is told why a login is needed."""
    logged_in(env, ends_in_ms=120_000)
    victim = _SPAWN.Process(target=die_before_it_is_kept, args=(str(env.home), server.url))
    victim.start()
    victim.join(60)
    assert victim.exitcode == 9
    assert kept(env) == Tokens(access="access-0", refresh="refresh-0", expires_ms=NOW + 120_000, asked_ms=NOW)
    assert fresh(env, server) == "access-0"
    with pytest.raises(
        CredentialError, match="invalid_grant, and the answer to an earlier renewal never came"
    ) as caught:
        fresh(env, server, now_ms=NOW + 120_000)
    assert caught.value.hint == "Log in anew: `coding-agents login claude`."


def test_where_nothing_can_be_kept_no_token_is_spent(
    env: HostEnvironment, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged_in(env)

    def full(*args: object, **options: object) -> None:
        raise StoreError("cannot write: the disk is full", hint="Free some space.")

    monkeypatch.setattr("coding_agents.credentials.store.write_atomic", full)
    assert fresh(env, server) == "access-0"
    with pytest.raises(CredentialError, match="cannot be renewed now: cannot write: the disk is full"):
        fresh(env, server, now_ms=NOW + 60_000)
    assert server.asked == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((400, json.dumps({"error": "invalid_grant", "error_description": SECRET}).encode()), "invalid_grant"),
        ((401, json.dumps({"error": {"code": "token_reused", "message": SECRET}}).encode()), "token_reused"),
        ((400, SECRET.encode()), "refused"),
        ((400, json.dumps({"error": SECRET}).encode()), "refused"),
        ((200, json.dumps({"refresh_token": SECRET}).encode()), "holds no token"),
        ((200, json.dumps({"access_token": f"{SECRET}\r\nX-Evil: 1"}).encode()), "holds no token"),
        ((200, json.dumps({"access_token": "a", "refresh_token": f"{SECRET} b"}).encode()), "holds no token"),
        ((200, SECRET.encode()), "holds no token"),
        ((500, SECRET.encode()), "answers 500"),
        ((302, b""), "answers 302"),
        ((403, SECRET.encode()), "answers 403"),
        ((200, b" " * 200_000), "answers without end"),
    ],
)  # fmt: skip
def test_an_answer_without_new_tokens_is_told_when_the_old_one_has_ended(
    env: HostEnvironment, server: TokenServer, answer: tuple[int, bytes], why: str
) -> None:
    logged_in(env)
    server.answer = answer
    assert fresh(env, server) == "access-0"
    with pytest.raises(CredentialError, match=why) as caught:
        fresh(env, server, now_ms=NOW + HOUR)
    error = caught.value
    assert SECRET not in repr((error.message, error.details, error.hint))
    assert error.hint
    assert kept(env).refresh == "refresh-0"
    server.answer = None
    assert fresh(env, server, now_ms=NOW + HOUR) == f"access-{len(server.asked)}"


def test_an_endpoint_in_trouble_is_not_asked_by_each_request(
    env: HostEnvironment, server: TokenServer
) -> None:
    logged_in(env, ends_in_ms=200_000)
    server.answer = (503, b"")
    for _ in range(5):
        assert fresh(env, server) == "access-0"
    assert len(server.asked) == 1
    server.answer = None
    assert fresh(env, server, now_ms=NOW + 61_000) == "access-2"


def test_a_login_that_is_removed_meanwhile_stays_removed(env: HostEnvironment, server: TokenServer) -> None:
    logged_in(env)
    server.before_answer = lambda: login.forget_login(claude(), env) and None
    assert fresh(env, server) == "access-0"
    assert "claude" not in SecretStore(env).read().logins


def test_other_changes_of_the_store_meanwhile_are_kept(env: HostEnvironment, server: TokenServer) -> None:
    from coding_agents.credentials.secrets import Secrets

    logged_in(env)
    server.before_answer = lambda: Secrets(env).set({"A": "1"}, now_ms=NOW) and None
    assert fresh(env, server) == "access-1"
    assert Secrets(env).reveal("A") == "1"


def test_the_hosts_proxy_is_honoured(env: HostEnvironment, server: TokenServer) -> None:
    logged_in(env)
    proxied = replace(env, environ={**env.environ, "http_proxy": "http://127.0.0.1:9"})
    with pytest.raises(CredentialError, match="through the proxy"):
        fresh(proxied, server, now_ms=NOW + HOUR)
    assert server.asked == []
    assert fresh(
        replace(proxied, environ={**proxied.environ, "NO_PROXY": "127.0.0.1"}), server, now_ms=NOW + HOUR
    )


def test_the_hosts_own_authorities_are_trusted_and_no_others(
    env: HostEnvironment,
    authority: Path,  # noqa: F811 - a fixture
) -> None:
    logged_in(env)
    with token_server(authority / "server.pem") as secure:
        with pytest.raises(CredentialError, match="certificate verify failed"):
            fresh(env, secure, now_ms=NOW + HOUR)
        trusting = replace(env, environ={**env.environ, "SSL_CERT_FILE": str(authority / "ca.pem")})
        assert fresh(trusting, secure, now_ms=NOW + HOUR) == "access-1"


def test_many_threads_wait_for_no_more_than_one_answer(env: HostEnvironment, server: TokenServer) -> None:
    logged_in(env)
    with ThreadPoolExecutor(6) as pool:
        tokens = list(pool.map(lambda _: fresh(env, server), range(12)))
    assert tokens == ["access-1"] * 12
