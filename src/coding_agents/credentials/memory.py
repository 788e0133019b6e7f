"""What a process that asks for a credential again and again remembers, so that each request costs next to nothing."""

from __future__ import annotations

import threading

from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.chosen import Held, chosen, has_ended, login_of, of_tokens
from coding_agents.credentials.renewal import NotRenewedError, is_due, renew
from coding_agents.credentials.sealing import Kept
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
        self._tokens: tuple[Kept, Tokens] | None = None
        self._not_renewed: tuple[str, int] = ("", 0)  # by the token that was not taken, until when

    def held(self, manifest: AgentManifest, choice: Choice, env: HostEnvironment, *, now_ms: int) -> Held:
        """The credential that was chosen by `login`, as good as it can be had. Blocks. Raises CredentialError."""
        match choice.way:
            case "tokens" if choice.kept is not None:
                tokens = self._renewed(manifest, choice.kept, env, now_ms=now_ms)
                return of_tokens(manifest, choice, tokens, now_ms=now_ms)
            case "exec" | "key":
                return self._asked(manifest, choice, env, now_ms=now_ms)
            case _:
                return chosen(manifest, choice, env, now_ms=now_ms)

    def _asked(self, manifest: AgentManifest, choice: Choice, env: HostEnvironment, *, now_ms: int) -> Held:
        """What a program prints, or age opens: one at a time. A failure is remembered, too: many requests wait."""
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

    def _renewed(self, manifest: AgentManifest, kept: Kept, env: HostEnvironment, *, now_ms: int) -> Tokens:
        renewal, tokens = login_of(manifest, "oauth").renewal, self._opened(manifest, kept, env)
        good = not has_ended(tokens.expires_ms, now_ms=now_ms)
        token, until_ms = self._not_renewed
        waits = good and token == tokens.refresh and now_ms < until_ms
        if renewal is None or waits or not is_due(tokens, now_ms=now_ms):
            return tokens
        try:
            return renew(manifest, renewal, env, now_ms=now_ms)
        except (NotRenewedError, CodingAgentsError) as error:
            if not good:
                raise _ended(manifest, error) from error
            self._not_renewed = (tokens.refresh, now_ms + _PATIENCE_MS)
            return tokens  # the old ones serve to their end

    def _opened(self, manifest: AgentManifest, kept: Kept, env: HostEnvironment) -> Tokens:
        with self._one_at_a_time:
            if self._tokens is None or self._tokens[0] != kept:
                self._tokens = (kept, opened_tokens(SecretStore(env), manifest, kept))
            return self._tokens[1]


def _ended(manifest: AgentManifest, error: NotRenewedError | CodingAgentsError) -> CredentialError:
    if isinstance(error, CredentialError):
        return CredentialError(error.message, details=error.details, hint=error.hint)
    return CredentialError(
        f"the login of {manifest.title} has expired and cannot be renewed now: {error}",
        hint="Try again when what is named works.",
    )
