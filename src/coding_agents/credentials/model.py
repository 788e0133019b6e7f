"""Who a session's requests to its model are from: the user's own account with the agent's provider."""

from __future__ import annotations

from collections.abc import Mapping

from coding_agents.config.environ import HostEnvironment
from coding_agents.errors import CredentialError
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.masked import Masked
from coding_agents.model.provider import Login, LoginKind


class ModelCredential(Masked, frozen=True):
    """A credential and how the broker shows it to the provider. `source` is for people, `secret` is never shown."""

    MASKED = frozenset({"secret", "headers"})

    kind: LoginKind
    source: str
    secret: str
    headers: Mapping[str, str]
    upstream: str
    expires_ms: int | None = None


def find_credential(manifest: AgentManifest, env: HostEnvironment, *, now_ms: int) -> ModelCredential | None:
    """The first credential that the user has for an agent; None when there is none. Raises CredentialError."""
    del now_ms
    for login in manifest.login:
        for name in login.env:
            if secret := env.environ.get(name, ""):
                return _credential(manifest, login, secret, source=name)
    return None


async def fresh_credential(
    manifest: AgentManifest, env: HostEnvironment, *, now_ms: int
) -> ModelCredential | None:
    """`find_credential`, renewed when it is about to expire. Raises CredentialError."""
    return find_credential(manifest, env, now_ms=now_ms)


def _credential(manifest: AgentManifest, login: Login, secret: str, *, source: str) -> ModelCredential:
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise CredentialError(
            f"{source} is no credential: it holds spaces or characters that no header may",
            hint=f"Set {source} to the key alone.",
        )
    shown = f"{login.scheme} {secret}" if login.scheme else secret
    upstream = manifest.model.upstream if manifest.model is not None else ""
    headers = {**login.headers, login.header: shown}
    return ModelCredential(login.kind, source, secret, headers, login.upstream or upstream)
