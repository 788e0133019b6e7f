"""What the host tells the proxy: rules, limits, and how names are reached. Written there and read here; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coding_agents_guest.egress.ledger import Limits
from coding_agents_guest.egress.rules import Rules, parse_rule
from coding_agents_guest.records import asdict, dataclass


@dataclass(frozen=True)
class HostProxy:
    """The host's own proxy, by its address: names are reached through it, but those that `direct` names or ends in.

    `authorization` is what it is told (RFC 9110 §11.7.2), "" for nothing; "*" in `direct` is every name.
    """

    address: str
    port: int
    authorization: str = ""
    direct: tuple[str, ...] = ()

    def serves(self, host: str) -> bool:
        return not any(name == "*" or host == name or host.endswith(f".{name}") for name in self.direct)


@dataclass(frozen=True)
class Orders:
    """`allow_ech` lets TLS clients hide which host they mean; `names` gives addresses that nobody is asked for."""

    rules: Rules
    limits: Limits = Limits()
    allow_ech: bool = False
    host_proxy: HostProxy | None = None
    names: tuple[tuple[str, str], ...] = ()


def orders_json(orders: Orders) -> dict[str, object]:
    """The orders as JSON-able values."""
    return {
        "opened": [(rule.source, rule.text) for rule in orders.rules.opened],
        "closed": [(rule.source, rule.text) for rule in orders.rules.closed],
        "limits": asdict(orders.limits),
        "allow_ech": orders.allow_ech,
        "names": list(orders.names),
        "host_proxy": asdict(orders.host_proxy) if orders.host_proxy is not None else None,
    }


def parse_orders(told: Mapping[str, object]) -> Orders:
    """The orders in such values; all of them, or none. Raises ValueError, KeyError."""
    opened, closed = (_pairs(told[key]) for key in ("opened", "closed"))
    limits, proxy = told["limits"], told["host_proxy"]
    if not isinstance(limits, dict):
        raise ValueError("limits are an object")
    return Orders(
        Rules(
            [parse_rule(text, source) for source, text in opened],
            [parse_rule(text, source) for source, text in closed],
        ),
        Limits(**{str(key): number(value) for key, value in limits.items()}),
        told["allow_ech"] is True,
        _host_proxy(proxy) if isinstance(proxy, dict) else None,
        tuple(_pairs(told["names"])),
    )


def number(value: object) -> int:
    """A whole number that is not negative. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("not a number")
    return value


def _host_proxy(value: Mapping[str, object]) -> HostProxy:
    direct = value["direct"]
    if not isinstance(direct, (list, tuple)):
        raise ValueError("names are a list")
    return HostProxy(
        str(value["address"]), number(value["port"]), str(value["authorization"]), tuple(map(str, direct))
    )


def _pairs(value: object) -> Sequence[tuple[str, str]]:
    if not isinstance(value, list):
        raise ValueError("rules are a list")
    return [(str(source), str(text)) for source, text in value]
