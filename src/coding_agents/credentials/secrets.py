"""Named secrets of the user, as MCP servers and others ask for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec
from msgspec.structs import replace

from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.asking import ask_program
from coding_agents.credentials.private import read_private
from coding_agents.credentials.sealing import Kept
from coding_agents.credentials.store import Document, SecretStore
from coding_agents.credentials.values import secret_text
from coding_agents.errors import CredentialError
from coding_agents.model.suggest import close_to

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
_MAX_LINES = 10_000


class SecretInfo(msgspec.Struct, frozen=True):
    """What may be shown of a secret."""

    name: str
    provider: str
    set_ms: int


class Secrets:
    """The named secrets of one user."""

    def __init__(self, env: HostEnvironment) -> None:
        self._env = env
        self._store = SecretStore(env)

    def list(self) -> tuple[SecretInfo, ...]:
        """All of them by name. Raises CredentialError."""
        found = self._store.read().secrets
        return tuple(SecretInfo(name, kept.provider, kept.set_ms) for name, kept in sorted(found.items()))

    def reveal(self, name: str) -> str:
        """The secret itself; its provider is asked. Raises CredentialError, also for a name that is not set."""
        kept = _known(self._store.read(), name)
        if kept.argv:
            return ask_program(kept.argv, self._env.environ, self._env.home)
        return self._store.opened(kept, what=f"the secret {name}")

    def set(self, values: Mapping[str, str], *, now_ms: int) -> str:
        """Set all of these or none; returns how they are kept. Raises CredentialError."""
        for name in values:
            require_name(name)
        kept = {name: self._store.keep(value, now_ms=now_ms) for name, value in values.items()}
        self._put(kept)
        return next((one.provider for one in kept.values()), "")

    def set_program(self, name: str, argv: tuple[str, ...], *, now_ms: int) -> None:
        """Let a program print the secret whenever it is needed. Raises CredentialError."""
        require_name(name)
        self._put({name: Kept(set_ms=now_ms, argv=argv)})

    def remove(self, names: Iterable[str]) -> None:
        """Forget all of these or none. Raises CredentialError for a name that is not set."""
        gone = frozenset(names)

        def edit(document: Document) -> Document:
            for name in sorted(gone):
                _known(document, name)
            return replace(document, secrets=_without(document.secrets, gone))

        self._store.change(edit)

    def _put(self, kept: Mapping[str, Kept]) -> None:
        self._store.change(lambda document: replace(document, secrets={**document.secrets, **kept}))


def secret_values(env: HostEnvironment, names: Iterable[str]) -> Mapping[str, str]:
    """These secrets, for one MCP server; `secrets` goes before the user's `mcp-secrets.env`.

    Raises CredentialError, also for a name that is not set, and when a program that prints one fails.
    """
    known = SecretStore(env).read().secrets
    in_file = _env_file(env)
    return {
        name: Secrets(env).reveal(name) if name in known or name not in in_file else in_file[name]
        for name in names
    }


def names_set(env: HostEnvironment) -> frozenset[str]:
    """The names of all secrets that MCP servers may ask for: those of `secrets`, and in the user's `mcp-secrets.env`.

    Raises CredentialError.
    """
    return frozenset((*_env_file(env), *SecretStore(env).read().secrets))


def _env_file(env: HostEnvironment) -> Mapping[str, str]:
    path = env.config_dir / "mcp-secrets.env"
    try:
        data = read_private(path, home=env.home, follow=True)
    except FileNotFoundError:
        data = b""
    return parse_env_file(data, origin=str(path))


def require_name(name: str) -> None:
    """Raises CredentialError for what is no name of a secret."""
    if not _NAME.fullmatch(name):
        raise CredentialError(
            f"{name!r} is no name of a secret",
            hint="It begins with a letter or _, and has letters, digits, '_', '.' and '-', at most 100.",
        )


def parse_env_file(data: bytes, *, origin: str) -> dict[str, str]:
    """Secrets in lines `NAME=value`; `#` begins a comment line, quotes around a value are taken off.

    Raises CredentialError that names `origin`, the line and never the value.
    """
    lines = data.split(b"\n")
    if len(lines) > _MAX_LINES:
        raise CredentialError(f"{origin} has more than {_MAX_LINES} lines", hint="It is no file of secrets.")
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        where = f"{origin}:{number}"
        stripped = line.strip()
        if not stripped or stripped.startswith(b"#"):
            continue
        name, equals, value = stripped.removeprefix(b"export ").partition(b"=")
        key = name.strip().decode("ascii", "replace")
        if not equals or not _NAME.fullmatch(key):
            # the line itself may be a secret
            raise CredentialError(f"{where} is not of the form NAME=value", hint=f"Correct line {number}.")
        if key in found:
            raise CredentialError(f"{where} sets {key} a second time", hint="Remove one of the lines.")
        found[key] = secret_text(_unquoted(value.strip()), source=f"{key} ({where})")
    return found


def _unquoted(value: bytes) -> bytes:
    if len(value) >= 2 and value[:1] == value[-1:] and value[:1] in (b'"', b"'"):
        return value[1:-1]
    return value


def _known(document: Document, name: str) -> Kept:
    kept = document.secrets.get(name)
    if kept is None:
        close = close_to(name, document.secrets)
        hint = f"Did you mean {close[0]}?" if close else f"Set it: `coding-agents secrets set {name}`."
        raise CredentialError(f"there is no secret {name!r}", hint=hint)
    return kept


def _without(secrets: Mapping[str, Kept], gone: frozenset[str]) -> dict[str, Kept]:
    return {name: kept for name, kept in secrets.items() if name not in gone}
