"""The files in which the agents' own programs keep their logins on the host. They are read, never written.

Layouts as in docs/adr/0018: of Claude Code and of Codex with an API key seen in a run, the others taken from the
programs' documents and sources.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from coding_agents.model.masked import Masked
from coding_agents.model.provider import LoginFormat, LoginKind

_T = TypeVar("_T")
_GITHUB = "https://github.com:"


class Found(Masked, frozen=True, kw_only=True):
    """A credential in such a file; `refresh` renews it, `account` is the id that some providers want beside it."""

    MASKED = frozenset({"secret", "refresh"})

    kind: LoginKind
    secret: str
    refresh: str = ""
    expires_ms: int | None = None
    account: str = ""


def read_logins(layout: LoginFormat, data: bytes, entry: str = "") -> tuple[Found, ...]:
    """The logins in a file's content. Raises msgspec.MsgspecError, whose message holds none of the content."""
    found = _READERS[layout](data, entry)
    return tuple(one for one in found if one.secret)


class _ClaudeTokens(Masked, frozen=True, rename="camel"):
    MASKED = frozenset({"access_token", "refresh_token"})
    access_token: str = ""
    refresh_token: str | None = None
    expires_at: int | float | None = None


class _Claude(Masked, frozen=True):
    claudeAiOauth: _ClaudeTokens | None = None


def _claude(data: bytes, _entry: str) -> Iterator[Found]:
    tokens = _decoded(data, _Claude).claudeAiOauth
    if tokens is not None:
        yield Found(
            kind="oauth",
            secret=tokens.access_token,
            refresh=tokens.refresh_token or "",
            expires_ms=_whole(tokens.expires_at),
        )


class _CodexTokens(Masked, frozen=True):
    MASKED = frozenset({"access_token", "refresh_token"})
    access_token: str = ""
    refresh_token: str = ""
    account_id: str | None = None


class _Codex(Masked, frozen=True):
    MASKED = frozenset({"OPENAI_API_KEY"})
    OPENAI_API_KEY: str | None = None
    tokens: _CodexTokens | None = None


def _codex(data: bytes, _entry: str) -> Iterator[Found]:
    file = _decoded(data, _Codex)
    if file.tokens is not None:
        tokens = file.tokens
        yield Found(
            kind="oauth",
            secret=tokens.access_token,
            refresh=tokens.refresh_token,
            expires_ms=jwt_expiry_ms(tokens.access_token),
            account=tokens.account_id or "",
        )
    yield Found(kind="api-key", secret=file.OPENAI_API_KEY or "")


class _Gemini(Masked, frozen=True):
    MASKED = frozenset({"access_token", "refresh_token"})
    access_token: str = ""
    refresh_token: str = ""
    expiry_date: int | float | None = None


def _gemini(data: bytes, _entry: str) -> Iterator[Found]:
    file = _decoded(data, _Gemini)
    yield Found(
        kind="oauth",
        secret=file.access_token,
        refresh=file.refresh_token,
        expires_ms=_whole(file.expiry_date),
    )


class _CopilotUser(msgspec.Struct, frozen=True):
    host: str = ""
    login: str = ""


class _Copilot(Masked, frozen=True):
    MASKED = frozenset({"copilot_tokens", "copilotTokens"})
    copilot_tokens: dict[str, str] = msgspec.field(default_factory=dict)
    copilotTokens: dict[str, str] = msgspec.field(default_factory=dict)
    last_logged_in_user: _CopilotUser = _CopilotUser()
    lastLoggedInUser: _CopilotUser = _CopilotUser()


def _copilot(data: bytes, _entry: str) -> Iterator[Found]:
    """Those of github.com, by `HOST:LOGIN`, the user in use first: a token of another host is for that host."""
    lines = (line for line in data.split(b"\n") if not line.lstrip().startswith(b"//"))
    file = _decoded(b"\n".join(lines), _Copilot)
    tokens = {**file.copilot_tokens, **file.copilotTokens}
    last = {f"{user.host}:{user.login}" for user in (file.last_logged_in_user, file.lastLoggedInUser)}
    for name in sorted(tokens, key=lambda name: name not in last):
        if name.startswith(_GITHUB):
            yield Found(kind="oauth", secret=tokens[name])


class _OpenCodeEntry(Masked, frozen=True):
    MASKED = frozenset({"key", "access", "refresh"})
    type: str = ""
    key: str = ""
    access: str = ""
    refresh: str = ""
    expires: int | float | None = None


def _opencode(data: bytes, entry: str) -> Iterator[Found]:
    raw = _decoded(data, dict[str, msgspec.Raw]).get(entry)
    if raw is None:
        return
    login = _decoded(bytes(raw), _OpenCodeEntry)
    if login.type == "api":
        yield Found(kind="api-key", secret=login.key)
    elif login.type == "oauth":
        yield Found(
            kind="oauth", secret=login.access, refresh=login.refresh, expires_ms=_whole(login.expires)
        )


MOVED: dict[LoginFormat, tuple[str, str]] = {
    "claude": ("CLAUDE_CONFIG_DIR", ".claude"),
    "codex": ("CODEX_HOME", ".codex"),
    "copilot": ("COPILOT_HOME", ".copilot"),
    "opencode": ("XDG_DATA_HOME", ".local/share"),
}
"""The variable by which a user moves the directory of such a program, and which one that is."""

_READERS: dict[LoginFormat, Callable[[bytes, str], Iterator[Found]]] = {
    "claude": _claude,
    "codex": _codex,
    "copilot": _copilot,
    "gemini": _gemini,
    "opencode": _opencode,
}


def jwt_expiry_ms(token: str) -> int | None:
    """When a JWT says that it ends (RFC 7519, 4.1.4); None for what does not say so. Nobody checks its signature."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return _whole(msgspec.json.decode(payload, type=_Claims).exp, unit=1000)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        return None


class _Claims(msgspec.Struct):
    exp: int | float | None = None


def _decoded(data: bytes, kind: type[_T]) -> _T:
    return msgspec.json.decode(data, type=kind)


def _whole(time: float | None, *, unit: int = 1) -> int | None:
    """A time in milliseconds; 0 is how some say "never"."""
    if time is None or not 0 < time < 1e15:
        return None
    return int(time * unit)
