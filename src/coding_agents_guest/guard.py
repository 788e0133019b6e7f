"""The guard of a session's network namespace: what is open, as a pure value, its nft rules and their check.

Everything that the agent's machine must not reach is refused: the host, private and special-purpose networks,
cloud metadata, the container's own subnet. Single addresses that the user listed and the resolvers that the
engine uses are open, each at one port. The public internet is open, but for other servers of names (DNS by its
own ports can carry anything out, past whoever watches the resolvers); nothing comes in.

`verify_ruleset` does not compare texts. It interprets what the kernel reports (`nft -j list`) on every kind
of packet at which a verdict can change, and reports each one that would pass against the rules below.
The holder uses it at its own start, the host whenever it opens the gate. Nothing here does IO.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Union

from coding_agents_guest.nftmodel import Chain, Packet, UnknownRulesetError, parse_chains
from coding_agents_guest.records import dataclass

TABLE = "coding_agents_guard"
DNS_PORT = 53
# Shut to everybody but the resolvers, by TCP and UDP: DNS, and DNS over TLS and QUIC (RFC 7858, 9250).
_NAME_PORTS = (DNS_PORT, 853)

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

_BURST = 128 << 10

# IANA special-purpose registries (RFC 6890 and later entries), less what is globally reachable.
_REFUSED_4 = (
    "0.0.0.0/8",  # "this network": Linux takes 0.0.0.0 for the host itself
    "10.0.0.0/8",
    "100.64.0.0/10",  # carrier-grade NAT, and metadata of some clouds
    "127.0.0.0/8",  # loopback that does not leave through lo
    "168.63.129.16/32",  # Azure's platform address is a public one
    "169.254.0.0/16",  # link-local, metadata
    "172.16.0.0/12",
    "192.0.0.0/24",  # protocol assignments, and metadata of some clouds
    "192.0.2.0/24",  # documentation
    "192.88.99.0/24",  # 6to4 relays
    "192.168.0.0/16",
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/3",  # multicast, reserved, broadcast
)
# Global unicast. Outside lie loopback, IPv4-mapped, NAT64, unique local, link-local, multicast, discard.
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_6 = (
    "2001::/23",  # Teredo, ORCHID, benchmarks and other protocol assignments
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4: carries any IPv4 address
    "3fff::/20",  # documentation
)
# Neighbour discovery, without which IPv6 does not work at all. RFC 4861: valid only with hop limit 255.
_DISCOVERY_OUT = ("nd-neighbor-solicit", "nd-neighbor-advert", "nd-router-solicit")
_DISCOVERY_IN = ("nd-neighbor-solicit", "nd-neighbor-advert", "nd-router-advert")


@dataclass(frozen=True)
class Endpoint:
    """One address and TCP port."""

    address: Address
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """`10.1.2.3:443` or `[fd00::1]:443`. Raises ValueError."""
        host, _, port = text.rpartition(":")
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(f"not an address with a port: {text!r}")
        bracketed = host.startswith("[") and host.endswith("]")
        address = _parse_address(host[1:-1] if bracketed else host)
        if bracketed != (address.version == 6):
            raise ValueError(f"not an address with a port: {text!r}")
        return cls(address, int(port))


@dataclass(frozen=True)
class Guard:
    """What a session may reach besides the public internet (`dns`, `allow`), and its subnets (`own`).

    `rate` is how many bytes a second may pass, each way for itself; 0 without a limit. `uid` is the one user who may
    reach more than the resolvers; 0 for whoever is there.
    """

    dns: tuple[Address, ...] = ()
    allow: tuple[Endpoint, ...] = ()
    own: tuple[Network, ...] = ()
    rate: int = 0
    uid: int = 0

    @classmethod
    def parse(
        cls,
        *,
        dns: Iterable[str] = (),
        allow: Iterable[str] = (),
        own: Iterable[str] = (),
        rate: int = 0,
        uid: int = 0,
    ) -> Guard:
        """From the spelling of the command line. Raises ValueError."""
        if rate < 0 or uid < 0:
            raise ValueError(f"not a rate and a user: {rate}, {uid}")
        return cls(
            dns=tuple(_parse_address(text) for text in dns),
            allow=tuple(Endpoint.parse(text) for text in allow),
            own=tuple(ipaddress.ip_network(text) for text in own),
            rate=rate,
            uid=uid,
        )

    def is_open(self, address: Address, protocol: str, port: int, uid: int | None = None) -> bool:
        """Whether a new connection to `address` that leaves the namespace may pass; `uid` None is `self.uid`.

        >>> Guard.parse(dns=["10.0.0.2"]).is_open(ipaddress.ip_address("10.0.0.2"), "udp", 53)
        True
        """
        if protocol in ("tcp", "udp") and port == DNS_PORT and address in self.dns:
            return True
        if self.uid and uid not in (None, self.uid):
            return False
        if protocol == "tcp" and Endpoint(address, port) in self.allow:
            return True
        if protocol in ("tcp", "udp") and port in _NAME_PORTS:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_6:
            return False
        return not any(address in network for network in self.refused(address.version))

    def refused(self, version: int) -> tuple[Network, ...]:
        """The networks of IP `version` that are refused, without overlaps."""
        return _refused(self.own, version)


def render_ruleset(guard: Guard) -> str:
    """The text for `nft -f -` that replaces whatever this table held."""
    resolvers = [
        f"{_family(address)} daddr {address} meta l4proto {{ tcp, udp }} th dport {DNS_PORT} accept"
        for address in guard.dns
    ]
    # Engines ask the resolvers as root. Neighbour discovery is the kernel's own, from no user's socket.
    others = [_discovery(_DISCOVERY_OUT), f"meta skuid != {guard.uid} counter reject"] * bool(guard.uid)
    opened = [
        f"{_family(one.address)} daddr {one.address} tcp dport {one.port} accept" for one in guard.allow
    ]
    own = ["ct state established,related accept"]
    # Before all else, so that known flows are limited, too. The bucket holds a second's worth beside the burst
    # (nft_limit.c), which lets packets pass that the kernel has put together.
    limit = [f"limit rate over {guard.rate} bytes/second burst {_BURST} bytes counter drop"] * bool(
        guard.rate
    )
    return "\n".join(
        (
            f"table inet {TABLE}",  # so that the deletion never fails
            f"delete table inet {TABLE}",
            f"table inet {TABLE} {{",
            *_chain("input", ['iif "lo" accept', *limit, *own, _discovery(_DISCOVERY_IN)]),
            *_chain("forward", []),
            *_chain(
                "output",
                [
                    'oif "lo" accept',
                    *limit,
                    *own,
                    *resolvers,
                    *others,
                    *opened,
                    f"meta l4proto {{ tcp, udp }} th dport {{ {', '.join(map(str, _NAME_PORTS))} }} counter reject",
                    _discovery(_DISCOVERY_OUT),
                    f"ip daddr {_set(guard.refused(4))} counter reject",
                    f"ip6 daddr != {_GLOBAL_6} counter reject",
                    f"ip6 daddr {_set(guard.refused(6))} counter reject",
                    "counter accept",
                ],
            ),
            "}",
            "",
        )
    )


def verify_ruleset(nft_json: Mapping[str, Any], guard: Guard) -> list[str]:
    """What is wrong with a ruleset read back by `nft -j list table` or `list ruleset`; empty when nothing is.

    Refusing more than `guard` asks is no fault, except for its resolvers and listed addresses.
    """
    try:
        chains = parse_chains(nft_json, family="inet", table=TABLE)
    except UnknownRulesetError as error:
        return [str(error)]
    problems = [f"chain {name!r} is missing" for name in ("input", "forward", "output") if name not in chains]
    problems += [
        f"unexpected chain {name!r}" for name in chains if name not in ("input", "forward", "output")
    ]
    problems += [
        f"chain {name!r} is not a filter on hook {name!r} with policy drop"
        for name, chain in chains.items()
        if (chain.type, chain.hook, chain.policy) != ("filter", name, "drop")
    ]
    if guard.rate:
        problems += [
            f"chain {name!r} does not limit what passes to {guard.rate} bytes a second"
            for name in ("input", "output")
            if name in chains and chains[name].rate != guard.rate
        ]
    if not problems:
        problems = [*_wrongly_open(chains, guard), *_wrongly_shut(chains["output"], guard)]
    return problems


def _wrongly_open(chains: Mapping[str, Chain], guard: Guard) -> list[str]:
    problems = []
    for packet in _packets(chains["output"], guard):
        if chains["output"].accepts(packet) and not _may_leave(packet, guard):
            problems.append(f"{packet.protocol} to {packet.address} port {packet.port} is open")
    for name in ("input", "forward"):
        for packet in _packets(chains[name], guard):
            if chains[name].accepts(packet) and not (name == "input" and packet.discovery in _DISCOVERY_IN):
                problems.append(f"{packet.protocol} port {packet.port} is open in chain {name!r}")
    return problems[:20]


def _wrongly_shut(output: Chain, guard: Guard) -> list[str]:
    wanted = [Packet(address, one, DNS_PORT) for address in guard.dns for one in ("tcp", "udp")]
    wanted += [Packet(one.address, "tcp", one.port, uid=guard.uid) for one in guard.allow]
    return [
        f"{packet.protocol} to {packet.address} port {packet.port} is refused"
        for packet in wanted
        if not output.accepts(packet)
    ]


def _may_leave(packet: Packet, guard: Guard) -> bool:
    return packet.discovery in _DISCOVERY_OUT or guard.is_open(
        packet.address, packet.protocol, packet.port, packet.uid
    )


def _packets(chain: Chain, guard: Guard) -> Iterable[Packet]:
    """New packets that do not pass lo: one of every kind that the rules or `guard` can tell apart."""
    addresses: list[Address] = [
        ipaddress.IPv4Address(n) for n in sorted(_edges(guard, 4) | chain.edges(4)) if n < 2**32
    ]
    addresses += [ipaddress.IPv6Address(n) for n in sorted(_edges(guard, 6) | chain.edges(6)) if n < 2**128]
    told_apart = {1, *_NAME_PORTS, *(port + 1 for port in _NAME_PORTS), *chain.ports()}
    ports = sorted(port for port in told_apart if 0 < port < 65536)
    uids = sorted(chain.uids() | ({guard.uid, guard.uid + 1} if guard.uid else set()))
    for address in addresses:
        for protocol in ("tcp", "udp", "other"):
            for port in ports:
                for uid in uids:
                    yield Packet(address, protocol, port, uid=uid)
        for kind in sorted(chain.discovery()) if address.version == 6 else ():
            yield Packet(address, "icmpv6", 0, discovery=kind)


def _edges(guard: Guard, version: int) -> set[int]:
    networks = [*guard.refused(version), *([_GLOBAL_6] if version == 6 else [])]
    single = [int(address) for address in guard.dns if address.version == version]
    single += [int(one.address) for one in guard.allow if one.address.version == version]
    return {edge for network in networks for edge in (int(network[0]), int(network[-1]) + 1)}.union(
        single, [address + 1 for address in single]
    )


@lru_cache(maxsize=8)
def _refused(own: tuple[Network, ...], version: int) -> tuple[Network, ...]:
    fixed = [ipaddress.ip_network(text) for text in (_REFUSED_4 if version == 4 else _REFUSED_6)]
    mine = [*fixed, *(network for network in own if network.version == version)]
    return tuple(ipaddress.collapse_addresses(mine))  # type: ignore[type-var]  # one version only


def _parse_address(text: str) -> Address:
    address = ipaddress.ip_address(text)
    if getattr(address, "scope_id", None) is not None or address.is_unspecified:
        raise ValueError(f"not an address of one host: {text!r}")
    return address


def _family(address: Address) -> str:
    return "ip" if address.version == 4 else "ip6"


def _set(networks: Sequence[Network]) -> str:
    return "{ " + ", ".join(map(str, networks)) + " }"


def _discovery(kinds: Sequence[str]) -> str:
    return f"icmpv6 type {{ {', '.join(kinds)} }} ip6 hoplimit 255 accept"


def _chain(hook: str, rules: Sequence[str]) -> list[str]:
    # nft wants each rule on a line of its own: after `reject` a brace would be read as its argument.
    head = f"type filter hook {hook} priority filter; policy drop;"
    return [f"  chain {hook} {{", *(f"    {line}" for line in (head, *rules)), "  }"]
