"""Whose credential goes to a package index: the named secret, or this host's login for that very address."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.registries import RegistryCredential, registry_credential
from coding_agents.errors import CredentialError
from coding_agents.model.registry import Kind, parse_registry
from support.host import host_environment
from support.logins import put

TOKEN = "t0k3n-0123456789"


def credential(env: HostEnvironment, kind: Kind, text: str, url: str = "") -> RegistryCredential | None:
    entry = parse_registry(kind, text)
    return registry_credential(env, entry, url or entry.index)


def header(user: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{TOKEN}".encode()).decode()


@pytest.fixture
def env(tmp_path: Path) -> HostEnvironment:
    return host_environment(tmp_path)


def test_a_named_secret_goes_before_all_else(env: HostEnvironment) -> None:
    put(env.home, ".config/coding-agents/mcp-secrets.env", f"X={TOKEN}\n".encode())
    put(env.home, ".netrc", b"machine a.example login me password other-password\n")
    for kind, words, expected in (
        ("pip", "secret=X", header("__token__")), ("pip", "secret=X user=me", header("me")),
        ("npm", "secret=X", f"Bearer {TOKEN}"), ("npm", "secret=X user=me", header("me")),
    ):  # fmt: skip
        found = credential(env, kind, f"https://a.example/x {words}")  # type: ignore[arg-type]
        assert found is not None
        assert (found.source, found.header) == ("secret X", expected)
        assert TOKEN in found.secrets
        assert TOKEN not in repr(found)
    with pytest.raises(CredentialError, match="no secret 'Y'"):
        credential(env, "pip", "https://a.example/x secret=Y")


def test_the_hosts_own_logins_are_for_their_address_alone(env: HostEnvironment) -> None:
    put(
        env.home,
        ".config/pip/pip.conf",
        f"[global]\nindex-url = https://me:{TOKEN}@a.example/simple/\n".encode(),
    )
    pair = header("me").removeprefix("Basic ")
    put(env.home, ".npmrc", f"//a.example/npm/:_authToken={TOKEN}\n//b.example/:_auth={pair}\n".encode())
    logins = (f"n.example login me password {TOKEN}", "deep.m.example login z password z")
    lines = "".join(f"machine {one}\n" for one in logins)
    put(env.home, ".netrc", f"{lines}default login x password y\n".encode())
    for kind, url, expected in (
        ("pip", "https://a.example/simple", header("me")), ("pip", "https://a.example/simple/more", header("me")),
        ("pip", "https://a.example/other", None), ("pip", "https://a.example:8443/simple", None),
        ("pip", "https://a.example.evil.example/simple", None), ("pip", "https://b.example/simple", None),
        ("npm", "https://a.example/npm", f"Bearer {TOKEN}"), ("npm", "https://a.example/npm/x", f"Bearer {TOKEN}"),
        ("npm", "https://a.example/npm2", None), ("npm", "https://b.example/any", header("me")),
        ("pip", "https://n.example/x", header("me")), ("npm", "https://n.example/x", header("me")),
        ("npm", "https://m.example/x", None),
    ):  # fmt: skip
        found = credential(env, kind, url)  # type: ignore[arg-type]
        assert (found.header if found is not None else None) == expected, (kind, url)


@pytest.mark.parametrize(
    ("kind", "file", "content"),
    [
        ("pip", ".config/pip/pip.conf", f"[global]\nindex-url = https://me:{TOKEN}@a.example/\n"),
        ("npm", ".npmrc", f"//a.example/:_authToken={TOKEN}\n"),
        ("npm", ".npmrc", f"//a.example/:_auth=!{TOKEN}\n"),
        ("npm", ".npmrc", f"//a.example/:_authToken={TOKEN} x\n"),
        ("pip", ".netrc", f"machine a.example {TOKEN}\n"),
    ],
)
def test_what_others_can_read_or_is_malformed_is_refused_without_its_words(
    env: HostEnvironment, kind: Kind, file: str, content: str
) -> None:
    put(env.home, file, content.encode())
    good = ("_authToken=" in content and " x" not in content) or "pip.conf" in file
    if good:
        (env.home / file).chmod(0o644)
    with pytest.raises(CredentialError) as refused:
        credential(env, kind, "https://a.example")
    assert TOKEN not in f"{refused.value}{refused.value.details}{refused.value.hint}"
    assert ("can be read or written by others" in refused.value.message) == good


def test_a_file_without_a_login_may_be_read_by_all(env: HostEnvironment) -> None:
    put(env.home, ".config/pip/pip.conf", b"[global]\nindex-url = https://a.example/\n")
    (env.home / ".config/pip/pip.conf").chmod(0o644)
    assert credential(env, "pip", "https://a.example") is None
