"""A session's access to its model: the broker with the user's account, settings, budgets and audit log behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from coding_agents.errors import CodingAgentsError, CredentialError
from coding_agents.gitsync.rules import load_policy
from coding_agents.images.manifests import load_manifest
from coding_agents.model.audit import RecordType
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.provider import Api
from coding_agents.model.settings import Settings
from coding_agents.model.spending import NO_COST, NO_TOKENS, price_of
from coding_agents.supervisor.activity import ActivityWatch
from coding_agents.supervisor.context import SessionContext, session_settings
from coding_agents.supervisor.host_tls import host_tls
from coding_agents.supervisor.journal import Journal, now_ms
from coding_agents_guest.mux import Stream

if TYPE_CHECKING:
    from coding_agents.brokers.http.upstream import Address
    from coding_agents.brokers.model.broker import ModelBroker
    from coding_agents.brokers.model.service import Account
    from coding_agents.brokers.model.usage import Usage
    from coding_agents.credentials.model import ModelCredential

OnBudget = Callable[[str], None]
"""Is told once, and why, when the session has used up a budget."""


class ModelAccess:
    """One session's. The broker, and what HTTP and TLS need, is loaded with the first connection."""

    def __init__(
        self, session: SessionContext, journal: Journal, on_budget: OnBudget, activity: ActivityWatch
    ) -> None:
        self._session = session
        self._journal = journal
        self._on_budget = on_budget
        self._activity = activity
        self._broker: ModelBroker | None = None
        self._counting = asyncio.Lock()
        self._told = False

    @property
    def served(self) -> bool:
        """Whether the session's agent has a model that the host knows. An agent whose manifest is gone has none."""
        try:
            return self._manifest().model is not None
        except CodingAgentsError:
            return False

    async def serve(self, stream: Stream) -> None:
        """Serve one connection of the guest to its end."""
        if self._broker is None:
            self._broker = self._make()
        await self._broker.serve(stream)

    async def close(self) -> None:
        if self._broker is not None:
            await self._broker.close()

    def _manifest(self) -> AgentManifest:
        return load_manifest(self._session.record.agent, self._session.env.config_dir / "agents")

    def _settings(self) -> Settings:
        return session_settings(self._session)

    def _make(self) -> ModelBroker:
        from coding_agents.brokers.http.upstream import proxy_for
        from coding_agents.brokers.model.broker import ModelBroker
        from coding_agents.brokers.model.service import ModelService

        manifest = self._manifest()
        if manifest.model is None:
            raise AssertionError("a model is served only where the manifest names one")
        return ModelBroker(
            ModelService(
                apis=_apis(manifest),
                session=self._session.record.id,
                server_tools=self._server_tools,
                account=partial(self._account, manifest),
                spend=self._spend,
                left=self._left,
                record=self._journal.broker,
                activity=self._activity,
                policy=load_policy(),
                proxy_for=lambda address: proxy_for(address, self._session.env.environ),
                tls=lambda: host_tls(self._session.env.environ),
            )
        )

    def _server_tools(self) -> tuple[str, ...]:
        return self._settings().model_server_tools

    async def _account(self, manifest: AgentManifest) -> Account:
        """Who asks now. A setting that cannot be read is no reason to ask somebody else than the user's gateway."""
        from coding_agents.credentials.fresh import fresh_credential

        gateway = (await asyncio.to_thread(self._settings)).model_upstream
        credential = await fresh_credential(manifest, self._session.env, now_ms=now_ms())
        return account_of(manifest, credential, gateway)

    def _left(self, model: str) -> str:
        """Why the session may use no more of `model`, "" while it may."""
        limits, spent = self._session.record.limits, self._session.record.spent
        tokens, cost = int(limits.get("tokens", NO_TOKENS)), Decimal(limits.get("cost", NO_COST))
        if spent.tokens >= tokens:
            return f"the session's budget of {tokens} tokens is used up"
        if cost < NO_COST:
            if spent.cost >= cost * 1_000_000:
                return f"the session's budget of ${cost} is used up"
            if model and price_of(model, self._settings().model_prices) is None:
                return f"the session has a budget in dollars, and the setting model.prices has no price for {model}"
        return ""

    async def _spend(self, model: str, used: Usage) -> None:
        """Add to the session's record, durably, and tell of a budget that is used up."""
        async with self._counting:
            price = price_of(model, self._settings().model_prices)
            spent = self._session.record.spent.plus(
                read=used.read, cached=used.cached, written=used.written, price=price
            )
            await asyncio.to_thread(self._session.update, spent=spent)
        detail = {"read": used.read, "cached": used.cached, "written": used.written}
        self._journal.note(RecordType.MODEL_USED, subject=model, detail=detail)
        if not self._told and (reason := self._left("")):
            self._told = True
            self._on_budget(reason)


def account_of(manifest: AgentManifest, credential: ModelCredential | None, gateway: str) -> Account:
    """Who asks whom: with the user's `credential`, at `gateway` if there is one. Raises CredentialError."""
    from coding_agents.brokers.model.service import Account
    from coding_agents.credentials.model import require_fitting

    own = manifest.model.upstream if manifest.model is not None else ""
    if credential is None:
        if not gateway:
            raise CredentialError(
                f"this host has no login for {manifest.title}",
                hint=f"Run `coding-agents login {manifest.name}` on the host.",
            )
        return Account(source="none", headers={}, secrets=(), address=_address(gateway))
    if not gateway:
        require_fitting(manifest, credential)
    about = "" if gateway else credential.login.account_upstream
    return Account(
        source=credential.source,
        headers=credential.headers,
        secrets=(credential.secret,),
        address=_address(gateway or credential.upstream),
        own_address=not gateway and credential.upstream != own,
        api=credential.login.api or _apis(manifest)[0],
        account_address=_address(about) if about else None,
    )


def _apis(manifest: AgentManifest) -> tuple[Api, ...]:
    """Those of all accounts that the agent can be served for, the service's own first."""
    own = (manifest.model.api,) if manifest.model is not None else ()
    return tuple(dict.fromkeys((*own, *(login.api for login in manifest.login if login.api is not None))))


def _address(url: str) -> Address:
    from coding_agents.brokers.http.upstream import parse_address

    address = parse_address(url)
    if address is None:
        raise CredentialError(f"{url!r} is no address of a model", hint="Correct the setting model.upstream.")
    return address
