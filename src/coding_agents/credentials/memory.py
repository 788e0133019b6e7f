"""What a process that asks for a credential again and again remembers, so that each request costs next to nothing."""

from __future__ import annotations

import threading

from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.chosen import MARGIN_MS, Held, chosen, login_of, source_of
from coding_agents.credentials.renewal import NotRenewedError, is_due, renew
from coding_agents.credentials.store import Choice, SecretStore
from coding_agents.credentials.tokens import Tokens, opened_tokens
from coding_agents.errors import CodingAgentsError, CredentialError
from coding_agents.model.manifest import AgentManifest

KEPT_MS = 5 * 60_000
"""So long the answer of a program of the user's is used again: a key that is withdrawn there ends with it."""

_FAILED_MS = 15_000
_PATIENCE_MS = 60_000


class Memory:
    """One process's."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._of: dict[str, tuple[Choice, int, Held | CredentialError]] = {}
        self._not_renewed: tuple[str, int] = ("", 0)  # by the token that was not taken, until when

    def held(self, manifest: AgentManifest, choice: Choice, env: HostEnvironment, *, now_ms: int) -> Held:
        """The credential that was chosen by `login`, as good as it can be had. Blocks. Raises CredentialError."""
        match choice.way:
            case "tokens" if choice.kept is not None:
                return self._renewed(manifest, choice, env, now_ms=now_ms)
            case "exec":
                return self._asked(manifest, choice, env, now_ms=now_ms)
            case _:
                return chosen(manifest, choice, env, now_ms=now_ms)

    def _asked(self, manifest: AgentManifest, choice: Choice, env: HostEnvironment, *, now_ms: int) -> Held:
        """One program at a time, and its failure is remembered too: many requests wait for the same answer."""
        with self._one_at_a_time:
            before = self._of.get(manifest.name)
            if before is not None and before[0] == choice and now_ms < before[1]:
                if isinstance(before[2], CredentialError):
                    raise CredentialError(before[2].message, details=before[2].details, hint=before[2].hint)
                return before[2]
            try:
                held = chosen(manifest, choice, env, now_ms=now_ms)
            except CredentialError as error:
                self._of[manifest.name] = (choice, now_ms + _FAILED_MS, error)
                raise
            self._of[manifest.name] = (choice, now_ms + KEPT_MS, held)
            return held

    def _renewed(self, manifest: AgentManifest, choice: Choice, env: HostEnvironment, *, now_ms: int) -> Held:
        if choice.kept is None:
            raise AssertionError("tokens are kept")
        login = login_of(manifest, "oauth")
        tokens = opened_tokens(SecretStore(env), manifest, choice.kept)
        good = tokens.expires_ms is None or tokens.expires_ms - MARGIN_MS > now_ms
        token, until_ms = self._not_renewed
        waits = good and token == tokens.refresh and now_ms < until_ms
        if login.renewal is not None and is_due(tokens, now_ms=now_ms) and not waits:
            try:
                tokens = renew(manifest, login.renewal, env, now_ms=now_ms)
            except (NotRenewedError, CodingAgentsError) as error:
                if not good:
                    raise _ended(manifest, error) from error
                # the old one serves to its end
                self._not_renewed = (tokens.refresh, now_ms + _PATIENCE_MS)
        return self._of_tokens(manifest, choice, tokens, now_ms=now_ms)

    def _of_tokens(self, manifest: AgentManifest, choice: Choice, tokens: Tokens, *, now_ms: int) -> Held:
        if tokens.expires_ms is not None and tokens.expires_ms - MARGIN_MS <= now_ms:
            raise CredentialError(
                f"the login of {manifest.title} has expired",
                hint=f"Log in anew: `coding-agents login {manifest.name}`.",
            )
        return Held(
            login=login_of(manifest, "oauth"),
            source=source_of(manifest, choice),
            secret=tokens.access,
            expires_ms=tokens.expires_ms,
            account=tokens.account,
        )


def _ended(manifest: AgentManifest, error: NotRenewedError | CodingAgentsError) -> CredentialError:
    if isinstance(error, CredentialError):
        return CredentialError(error.message, details=error.details, hint=error.hint)
    return CredentialError(
        f"the login of {manifest.title} has expired and cannot be renewed now: {error}",
        hint="Try again when what is named works.",
    )
