"""Who a session's requests to its model are from: the user's own account with the agent's provider."""

from __future__ import annotations

from collections.abc import Mapping

from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.chosen import Held, chosen, host_login
from coding_agents.credentials.store import SecretStore
from coding_agents.credentials.values import require_credential
from coding_agents.errors import CredentialError
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.masked import Masked
from coding_agents.model.provider import Login, LoginKind

_GITHUB_TOKENS = ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_")


class ModelCredential(Masked, frozen=True):
    """A credential and how the broker shows it to the provider. `source` is for people, `secret` is never shown."""

    MASKED = frozenset({"secret", "headers"})

    kind: LoginKind
    source: str
    secret: str
    headers: Mapping[str, str]
    upstream: str
    login: Login
    expires_ms: int | None = None


def find_credential(manifest: AgentManifest, env: HostEnvironment, *, now_ms: int) -> ModelCredential | None:
    """The user's credential for an agent: what `login` has chosen, else the host's variables, else the login of the
    agent's own program on this host. None when there is none of them. No network.

    Raises CredentialError when what was chosen cannot be had, and when a login has expired that only its owner renews.
    """
    choice = SecretStore(env).read().logins.get(manifest.name)
    if choice is not None:
        return shown(manifest, chosen(manifest, choice, env, now_ms=now_ms))
    for login in manifest.login:
        for name in login.env:
            if secret := env.environ.get(name, ""):
                return shown(manifest, Held(login=login, source=name, secret=secret))
    held = host_login(manifest, env, now_ms=now_ms)
    return None if held is None else shown(manifest, held)


def require_fitting(manifest: AgentManifest, credential: ModelCredential) -> None:
    """Raises CredentialError for a token of GitHub's that was chosen as a key: it would go to another provider."""
    for_github = any(login.api == "copilot" for login in manifest.login)
    if for_github and credential.login.api != "copilot" and credential.secret.startswith(_GITHUB_TOKENS):
        raise CredentialError(
            f"{credential.source} is a token of GitHub's, and was chosen as an API key for another provider",
            hint=f"Choose it as a token: `coding-agents login {manifest.name} --token`, with the same words.",
        )


def shown(manifest: AgentManifest, held: Held) -> ModelCredential:
    """A credential as the broker shows it. Raises CredentialError for one that no header can hold."""
    secret = require_credential(held.secret, source=held.source)
    login = held.login
    headers = {**login.headers, **_account(login, held)}
    headers[login.header] = f"{login.scheme} {secret}" if login.scheme else secret
    upstream = manifest.model.upstream if manifest.model is not None else ""
    return ModelCredential(
        login.kind, held.source, secret, headers, login.upstream or upstream, login, held.expires_ms
    )


def _account(login: Login, held: Held) -> dict[str, str]:
    if not login.account_header:
        return {}
    if not held.account:
        raise CredentialError(
            f"{held.source} does not say which account it is of",
            hint="Log in anew with the agent's own program.",
        )
    account = require_credential(held.account, source=f"the account's id in {held.source}")
    return {login.account_header: account}
