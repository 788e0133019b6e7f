"""The user's own store: named secrets, and which credential each agent's requests are from.

One file, replaced as a whole under a lock, so that changes at the same time lose nothing. A login's own credential is
no named secret: nothing that a repository asks for by name reaches it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from coding_agents.config.environ import HostEnvironment
from coding_agents.config.load import load_settings
from coding_agents.credentials.private import MAX_FILE, read_private
from coding_agents.credentials.sealing import Kept, Sealer, keep, opened
from coding_agents.errors import CredentialError
from coding_agents.model.masked import Masked
from coding_agents.model.provider import LoginKind
from coding_agents.store.files import locked, make_dir, write_atomic

_LOCK_S = 30.0

Way = Literal["file", "env", "key", "exec", "tokens"]


class Choice(Masked, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Which credential an agent's requests are from.

    `file` is the login of the agent's own program, `env` the host's variable `name`; `key` and `exec` are kept
    here, as are `tokens`: an account's, which only coding-agents uses and renews. `expires_ms` is when the latter end.
    """

    MASKED = frozenset({"kept"})

    way: Way
    kind: LoginKind
    name: str = ""
    kept: Kept | None = None
    expires_ms: int | None = None


class Document(Masked, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that is in the file."""

    version: Literal[1] = 1
    secrets: dict[str, Kept] = msgspec.field(default_factory=dict)
    logins: dict[str, Choice] = msgspec.field(default_factory=dict)


class SecretStore:
    """The store of one user."""

    def __init__(self, env: HostEnvironment) -> None:
        self.env = env
        self.path = env.config_dir / "secrets.json"

    def read(self) -> Document:
        """What is in the store; empty when there is none. Raises CredentialError."""
        try:
            data = read_private(self.path, home=self.env.home, follow=False)
        except FileNotFoundError:
            return Document()
        try:
            return msgspec.json.decode(data, type=Document)
        except msgspec.MsgspecError as error:
            raise CredentialError(
                f"{self.path} is not a store of this version of coding-agents: {error}",
                hint="Move it away, and set the secrets and logins anew.",
            ) from error

    def change(self, edit: Callable[[Document], Document]) -> None:
        """Replace the store by what `edit` makes of it. Raises CredentialError and StoreError."""
        make_dir(self.path.parent)
        with locked(self.path.with_suffix(".lock"), timeout_s=_LOCK_S):
            data = msgspec.json.format(msgspec.json.encode(edit(self.read())), indent=2) + b"\n"
            if len(data) > MAX_FILE:
                raise CredentialError(
                    f"{self.path} would be larger than {MAX_FILE >> 20} MiB",
                    hint="Remove some secrets first.",
                )
            write_atomic(self.path, data)

    def keep(self, text: str, *, now_ms: int) -> Kept:
        """`text` as it is to be kept: encrypted where the user has an age identity. Raises CredentialError."""
        return keep(text, self._sealer(), now_ms=now_ms)

    def opened(self, kept: Kept, *, what: str) -> str:
        """The text of a secret that is kept in this file. Raises CredentialError."""
        return opened(kept, self._sealer() if kept.sealed else None, what=what)

    def _sealer(self) -> Sealer | None:
        named = load_settings(self.env).secrets_age_identity
        if not named:
            return None
        path = self.env.home / named[2:] if named.startswith("~/") else Path(named)
        return Sealer(path, self.env.environ, self.env.home)
