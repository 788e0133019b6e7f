"""A session's package indexes: each request is judged, recorded, and sent by the host with the user's credential."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.rules import load_policy
from coding_agents.model.audit import AuditEvent, RecordType
from coding_agents.model.turns import Turns
from coding_agents.policy.decide import Deny, decide
from coding_agents.policy.matrix import Operation
from coding_agents.supervisor.context import SessionContext, session_settings
from coding_agents.supervisor.host_tls import host_tls
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.registry_kept import read_given, settings_registries
from coding_agents_guest.mux import Stream
from coding_agents_guest.paths import REGISTRY_PORT

if TYPE_CHECKING:
    from coding_agents.brokers.registry.http import Access, RegistryBroker
    from coding_agents.brokers.registry.places import Place, Places

_BURST, _EVERY_S, _PATIENCE_S = 1000, 0.02, 20.0
_FRESH_S = 60.0  # so long a setting and a credential count before they are read again
_FAILED_S = 5.0  # and so long that they could not be had: a program may be asked for them


class RegistryAccess:
    """One session's. The broker, and what HTTP and TLS need, is loaded with the first connection."""

    def __init__(self, session: SessionContext, journal: Journal) -> None:
        self._session = session
        self._journal = journal
        self._policy = load_policy()
        self._turns = Turns(_BURST, _EVERY_S)
        self._broker: RegistryBroker | None = None
        self._known: dict[str, tuple[float, Access | CodingAgentsError]] = {}
        self._asking = asyncio.Lock()

    @property
    def served(self) -> bool:
        """Whether the session was given any index."""
        return bool(read_given(self._session.directory))

    async def serve(self, stream: Stream) -> None:
        """Serve one connection of the guest to its end."""
        if self._broker is None:
            self._broker = self._make()
        await self._broker.serve(stream)

    async def close(self) -> None:
        if self._broker is not None:
            await self._broker.close()

    def _make(self) -> RegistryBroker:
        from coding_agents.brokers.http.upstream import proxy_for
        from coding_agents.brokers.registry.http import RegistryBroker, RegistryService

        environ = self._session.env.environ
        return RegistryBroker(
            RegistryService(
                places=self._places,
                admit=self._admit,
                refused=self._refused,
                ended=self._ended,
                proxy_for=lambda address: proxy_for(address, environ),
                tls=lambda: host_tls(environ),
            )
        )

    async def _places(self) -> Places:
        """Those that the session was given, by their names inside, whatever the settings say by now."""
        from coding_agents.brokers.registry.places import Places

        return Places(read_given(self._session.directory), REGISTRY_PORT)

    async def _admit(self, place: Place, method: str, path: str) -> Access:
        wait_s = self._turns.take(asyncio.get_running_loop().time(), patience_s=_PATIENCE_S)
        if wait_s is None:
            raise await self._denied(
                place, path, "packages are asked for too often; wait, then go on", "registry-turns"
            )
        await asyncio.sleep(wait_s)
        decision = decide(self._policy, Operation.REGISTRY_READ)
        if isinstance(decision, Deny):
            raise await self._denied(place, path, decision.reason, decision.rule, int(decision.tier))
        try:
            access = await self._access(place)
            detail = {"method": method, "index": place.registry.index, "credential": access.source}
            await self._journal.broker(
                AuditEvent(
                    RecordType.REGISTRY_REQUEST,
                    tier=int(decision.tier),
                    rule=decision.rule,
                    subject=f"{place.label}{path}",
                    detail=detail,
                )
            )
        except CodingAgentsError as error:
            raise await self._denied(place, path, error.message, "registry-credential") from error
        return access

    async def _access(self, place: Place) -> Access:
        """With what a place is asked, as of the last minute. Raises CodingAgentsError, also when it was taken back."""
        now = asyncio.get_running_loop().time()
        async with self._asking:
            until, found = self._known.get(place.label, (0.0, None))
            if found is None or now >= until:
                try:
                    found = await asyncio.to_thread(self._read_access, place)
                except CodingAgentsError as error:
                    found = error
                until = now + (_FAILED_S if isinstance(found, CodingAgentsError) else _FRESH_S)
                self._known[place.label] = (until, found)
        if isinstance(found, CodingAgentsError):
            raise found
        return found

    def _read_access(self, place: Place) -> Access:
        from coding_agents.brokers.mcp.stdio import written_forms
        from coding_agents.brokers.registry.http import Access
        from coding_agents.credentials.registries import registry_credential
        from coding_agents.errors import ConfigError

        if place.registry not in settings_registries(session_settings(self._session)):
            raise ConfigError(
                "the settings name this index no more, or otherwise; start the session again",
                hint=f"See the setting registry.{place.registry.kind}.",
            )
        address = f"{place.address.scheme}://{place.address.authority}{place.base}"
        credential = registry_credential(self._session.env, place.registry, address)
        if credential is None:
            return Access()
        forms = {form for secret in credential.secrets for form in written_forms(secret)}
        return Access(credential.source, {"authorization": credential.header}, tuple(sorted(forms)))

    async def _denied(self, place: Place, path: str, reason: str, rule: str, tier: int = 0) -> Exception:
        from coding_agents.brokers.registry.http import NotServedError

        await self._note(RecordType.REGISTRY_REFUSED, "denied", rule, tier, f"{place.label}{path}", reason)
        return NotServedError(reason)

    async def _refused(self, method: str, path: str, reason: str) -> None:
        decision = decide(self._policy, Operation.REGISTRY_OTHER)
        subject = f"{method} {path}".strip()
        await self._note(
            RecordType.REGISTRY_REFUSED, "denied", decision.rule, int(decision.tier), subject, reason
        )

    async def _ended(self, place: Place, path: str, reason: str, reflected: bool) -> None:
        decision = decide(self._policy, Operation.REGISTRY_REFLECTED)
        rule, tier = (decision.rule, int(decision.tier)) if reflected else ("", 0)
        outcome = "denied" if reflected else "failed"
        await self._note(RecordType.REGISTRY_REQUEST, outcome, rule, tier, f"{place.label}{path}", reason)

    async def _note(
        self, kind: RecordType, outcome: str, rule: str, tier: int, subject: str, reason: str
    ) -> None:
        """Record what was not done, or came to no good end, if that is possible: nothing waits for it."""
        event = AuditEvent(
            kind,
            outcome="denied" if outcome == "denied" else "failed",
            rule=rule,
            tier=tier,
            subject=subject,
            detail={"reason": reason},
        )
        with suppress(CodingAgentsError, OSError):
            await self._journal.broker(event)
