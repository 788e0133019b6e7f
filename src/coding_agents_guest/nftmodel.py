"""A small interpreter for rulesets as `nft -j list` prints them: which packets does a chain accept?

It knows exactly the expressions that guard.py renders. Whatever else it meets (another expression, a jump,
a named set) is an error, because a rule that is not understood may open anything. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Union

from coding_agents_guest.records import dataclass

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
_Ranges = tuple[tuple[int, int], ...]


class UnknownRulesetError(Exception):
    """The ruleset holds something that this module cannot judge."""


@dataclass(frozen=True)
class Packet:
    """The first packet of a new flow through an interface other than lo.

    `protocol` is tcp, udp, icmpv6 or other; `discovery` the type of a neighbour discovery message, else "". `uid` is
    the user whose socket it is from; of a packet that comes in there is none, and no rule asks.
    """

    address: Address
    protocol: str
    port: int
    discovery: str = ""
    uid: int = 0


@dataclass(frozen=True)
class _Match:
    """One condition: `field` of the packet lies in `values` (not in them, if `negated`)."""

    field: str
    negated: bool
    ranges: _Ranges = ()
    names: frozenset[str] = frozenset()

    def holds(self, packet: Packet) -> bool:
        if self.field in ("lo", "known"):
            return self.negated  # no packet here passes lo or belongs to a known flow
        if self.field == "hoplimit":
            return packet.address.version == 6  # any packet may carry it, so it narrows nothing
        if self.field == "uid":
            return self._within(packet.uid) != self.negated
        if self.field == "protocol":
            return (packet.protocol in self.names) != self.negated
        if self.field == "icmpv6":
            return packet.protocol == "icmpv6" and (packet.discovery in self.names) != self.negated
        if self.field in ("daddr4", "daddr6"):
            version, value = int(self.field[-1]), int(packet.address)
            return packet.address.version == version and (self._within(value) != self.negated)
        return (
            packet.protocol in (self.field, *_ANY_PORT[self.field])
            and self._within(packet.port) != self.negated
        )

    def _within(self, value: int) -> bool:
        return any(low <= value <= high for low, high in self.ranges)


@dataclass(frozen=True)
class _Rule:
    """`over` tells that it is for what comes in excess of so many bytes a second alone: then it opens nothing."""

    matches: tuple[_Match, ...]
    accepts: bool
    over: int | None = None


@dataclass(frozen=True)
class Chain:
    """One chain: its hook and its rules in order. A base chain has type, hook and policy, others have ""."""

    type: str
    hook: str
    policy: str
    rules: tuple[_Rule, ...] = ()

    def accepts(self, packet: Packet) -> bool:
        """Whether the chain lets `packet` through."""
        for rule in self.rules:
            if rule.over is None and all(match.holds(packet) for match in rule.matches):
                return rule.accepts
        return self.policy == "accept"

    @property
    def rate(self) -> int | None:
        """Bytes a second to which all is limited that does not pass lo; None without such a limit."""
        for rule in self.rules:
            if rule.over is not None and not rule.matches:
                return rule.over
            if not (len(rule.matches) == 1 and rule.matches[0] == _Match("lo", negated=False)):
                return None  # what this one accepts is not limited
        return None

    def edges(self, version: int) -> set[int]:
        """Every address at which the verdict can change: between two of them it is the same."""
        return {0} | self._edges(f"daddr{version}")

    def ports(self) -> set[int]:
        """Every port at which the verdict can change."""
        return self._edges("th") | self._edges("tcp") | self._edges("udp")

    def uids(self) -> set[int]:
        """Every user at whom the verdict can change."""
        return {0} | self._edges("uid")

    def discovery(self) -> set[str]:
        """The neighbour discovery messages that some rule names, and one that none does."""
        named = (match.names for rule in self.rules for match in rule.matches if match.field == "icmpv6")
        return {"nd-redirect"}.union(*named)

    def _edges(self, field: str) -> set[int]:
        ranges = [
            one
            for rule in self.rules
            for match in rule.matches
            if match.field == field
            for one in match.ranges
        ]
        return {low for low, _ in ranges} | {high + 1 for _, high in ranges}


def parse_chains(nft_json: Mapping[str, Any], *, family: str, table: str) -> dict[str, Chain]:
    """The chains of one table by name. Raises UnknownRulesetError, also when the table is not there."""
    try:
        return _parse_chains(nft_json["nftables"], family, table)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UnknownRulesetError(f"not a ruleset of nft: {error!r}") from None


def _parse_chains(entries: Iterable[Mapping[str, Any]], family: str, table: str) -> dict[str, Chain]:
    found: list[Mapping[str, Any]] = []
    heads: dict[str, Mapping[str, Any]] = {}
    rules: dict[str, list[_Rule]] = {}
    for entry in entries:
        ((kind, body),) = entry.items()
        if kind == "table" and (body["family"], body["name"]) == (family, table):
            found.append(body)
        if (body.get("family"), body.get("table")) != (family, table):
            continue
        if kind == "chain":
            heads[body["name"]] = body
        elif kind == "rule":
            rules.setdefault(body["chain"], []).append(_parse_rule(body["expr"]))
        else:
            raise UnknownRulesetError(f"unexpected {kind} in table {table!r}")
    if not found:
        raise UnknownRulesetError(f"table {table!r} is missing")
    if found[0].get("flags"):
        raise UnknownRulesetError(f"table {table!r} has flags {found[0]['flags']}")
    return {
        name: Chain(
            head.get("type", ""), head.get("hook", ""), head.get("policy", ""), tuple(rules.get(name, ()))
        )
        for name, head in heads.items()
    }


def _parse_rule(expressions: Iterable[Mapping[str, Any]]) -> _Rule:
    matches: list[_Match] = []
    over: int | None = None
    for expression in expressions:
        ((kind, body),) = expression.items()
        if over is not None and kind not in ("counter", "drop"):
            raise UnknownRulesetError("a limit of the rate that does more than drop")
        if kind in ("accept", "reject", "drop"):
            if kind != "accept" and any(match.field == "hoplimit" for match in matches):
                raise UnknownRulesetError("refusal that depends on the hop limit")
            return _Rule(tuple(matches), kind == "accept", over)
        if kind == "limit":
            over = _parse_limit(body)
        elif kind == "match":
            matches.append(_parse_match(body["op"], body["left"], body["right"]))
        elif kind != "counter":
            raise UnknownRulesetError(f"unknown expression {kind!r}")
    raise UnknownRulesetError("rule without a verdict")


def _parse_limit(body: Mapping[str, Any]) -> int:
    """`limit rate over N bytes/second`: N, whatever unit nft shows it in."""
    if not body.get("inv") or body["per"] != "second" or body.get("rate_unit") not in _UNITS:
        raise UnknownRulesetError(f"unknown limit {dict(body)!r}")
    return int(body["rate"]) * _UNITS[body["rate_unit"]]


def _parse_match(op: str, left: Mapping[str, Any], right: Any) -> _Match:
    if op not in ("==", "!=", "in"):
        raise UnknownRulesetError(f"unknown comparison {op!r}")
    ((kind, body),) = left.items()
    left_name = (kind, *(body[key] for key in ("protocol", "field", "key") if key in body))
    values = right["set"] if isinstance(right, dict) and "set" in right else right
    values = values if isinstance(values, list) else [values]
    negated = op == "!="
    if left_name in _LO and values == ["lo"]:
        return _Match("lo", negated)
    if left_name == ("ct", "state") and values and set(values) <= {"established", "related"}:
        return _Match("known", negated)
    if left_name == ("payload", "ip6", "hoplimit") and (op, values) == ("==", [255]):
        return _Match("hoplimit", negated)
    if left_name == ("meta", "l4proto"):
        return _Match("protocol", negated, names=frozenset(_PROTOCOLS[str(value)] for value in values))
    if left_name == ("payload", "icmpv6", "type"):
        return _Match("icmpv6", negated, names=frozenset(map(str, values)))
    if left_name in _NUMBERS:
        return _Match(_NUMBERS[left_name], negated, ranges=tuple(map(_range, values)))
    raise UnknownRulesetError(f"unknown condition on {' '.join(left_name)}")


_UNITS = {"bytes": 1, "kbytes": 1 << 10, "mbytes": 1 << 20}
# A port of "th" is read from any protocol's header, wherever the packet has one.
_ANY_PORT = {"th": ("tcp", "udp", "other"), "tcp": (), "udp": ()}
_LO = (("meta", "iif"), ("meta", "oif"), ("meta", "iifname"), ("meta", "oifname"))
_PROTOCOLS = {"6": "tcp", "17": "udp", "tcp": "tcp", "udp": "udp"}
_NUMBERS = {
    ("meta", "skuid"): "uid",
    ("payload", "ip", "daddr"): "daddr4",
    ("payload", "ip6", "daddr"): "daddr6",
    ("payload", "th", "dport"): "th",
    ("payload", "tcp", "dport"): "tcp",
    ("payload", "udp", "dport"): "udp",
}


def _range(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    if isinstance(value, str):
        address = int(ipaddress.ip_address(value))
        return address, address
    ((kind, body),) = value.items()
    if kind == "prefix":
        network = ipaddress.ip_network(f"{body['addr']}/{body['len']}")
        return int(network.network_address), int(network.broadcast_address)
    low, high = body  # {"range": [low, high]}
    if kind != "range":
        raise UnknownRulesetError(f"unknown value {kind!r}")
    return _range(low)[0], _range(high)[1]
