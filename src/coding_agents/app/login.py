"""Choosing which credential an agent's requests to its model are from."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.chosen import (
    found_in,
    found_in_content,
    found_in_file,
    host_login,
    login_of,
    login_path,
)
from coding_agents.credentials.formats import Found
from coding_agents.credentials.sealing import Kept
from coding_agents.credentials.store import Choice, Document, SecretStore
from coding_agents.credentials.tokens import Tokens, kept_tokens
from coding_agents.credentials.values import require_credential
from coding_agents.errors import CredentialError, UsageError
from coding_agents.images.manifests import load_manifest
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.provider import LoginKind


def agent_with_model(env: HostEnvironment, name: str) -> AgentManifest:
    """The manifest of an agent that can have a login. Raises ManifestError and CredentialError."""
    manifest = load_manifest(name, env.config_dir / "agents")
    if manifest.model is None or not manifest.login:
        raise CredentialError(
            f"{manifest.title} asks no model that coding-agents knows: there is nothing to log in to",
            hint="An agent's manifest says it in [model] and [[login]].",
        )
    return manifest


def choose_host_login(manifest: AgentManifest, env: HostEnvironment, *, now_ms: int) -> bool:
    """Take the login of the agent's own program on this host, if there is one. Raises CredentialError."""
    held = host_login(manifest, env, now_ms=now_ms)
    if held is None:
        return False
    _choose(manifest, env, Choice(way="file", kind=held.login.kind))
    return True


def choose_key(
    manifest: AgentManifest, env: HostEnvironment, kind: LoginKind, secret: str, *, now_ms: int
) -> str:
    """Keep a key or token of the user's for this agent; returns how it is kept. Raises CredentialError."""
    login_of(manifest, kind)
    require_credential(secret, source="what you gave")
    kept = SecretStore(env).keep(secret, now_ms=now_ms)
    _choose(manifest, env, Choice(way="key", kind=kind, kept=kept))
    return kept.provider


def choose_program(
    manifest: AgentManifest, env: HostEnvironment, kind: LoginKind, argv: tuple[str, ...], *, now_ms: int
) -> None:
    """Let a program print the credential whenever it is needed. Raises CredentialError."""
    login_of(manifest, kind)
    _choose(manifest, env, Choice(way="exec", kind=kind, kept=Kept(set_ms=now_ms, argv=argv)))


def choose_variable(manifest: AgentManifest, env: HostEnvironment, kind: LoginKind | None, name: str) -> None:
    """Take a variable of the host's environment. Its kind is the one that the manifest knows it by, if any."""
    if not name.isidentifier() or not name.isascii():
        raise UsageError(f"{name!r} is not the name of a variable", hint="Give its name, not its value.")
    known: LoginKind = next((login.kind for login in manifest.login if name in login.env), "api-key")
    login_of(manifest, kind or known)
    _choose(manifest, env, Choice(way="env", kind=kind or known, name=name))


def choose_tokens(manifest: AgentManifest, env: HostEnvironment, path: Path, *, now_ms: int) -> str:
    """Take over a login that was made for coding-agents alone; returns how it is kept.

    That of the agent's own program is refused: two who renew the same tokens log each other out.
    """
    for login in manifest.login:
        own = login_path(login, env)
        if login.file and own.exists() and path.exists() and own.samefile(path):
            raise CredentialError(
                f"{path} is the login of {manifest.title} itself, which renews it: two owners log each other out",
                hint=f"Use it as it is: `coding-agents login {manifest.name}`. Or make another login for this.",
            )
    login, found = found_in(manifest, path, env)
    mine = found_in_file(login, env)
    if mine is not None and mine.refresh and mine.refresh == found.refresh:
        raise CredentialError(
            f"{path} is a copy of the login of {manifest.title} itself, which renews it",
            hint=f"Use that as it is: `coding-agents login {manifest.name}`. Or make another login for this.",
        )
    return _keep_tokens(manifest, env, found, source=str(path), now_ms=now_ms)


def choose_new_login(manifest: AgentManifest, env: HostEnvironment, written: bytes, *, now_ms: int) -> str:
    """Keep the login that the agent's own program has just written in a container; returns how it is kept.

    Raises CredentialError when that is no login of an account.
    """
    source = f"what {manifest.title} wrote"
    _login, found = found_in_content(manifest, written, source=source)
    return _keep_tokens(manifest, env, found, source=source, now_ms=now_ms)


def _keep_tokens(
    manifest: AgentManifest, env: HostEnvironment, found: Found, *, source: str, now_ms: int
) -> str:
    require_credential(found.secret, source=source)
    tokens = Tokens(
        access=found.secret, refresh=found.refresh, expires_ms=found.expires_ms, account=found.account
    )
    kept = kept_tokens(SecretStore(env), tokens, now_ms=now_ms)
    _choose(manifest, env, Choice(way="tokens", kind="oauth", kept=kept, expires_ms=found.expires_ms))
    return kept.provider


def forget_login(manifest: AgentManifest, env: HostEnvironment) -> bool:
    """Forget what was chosen, and what is kept for it; False when nothing was. The host's own logins stay."""
    had = False

    def edit(document: Document) -> Document:
        nonlocal had
        had = manifest.name in document.logins
        return replace(
            document,
            logins={name: choice for name, choice in document.logins.items() if name != manifest.name},
        )

    SecretStore(env).change(edit)
    return had


def _choose(manifest: AgentManifest, env: HostEnvironment, choice: Choice) -> None:
    SecretStore(env).change(
        lambda document: replace(document, logins={**document.logins, manifest.name: choice})
    )
