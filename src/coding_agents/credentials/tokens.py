"""An account's tokens that belong to coding-agents alone, as the store keeps them: in one text, encrypted or not."""

from __future__ import annotations

import msgspec

from coding_agents.credentials.sealing import Kept
from coding_agents.credentials.store import Choice, SecretStore
from coding_agents.errors import CredentialError
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.masked import Masked


class Tokens(Masked, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """`access` is what the provider is shown, `refresh` what renews it; `asked_ms` that a renewal was begun."""

    MASKED = frozenset({"access", "refresh"})

    access: str
    refresh: str = ""
    expires_ms: int | None = None
    account: str = ""
    asked_ms: int = 0


def kept_tokens(store: SecretStore, tokens: Tokens, *, now_ms: int) -> Kept:
    """Tokens as they are to be kept. Raises CredentialError."""
    return store.keep(msgspec.json.encode(tokens).decode(), now_ms=now_ms)


def read_tokens(store: SecretStore, manifest: AgentManifest) -> tuple[Choice, Tokens]:
    """The agent's tokens as they are now. Raises CredentialError, also when there are none any more."""
    choice = store.read().logins.get(manifest.name)
    if choice is None or choice.way != "tokens" or choice.kept is None:
        raise CredentialError(
            f"the login of {manifest.title} was removed",
            hint=f"Log in anew: `coding-agents login {manifest.name}`.",
        )
    return choice, opened_tokens(store, manifest, choice.kept)


def opened_tokens(store: SecretStore, manifest: AgentManifest, kept: Kept) -> Tokens:
    """The tokens in what is kept. Raises CredentialError."""
    text = store.opened(kept, what=f"the login of {manifest.title}")
    try:
        return msgspec.json.decode(text.encode(), type=Tokens)
    except msgspec.MsgspecError as error:
        raise CredentialError(
            f"the tokens of {manifest.title} in {store.path} cannot be read: {error}",
            hint=f"Log in anew: `coding-agents login {manifest.name}`.",
        ) from error
