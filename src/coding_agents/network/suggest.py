"""From a session's refusals to rules that would allow them, as narrow as they can be. Pure; nothing is applied."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from coding_agents.model.audit import AuditRecord, RecordType
from coding_agents_guest.egress.hosts import parse_host
from coding_agents_guest.egress.rules import PLAIN, TUNNEL, Request, RuleError, parse_rule

_FOR_WANT_OF_A_RULE = ("not-listed", "port", "scheme", "method", "path")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._~+=:@,-]*")  # no quote, nor what a shell could read: people copy it
_PORTS = {TUNNEL: 443, PLAIN: 80}


class Proposal(msgspec.Struct, frozen=True):
    """One rule, how often it was wanted, and a request that it would allow."""

    rule: str
    times: int
    request: Request


def suggest(records: Iterable[AuditRecord]) -> list[Proposal]:
    """A rule for each host, port and kind of request that was refused, the most wanted first.

    Plain requests get their methods and the directory that is common to their paths. No `*` is ever proposed: what else
    is below a name, no refusal tells.
    """
    wanted: dict[tuple[str, str, int], list[Request]] = {}
    for record in records:
        if record.type is RecordType.EGRESS and record.detail.get("reason") in _FOR_WANT_OF_A_RULE:
            request = _request_of(record)
            if request is not None:
                wanted.setdefault((request.scheme, request.host, request.port), []).append(request)
    found = [_proposal(requests) for requests in wanted.values()]
    return sorted((one for one in found if one is not None), key=lambda one: (-one.times, one.rule))


def _proposal(requests: list[Request]) -> Proposal | None:
    one = requests[0]
    port = "" if one.port == _PORTS[one.scheme] else f":{one.port}"
    text = f"{one.scheme}://{one.host}{port}"
    if one.scheme == PLAIN:
        methods = ",".join(sorted({request.method for request in requests}))
        common = posixpath.commonpath([posixpath.dirname(request.path) or "/" for request in requests])
        if not _PLAIN_PATH.fullmatch(common):
            return None
        text = f"{methods} {text}{common.rstrip('/')}/" if common != "/" else f"{methods} {text}"
    try:
        return Proposal(parse_rule(text, "user").text, len(requests), one)
    except RuleError:
        return None  # what can be no rule (a path with escapes) is not proposed


def _request_of(record: AuditRecord) -> Request | None:
    """The request that a record tells of; None for what was never one."""
    try:
        parts = urlsplit(record.subject)
        port = parts.port
        host = parse_host(parts.hostname or "")
    except ValueError:
        return None
    if not record.subject.isprintable() or parts.scheme not in _PORTS or not port:
        return None
    return Request(parts.scheme, host, port, str(record.detail.get("method", "")), parts.path or "/")
