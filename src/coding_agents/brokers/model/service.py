"""What a model broker is given: whose requests it sends where, who counts and records them, and its bounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from coding_agents.brokers.http.upstream import Address
from coding_agents.brokers.model.usage import Usage
from coding_agents.model.audit import AuditEvent
from coding_agents.model.masked import Masked
from coding_agents.model.provider import Api
from coding_agents.policy.matrix import Policy

if TYPE_CHECKING:
    import ssl

_MIB = 1 << 20


class BrokerLimits(msgspec.Struct, frozen=True):
    """Bounds of one session: bytes, seconds, and requests. `burst` of them at once, then one every `every_s`."""

    body_bytes: int = 48 * _MIB
    held_bytes: int = 128 * _MIB
    answer_bytes: int = 256 * _MIB
    body_s: float = 120.0
    idle_s: float = 120.0
    silence_s: float = 600.0
    answer_s: float = 3600.0
    burst: int = 120
    every_s: float = 0.5
    patience_s: float = 20.0


class Account(Masked, frozen=True):
    """Who a session's requests are from: the headers that say so, and the secrets in them ("" and none: nobody).

    `api` is the only one that it is good for ("" for any); what is about the account itself is asked at
    `account_address`, where there is one.
    """

    MASKED = frozenset({"headers", "secrets"})

    source: str
    headers: Mapping[str, str]
    secrets: tuple[str, ...]
    address: Address
    own_address: bool = False
    api: Api | Literal[""] = ""
    account_address: Address | None = None


class Activity(Protocol):
    """Is told of each request that goes to the model, and whether its answer asked for a tool."""

    def began(self) -> None: ...
    def ended(self, *, calls: bool) -> None: ...


class ModelService(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker serves.

    `apis` are those of the agent's accounts, no two of which have a path in common, the usual one first. `account`
    gives who asks now, and raises CodingAgentsError with what to do where there is nobody; `spend` counts what was
    used of a model; `left` says why nothing more of one may be used, "" as long as something may.
    """

    apis: tuple[Api, ...]
    session: str
    server_tools: Callable[[], tuple[str, ...]]
    account: Callable[[], Awaitable[Account]]
    spend: Callable[[str, Usage], Awaitable[None]]
    left: Callable[[str], str]
    record: Callable[[AuditEvent], Awaitable[None]]
    activity: Activity
    policy: Policy
    proxy_for: Callable[[Address], str]
    tls: Callable[[], ssl.SSLContext]
    limits: BrokerLimits = BrokerLimits()
