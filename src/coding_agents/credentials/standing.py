"""How it stands with the login of an agent, for people: no network, and no program of the user's is asked."""

from __future__ import annotations

import time

import msgspec

from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.chosen import has_ended, login_of, source_of
from coding_agents.credentials.model import find_credential
from coding_agents.credentials.store import Choice, SecretStore
from coding_agents.errors import CodingAgentsError
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.provider import Login, LoginKind

_KINDS: dict[LoginKind, str] = {"api-key": "API key", "oauth": "subscription"}


class Standing(msgspec.Struct, frozen=True):
    """`state` is `ok`, `none` (the user has no login), or `bad`: what there is cannot be used."""

    state: str
    told: str
    hint: str = ""


def credential_source(manifest: AgentManifest, env: HostEnvironment, *, now_ms: int) -> str:
    """Where the credential of an agent would come from, "" when the user has none. Raises CredentialError, StoreError.

    What is kept is not opened, and no program is asked: that may want a touch of a key.
    """
    choice = SecretStore(env).read().logins.get(manifest.name)
    if choice is not None and choice.kept is not None:
        return source_of(manifest, choice)
    credential = find_credential(manifest, env, now_ms=now_ms)
    return "" if credential is None else credential.source


def login_in_use(manifest: AgentManifest, env: HostEnvironment, *, now_ms: int) -> Login | None:
    """The kind of account that an agent's requests would be from, None when the user has none. Nothing is opened."""
    try:
        choice = SecretStore(env).read().logins.get(manifest.name)
        if choice is not None:
            return login_of(manifest, choice.kind, choice.name)
        credential = find_credential(manifest, env, now_ms=now_ms)
    except CodingAgentsError:
        return None
    return None if credential is None else credential.login


def standing(manifest: AgentManifest, env: HostEnvironment, *, now_ms: int) -> Standing:
    """What `doctor` and `login` say of an agent. Never raises."""
    try:
        choice = SecretStore(env).read().logins.get(manifest.name)
        if choice is not None and choice.kept is not None:
            return _kept(manifest, choice, now_ms=now_ms)
        credential = find_credential(manifest, env, now_ms=now_ms)
    except CodingAgentsError as error:
        return Standing("bad", error.message, error.hint)
    if credential is None:
        hint = f"Run `coding-agents login {manifest.name}`."
        keychain = " (its own login in the Keychain cannot be taken yet)" if env.platform == "darwin" else ""
        return Standing("none", f"no login: run `coding-agents login {manifest.name}`{keychain}", hint)
    return Standing("ok", _told(credential.kind, credential.source, credential.expires_ms))


def _kept(manifest: AgentManifest, choice: Choice, *, now_ms: int) -> Standing:
    """Of what coding-agents keeps itself. It is not opened: that may want a touch of a key."""
    source = source_of(manifest, choice)
    if choice.way == "exec":
        return Standing("ok", f"{_KINDS[choice.kind]} from {source}, asked when it is needed")
    if choice.way == "tokens" and choice.expires_ms is not None:
        renewable = any(login.renewal is not None for login in manifest.login if login.kind == "oauth")
        if renewable:
            return Standing(
                "ok", f"{_told(choice.kind, source, choice.expires_ms)}, renewed when it is needed"
            )
        if has_ended(choice.expires_ms, now_ms=now_ms):
            hint = f"Log in anew: `coding-agents login {manifest.name}`."
            return Standing("bad", f"the login of {manifest.title} has expired", hint)
    return Standing("ok", _told(choice.kind, source, choice.expires_ms))


def _told(kind: LoginKind, source: str, expires_ms: int | None) -> str:
    until = ""
    if expires_ms is not None:
        until = f", valid until {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(expires_ms / 1000))}"
    return f"{_KINDS[kind]} from {source}{until}"
