"""The APIs that the broker knows: which paths are open, which headers pass, and what reads their bodies.

Whatever is not here is closed: files, batches, fine-tuning, keys, administration, realtime. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from coding_agents.brokers.model import anthropic, copilot, gemini, openai
from coding_agents.brokers.model.shapes import Family, Kind
from coding_agents.brokers.model.usage import Usage
from coding_agents.model.provider import Api


class Endpoint(msgspec.Struct, frozen=True):
    """One open path, and the queries that it may have. `body` is the shape of its request, None where there is none.

    `of_account` tells that it is about the account itself, which may have another address.
    """

    method: str
    path: re.Pattern[str]
    query: re.Pattern[str]
    body: Kind | None = None
    of_account: bool = False


class Protocol(msgspec.Struct, frozen=True):
    """One API. Header names are in lower case; one that ends in `*` stands for all that begin so.

    `version` is the part of a path that an account's own address takes the place of.
    """

    endpoints: tuple[Endpoint, ...]
    families: Mapping[str, Family]
    request_headers: tuple[str, ...]
    response_headers: tuple[str, ...]
    usage_of: Callable[[Mapping[str, Any]], Usage | None]
    error_body: Callable[[int, str], dict[str, Any]]
    personalise: Callable[[dict[str, Any], str], None]
    version: str = ""

    def endpoint(self, method: str, path: str, query: str) -> Endpoint | None:
        """The open path that a request asks for."""
        found = (one for one in self.endpoints if one.method == method and one.path.fullmatch(path))
        return next((one for one in found if one.query.fullmatch(query)), None)


_MODEL = "[A-Za-z0-9][A-Za-z0-9._:@-]*"
_ANSWER_HEADERS = (
    "content-type", "cache-control", "date", "retry-after", "retry-after-ms", "request-id", "x-request-id",
    "x-should-retry", "x-ratelimit-*",
)  # fmt: skip
_ASK_HEADERS = ("accept", "content-type", "user-agent", "x-stainless-*")


def _endpoint(method: str, path: str, body: Kind | None = None, *queries: str) -> Endpoint:
    return Endpoint(method, re.compile(path), re.compile("|".join(map(re.escape, ("", *queries)))), body)


def _of_account(path: str, query: str = "") -> Endpoint:
    return Endpoint("GET", re.compile(path), re.compile(query), of_account=True)


PROTOCOLS: Mapping[Api, Protocol] = {
    "anthropic": Protocol(
        endpoints=(
            _endpoint("POST", "/v1/messages", anthropic.REQUEST, "beta=true"),
            _endpoint("POST", "/v1/messages/count_tokens", anthropic.REQUEST, "beta=true"),
            _endpoint("GET", f"/v1/models(/{_MODEL})?", None, "beta=true", "limit=1000"),
        ),
        families=anthropic.FAMILIES,
        request_headers=(*_ASK_HEADERS, "anthropic-version", "anthropic-beta", "x-app"),
        response_headers=(*_ANSWER_HEADERS, "anthropic-ratelimit-*"),
        usage_of=anthropic.usage_of,
        error_body=anthropic.error_body,
        personalise=anthropic.personalise,
    ),
    "openai": Protocol(
        endpoints=(
            _endpoint("POST", "/v1/responses", openai.RESPONSES),
            _endpoint("POST", "/v1/responses/compact", openai.RESPONSES),
            _endpoint("POST", "/v1/chat/completions", openai.CHAT),
            _endpoint("GET", f"/v1/models(/{_MODEL})?"),
        ),
        families=openai.FAMILIES,
        request_headers=(*_ASK_HEADERS, "openai-beta", "originator", "version", "session_id", "session-id"),
        response_headers=(*_ANSWER_HEADERS, "openai-model", "openai-processing-ms", "x-reasoning-included"),
        usage_of=openai.usage_of,
        error_body=openai.error_body,
        personalise=openai.personalise,
        version="/v1",
    ),
    "gemini": Protocol(
        endpoints=(
            _endpoint("POST", f"/v1beta/models/{_MODEL}:generateContent", gemini.REQUEST),
            _endpoint("POST", f"/v1beta/models/{_MODEL}:streamGenerateContent", gemini.REQUEST, "alt=sse"),
            _endpoint("POST", f"/v1beta/models/{_MODEL}:countTokens", gemini.REQUEST),
            _endpoint("GET", f"/v1beta/models(/{_MODEL})?"),
        ),
        families=gemini.FAMILIES,
        request_headers=(*_ASK_HEADERS, "x-goog-api-client"),
        response_headers=_ANSWER_HEADERS,
        usage_of=gemini.usage_of,
        error_body=gemini.error_body,
        personalise=gemini.personalise,
    ),
    # What the CLI asks GitHub before it asks a model: whose token it has, what the organisation allows it. Closed are
    # its telemetry, its memory at GitHub's and GitHub's own MCP servers, through which an account can be searched.
    "copilot": Protocol(
        endpoints=(
            _of_account("/copilot_internal/user"),
            _of_account("/copilot_internal/managed_settings", r"client_id=github%2Fcli(&[a-z_]+=[0-9.]+)*"),
            _of_account("/copilot/mcp_registry"),
            _endpoint("GET", f"/capi/models(/{_MODEL})?"),
            _endpoint("POST", "/capi/chat/completions", copilot.CHAT),
            _endpoint("POST", "/capi/responses", copilot.RESPONSES),
            _endpoint("POST", "/capi/v1/messages", copilot.MESSAGES),
        ),
        families=copilot.FAMILIES,
        request_headers=(
            *_ASK_HEADERS,
            "anthropic-version",
            "anthropic-beta",
            "copilot-harness-id",
            "copilot-integration-id",
            "copilot-vision-request",
            "editor-version",
            "openai-intent",
            "x-agent-task-id",
            "x-client-*",
            "x-github-api-version",
            "x-github-repository-*",
            "x-initiator",
            "x-interaction-*",
        ),
        response_headers=(
            *_ANSWER_HEADERS,
            "x-github-request-id",
            "x-quota-snapshot-*",
            "x-usage-ratelimit-*",
        ),
        usage_of=copilot.usage_of,
        error_body=openai.error_body,
        personalise=copilot.personalise,
        version="/capi",
    ),
}

# An account's own betas are added to those that the client asks for; anything else is the account's alone.
_JOINED = frozenset({"anthropic-beta", "openai-beta"})


def passing(names: tuple[str, ...], headers: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """The headers that `names` let through, each at most once."""
    kept = dict(reversed([(name, value) for name, value in headers if _listed(name, names)]))
    return sorted(kept.items())


def upstream_headers(
    protocol: Protocol, headers: tuple[tuple[str, str], ...], account: Mapping[str, str]
) -> list[tuple[str, str]]:
    """The headers of a request to the provider: a new set, of those that pass and the account's.

    The answer is asked for as it is, uncompressed: it is searched on its way.
    """
    fresh = dict(passing(protocol.request_headers, headers))
    for name, value in account.items():
        asked = fresh.get(name, "").split(",") if name in _JOINED else []
        fresh[name] = ",".join(dict.fromkeys([value, *(one.strip() for one in asked if one.strip())]))
    return [*fresh.items(), ("accept-encoding", "identity")]


def _listed(name: str, names: tuple[str, ...]) -> bool:
    return any(name == one or (one.endswith("*") and name.startswith(one[:-1])) for one in names)
