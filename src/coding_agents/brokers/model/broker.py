"""The model broker of one session: reads each request whole, judges it, records it, and only then carries it out.

The guest holds a dummy instead of a key. Where a request goes is a constant; it is made anew from what was
understood, with the user's credential; the answer streams back as it comes, searched for the credential's bytes.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from coding_agents.brokers.http.request import (
    ByteStream,
    GuestConnection,
    HttpRequest,
    RefusedRequestError,
    Room,
)
from coding_agents.brokers.http.upstream import Address, Answer, Upstream, UpstreamError
from coding_agents.brokers.model.apis import PROTOCOLS, Endpoint, Protocol, passing, upstream_headers
from coding_agents.brokers.model.body import MalformedBodyError, findings, read_body, write_body
from coding_agents.brokers.model.keyscan import KeyScanner, ReflectedError
from coding_agents.brokers.model.refused import denied, failed
from coding_agents.brokers.model.service import Account, ModelService
from coding_agents.brokers.model.shapes import Kind
from coding_agents.brokers.model.turn import TurnReader
from coding_agents.brokers.model.usage import Usage, UsageReader, estimate
from coding_agents.errors import CodingAgentsError
from coding_agents.model.audit import AuditEvent, RecordType
from coding_agents.model.provider import Api
from coding_agents.model.turns import Turns
from coding_agents.policy.decide import Deny, decide
from coding_agents.policy.matrix import Operation

_PASSING = (408, 429, 502, 503)  # worth another try
_LARGE = 64 * 1024  # a body that takes long enough to judge that others would notice
_OTHER_ACCOUNT = (
    "the login on the host is one for another service by now; stop the session and start it again"
)


class _RefusalError(Exception):
    """A request that is not carried out."""

    def __init__(self, status: int, reason: str, event: AuditEvent | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.event = status, reason, event


class _Judged(msgspec.Struct, frozen=True):
    """A request that may be carried out: its API, its target there, the body that was judged, who reads the answer."""

    api: Api
    target: str
    of_account: bool = False
    body: bytes = b""
    model: str = ""
    turn: TurnReader = msgspec.field(default_factory=TurnReader)

    @property
    def protocol(self) -> Protocol:
        return PROTOCOLS[self.api]


class ModelBroker:
    """Serves the connections of one session's guest."""

    def __init__(self, service: ModelService) -> None:
        self._service = service
        self._usual: Protocol = PROTOCOLS[service.apis[0]]
        self._room = Room(service.limits.held_bytes)
        self._turns = Turns(service.limits.burst, service.limits.every_s)
        self._upstreams: dict[Address, Upstream] = {}

    async def serve(self, stream: ByteStream) -> None:
        """Serve one connection to its end. Raises nothing for what the guest sends or leaves out."""
        limits = self._service.limits
        guest = GuestConnection(stream, self._room, body_bytes=limits.body_bytes, body_s=limits.body_s)
        try:
            while await self._serve_one(guest):
                pass
        except OSError:
            stream.reset("the connection broke off")
        except (
            ReflectedError,
            UpstreamError,
        ) as error:  # in the middle of an answer: there is no other way to say so
            stream.reset(str(error) or "the answer was stopped")
        finally:
            guest.forget_body()

    async def close(self) -> None:
        """Close the connections to the provider."""
        for upstream in self._upstreams.values():
            await upstream.close()

    async def _serve_one(self, guest: GuestConnection) -> bool:
        """One request and its answer; False at the end of the connection."""
        try:
            request = await guest.next_request(self._service.limits.idle_s)
            if request is None:
                return False
            judged = await self._judge(request)
            account = await self._account()
            await self._carry_out(guest, request, judged, account)
        except RefusedRequestError as error:
            await self._refused(self._malformed("http", error.reason))
            await self._answer_error(guest, error.status, error.reason)
            return False
        except _RefusalError as error:
            if error.event is not None:
                await self._refused(error.event)
            await self._answer_error(guest, error.status, error.reason)
        return True

    async def _judge(self, request: HttpRequest) -> _Judged:
        """What is to be sent, when everything about the request may be. Raises _RefusalError."""
        limits = self._service.limits
        wait_s = self._turns.take(asyncio.get_running_loop().time(), patience_s=limits.patience_s)
        if wait_s is None:
            raise _RefusalError(429, "too many requests to the model; wait, then go on")
        await asyncio.sleep(wait_s)
        self._require_budget("")
        api, endpoint = self._asked_for(request)
        query = f"?{request.query}" if request.query else ""
        plain = _Judged(api, request.path + query, endpoint.of_account)
        if endpoint.body is None:
            return plain
        if len(request.body) < _LARGE:
            return self._judge_body(request, endpoint.body, plain)
        return await asyncio.to_thread(self._judge_body, request, endpoint.body, plain)

    def _asked_for(self, request: HttpRequest) -> tuple[Api, Endpoint]:
        """The open path that a request asks for, and of which API it is. Raises _RefusalError."""
        for api in self._service.apis:
            endpoint = PROTOCOLS[api].endpoint(request.method, request.path, request.query)
            if endpoint is not None:
                return api, endpoint
        self._require(Operation.MODEL_ENDPOINT, f"{request.method} {request.path[:200]}", status=404)
        raise AssertionError("a closed path is refused by every policy")

    def _judge_body(self, request: HttpRequest, shape: Kind, plain: _Judged) -> _Judged:
        protocol = plain.protocol
        try:
            body = read_body(request.body)
            found = findings(body, shape, protocol, allowed=self._service.server_tools())
            for finding in found:
                self._require(finding.operation, f"{finding.what!r} at {finding.where}", status=400)
            model = str(body.get("model") or _model_in(request.path))[:200]
            self._require_budget(model)
            protocol.personalise(body, self._service.session)
            return replace(plain, body=write_body(body), model=model)
        except MalformedBodyError as error:
            raise _RefusalError(400, str(error), self._malformed("body", str(error))) from error
        except CodingAgentsError as error:  # a setting that cannot be read
            raise _RefusalError(503, error.message) from error

    def _malformed(self, subject: str, reason: str) -> AuditEvent:
        """What is not understood is refused whatever the policy says, by the name of its rule."""
        return denied(decide(self._service.policy, Operation.MODEL_MALFORMED).rule, subject, reason)

    def _require_budget(self, model: str) -> None:
        if reason := self._service.left(model):
            raise _RefusalError(403, reason, denied("model-budget", model, reason))

    def _require(self, operation: Operation, what: str, *, status: int) -> None:
        """Raises _RefusalError unless the policy allows `operation`."""
        decision = decide(self._service.policy, operation)
        if isinstance(decision, Deny):
            raise _RefusalError(
                status,
                f"{decision.reason}: {what}",
                AuditEvent(
                    RecordType.MODEL_REFUSED, outcome="denied", tier=int(decision.tier), rule=decision.rule,
                    subject=what, detail={"reason": decision.reason},
                ),
            )  # fmt: skip

    async def _account(self) -> Account:
        try:
            return await self._service.account()
        except CodingAgentsError as error:
            hint = f" {error.hint}" if error.hint else ""
            raise _RefusalError(
                401, f"{error.message}.{hint}", denied("model-credential", "credential", error.message)
            ) from error

    async def _carry_out(
        self, guest: GuestConnection, request: HttpRequest, judged: _Judged, account: Account
    ) -> None:
        """Record, ask the provider, and pass its answer on. Raises _RefusalError as long as nothing was passed on."""
        service, protocol = self._service, judged.protocol
        if account.api not in ("", judged.api):
            raise _RefusalError(401, _OTHER_ACCOUNT, denied("model-credential", "credential", _OTHER_ACCOUNT))
        decision = decide(service.policy, Operation.MODEL_REQUEST)
        if isinstance(decision, Deny):
            raise _RefusalError(403, decision.reason, denied(decision.rule, judged.model, decision.reason))
        detail: dict[str, str | int] = {
            "path": request.path,
            "bytes": len(judged.body),
            "account": account.source,
        }
        try:
            await service.record(
                AuditEvent(
                    RecordType.MODEL_REQUEST, tier=int(decision.tier), rule=decision.rule,
                    subject=judged.model or request.path, detail=detail,
                )
            )  # fmt: skip
        except (CodingAgentsError, OSError) as error:
            raise _RefusalError(503, "the request cannot be recorded, so it is not sent") from error
        guest.forget_body()
        target = judged.target
        if account.own_address:
            target = target.removeprefix(protocol.version)
        address = (judged.of_account and account.account_address) or account.address
        headers = upstream_headers(protocol, request.headers, account.headers)
        service.activity.began()
        try:
            async with (
                asyncio.timeout(service.limits.answer_s),
                self._upstream(address).exchange(
                    request.method, target, headers, judged.body, silence_s=service.limits.silence_s
                ) as answer,
            ):
                await self._pass_on(guest, answer, judged, account)
        except UpstreamError as error:
            raise _RefusalError(502, str(error), failed(judged.model, str(error))) from error
        except TimeoutError:
            raise UpstreamError("the answer took too long") from None
        finally:
            service.activity.ended(calls=judged.turn.calls)

    async def _pass_on(
        self, guest: GuestConnection, answer: Answer, judged: _Judged, account: Account
    ) -> None:
        """Stream an answer to the guest and count it. Once its head is sent, what goes wrong ends the connection."""
        if 300 <= answer.status < 400:
            raise _RefusalError(
                502, f"the model's service redirects ({answer.status}), which is not followed"
            )
        fields = dict(answer.headers)
        if fields.get("content-encoding", "identity").lower() != "identity":
            raise _RefusalError(502, "the model's service compresses its answer, which is then not searched")
        kept = passing(judged.protocol.response_headers, answer.headers)
        scanner = KeyScanner(account.secrets)
        if any(secret in value for secret in account.secrets for _, value in kept):
            await self._reflected(judged)
            raise _RefusalError(502, "the answer held the credential")
        streams = fields.get("content-type", "").startswith("text/event-stream")
        reader, turn = UsageReader(judged.protocol.usage_of, stream=streams), judged.turn
        await guest.begin_answer(answer.status, kept)
        received = 0
        try:
            async for data in answer.body:
                received += len(data)
                if received > self._service.limits.answer_bytes:
                    raise UpstreamError("the answer is too long")
                reader.feed(data)
                turn.feed(data)
                if passed := scanner.feed(data):
                    await guest.write(passed)
            if rest := scanner.finish():
                await guest.write(rest)
            await guest.end_answer()
        except ReflectedError:
            await self._reflected(judged)
            raise
        except (UpstreamError, OSError) as error:
            raise ConnectionResetError(str(error)) from error
        finally:
            reader.finish()
            await self._count(reader.found, answer.status, judged, received)

    async def _count(self, found: Usage | None, status: int, judged: _Judged, received: int) -> None:
        """Count what an answer used; where it was not told, as after a broken connection, what it may have used."""
        if not judged.body or (found is None and (status != 200 or "count" in judged.target.lower())):
            return
        used = found if found is not None else estimate(len(judged.body), received)
        with suppress(CodingAgentsError, OSError):
            await self._service.spend(judged.model, used)

    async def _reflected(self, judged: _Judged) -> None:
        reason = "the answer held the credential's bytes; it was ended"
        await self._refused(denied("model-key-reflected", judged.model, reason))

    async def _refused(self, event: AuditEvent) -> None:
        with suppress(CodingAgentsError, OSError):
            await self._service.record(event)

    async def _answer_error(self, guest: GuestConnection, status: int, reason: str) -> None:
        body = self._usual.error_body(status, f"coding-agents: {reason}")
        final = [] if status in _PASSING else [("x-should-retry", "false")]  # of the providers' own clients
        await guest.answer(status, json.dumps(body).encode(), final)

    def _upstream(self, address: Address) -> Upstream:
        if address not in self._upstreams:
            self._upstreams[address] = Upstream(
                address, proxy=self._service.proxy_for(address), context=self._service.tls
            )
        return self._upstreams[address]


def _model_in(path: str) -> str:
    """The model that a path of the Gemini API names."""
    return path.rpartition("/")[2].partition(":")[0]
