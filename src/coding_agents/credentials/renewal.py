"""Renewing the tokens that are coding-agents' own: one owner, one request at a time, kept before they are used.

Providers rotate: a renewal makes the token by which it was asked for worthless. So each is made under a lock of the
user, and by a thread that carries it to its end, whoever stops waiting. docs/adr/0018 says whose tokens are renewed.
"""

from __future__ import annotations

import asyncio
import re

import msgspec
from msgspec.structs import replace

from coding_agents.brokers.http.tls import tls_context
from coding_agents.brokers.http.upstream import Upstream, UpstreamError, parse_address, proxy_for
from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.formats import jwt_expiry_ms
from coding_agents.credentials.store import Choice, Document, SecretStore
from coding_agents.credentials.tokens import Tokens, kept_tokens, read_tokens
from coding_agents.credentials.values import require_credential
from coding_agents.errors import CredentialError
from coding_agents.images.hostnet import host_certificates
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.provider import Renewal
from coding_agents.store.files import locked

LEAD_MS = 5 * 60_000
"""So long before its end a token is renewed."""

_LOCK_S = 60.0
_SILENCE_S = 30.0
_MAX_ANSWER = 64 * 1024
_SLUG = re.compile(r"[a-z_]{1,40}")
_OVER = (400, 401)  # anything else may be a proxy or a wall before it


class NotRenewedError(Exception):
    """The token endpoint was not reached, or is in trouble: the old tokens may still be good. The message is safe."""


def is_due(tokens: Tokens, *, now_ms: int) -> bool:
    """Whether tokens should be renewed, and can be."""
    return bool(tokens.refresh) and tokens.expires_ms is not None and tokens.expires_ms - now_ms < LEAD_MS


def renew(manifest: AgentManifest, renewal: Renewal, env: HostEnvironment, *, now_ms: int) -> Tokens:
    """The agent's tokens, renewed unless somebody else has just done that. Blocks.

    Raises CredentialError when a new login is needed or the tokens are not kept any more, NotRenewedError when the
    provider cannot be asked, StoreError when the store cannot be written: nothing is asked then.
    """
    store = SecretStore(env)
    lock = store.path.with_name(f"login-{manifest.name}.lock")
    with locked(lock, timeout_s=_LOCK_S):
        choice, tokens = read_tokens(store, manifest)
        if not is_due(tokens, now_ms=now_ms):
            return tokens
        # Written first: where that fails, no token is spent. It tells, too, that one may have been, if no answer came.
        asking = replace(tokens, asked_ms=now_ms)
        choice = _put(store, manifest.name, choice, asking, now_ms=now_ms)
        try:
            new = asyncio.run(_ask(renewal, tokens, env, now_ms=now_ms))
        except _RefusedError as error:
            raise _login_again(manifest, error.reason, interrupted=bool(tokens.asked_ms)) from None
        _put(store, manifest.name, choice, new, now_ms=now_ms)
        return new


def _put(store: SecretStore, agent: str, old: Choice, tokens: Tokens, *, now_ms: int) -> Choice:
    """Keep `tokens` in place of `old`, unless the user has chosen something else meanwhile."""
    new = replace(old, kept=kept_tokens(store, tokens, now_ms=now_ms), expires_ms=tokens.expires_ms)

    def edit(document: Document) -> Document:
        if document.logins.get(agent) != old:
            raise CredentialError(
                f"the login of {agent} was changed while its token was renewed", hint="Try again."
            )
        return replace(document, logins={**document.logins, agent: new})

    store.change(edit)
    return new


class _RefusedError(Exception):
    """The token endpoint takes the refresh token no more."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Answer(msgspec.Struct):
    access_token: str
    refresh_token: str | None = None
    expires_in: int | float | None = None


async def _ask(renewal: Renewal, tokens: Tokens, env: HostEnvironment, *, now_ms: int) -> Tokens:
    body = {"grant_type": "refresh_token", "refresh_token": tokens.refresh, "client_id": renewal.client_id}
    status, data = await _post(renewal.url, msgspec.json.encode(body), env)
    if status in _OVER:
        raise _RefusedError(_slug(data))
    if status != 200:
        raise NotRenewedError(f"the provider's token endpoint answers {status}")
    try:
        answer = msgspec.json.decode(data, type=_Answer)
        access = require_credential(answer.access_token, source="what the token endpoint answers")
        refresh = require_credential(
            answer.refresh_token or tokens.refresh, source="what the token endpoint answers"
        )
    except (ValueError, msgspec.MsgspecError, CredentialError):
        raise _RefusedError("its answer holds no token") from None
    ends = jwt_expiry_ms(access) if answer.expires_in is None else now_ms + int(answer.expires_in * 1000)
    return Tokens(access=access, refresh=refresh, expires_ms=ends, account=tokens.account)


async def _post(url: str, body: bytes, env: HostEnvironment) -> tuple[int, bytes]:
    """POST to the token endpoint as the host reaches it: by its proxy, trusting its own authorities. No redirects."""
    address = parse_address(url)
    if address is None:
        raise NotRenewedError(f"{url!r} is no address of a token endpoint")
    path, plain = address.prefix, replace(address, prefix="")
    upstream = Upstream(
        plain,
        proxy=proxy_for(plain, env.environ),
        context=lambda: tls_context(host_certificates(env.environ)),
    )
    headers = [("content-type", "application/json"), ("accept", "application/json")]
    data = b""
    try:
        async with upstream.exchange("POST", path, headers, body, silence_s=_SILENCE_S) as answer:
            async for piece in answer.body:
                data += piece
                if len(data) > _MAX_ANSWER:
                    raise NotRenewedError("the token endpoint answers without end")
            return answer.status, data
    except UpstreamError as error:
        raise NotRenewedError(str(error)) from error
    finally:
        await upstream.close()


class _Failure(msgspec.Struct):
    error: str | dict[str, msgspec.Raw] = ""


def _slug(data: bytes) -> str:
    """The error's name in an answer (RFC 6749, 5.2); the rest of it is not shown."""
    try:
        found = msgspec.json.decode(data, type=_Failure).error
        if isinstance(found, dict):
            found = msgspec.json.decode(bytes(found.get("code") or b'""'), type=str)
    except (ValueError, msgspec.MsgspecError):
        return "refused"
    return found if _SLUG.fullmatch(found) else "refused"


def _login_again(manifest: AgentManifest, reason: str, *, interrupted: bool) -> CredentialError:
    why = ", and the answer to an earlier renewal never came" if interrupted else ""
    return CredentialError(
        f"the login of {manifest.title} is renewed no more: {reason}{why}",
        hint=f"Log in anew: `coding-agents login {manifest.name}`.",
    )
