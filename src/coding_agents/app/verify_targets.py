"""Whom the attacks on the network are aimed at: containers of ours on this engine, and nobody else on earth.

One stands in the network of the engine's machine, one in a private network, one in a link-local one. They answer, and
they are the control: a target that none of them reaches proves nothing.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from coding_agents.app.steps import Parallel, Trace
from coding_agents.app.verify_inside import attempt
from coding_agents.engine.cli import CliEngine
from coding_agents.engine.unguarded import AS_HOST, Plain, addresses_of, create_subnet, run_plain
from coding_agents.errors import EngineError
from coding_agents.sandbox.spec import AGENT_USER
from coding_agents.verify.model import Attempt, Evidence, Found
from coding_agents.verify.program import attack_argv
from coding_agents.verify.scene import KNOCK_S, Target

_LIFETIME_S: Final = 300
_READY_S: Final = 15.0
_POLL_S: Final = 0.05
_MOST_OF_A_KIND: Final = 5
# By these the kernel says that there is no route or no such socket at all: no control can show more.
_NO_WAY: Final = frozenset({"EACCES", "ENETUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT"})
_METADATA: Final = (169, 170)  # third bytes of 169.254.*.* at which clouds answer


class StandIns(msgspec.Struct, frozen=True):
    """The running ones: `host` and `neighbour` are container ids, `targets` all but a session's own gateway."""

    engine: CliEngine
    host: str
    neighbour: str
    port: int
    targets: tuple[Target, ...]

    def aimed_at(self, subnets: tuple[str, ...]) -> tuple[Target, ...]:
        """All targets for a session whose own network has these ranges of addresses."""
        own = [one for one in map(_network, subnets) if one.version == 4]
        devices = {route.split()[1] for route in places_of(self.engine, self.host)["routes"]
                   if _network(route.split()[0]) in own}  # fmt: skip
        six = (one.split("%") for one in places_of(self.engine, self.host)["ipv6"] if one.startswith("fe80"))
        return (
            *(Target("gateway", str(one[1]), self.port) for one in own),  # as engines give it to themselves
            *(Target("ipv6", f"{address}%eth0", self.port, f"{address}%{device}") for address, device in six
              if device in devices),
            *self.targets,
        )  # fmt: skip

    def reached(self, targets: tuple[Target, ...], protocol: str) -> set[str]:
        """The targets that somebody without a guard reaches, as the name that `network.knock` gives each."""
        found: set[str] = set()
        for container, there in ((self.neighbour, False), (self.host, True)):
            spelled = {
                f"{protocol} {(there and one.there) or one.address} {one.port}": one for one in targets
            }
            answers = attempt(self.engine, container, knock(protocol, targets, there=there)).value or {}
            reached = (
                spelled[name] for name, answer in answers.items() if answer[0] == "open" and name in spelled
            )
            found |= {f"{protocol} {one.address} {one.port}" for one in reached}
        return found


def knock(protocol: str, targets: tuple[Target, ...], *, there: bool = False) -> Attempt:
    """The attempt to reach all targets by one protocol, side by side; `there` from the engine's machine itself."""
    wanted = [[protocol, (there and one.there) or one.address, one.port] for one in targets]
    return Attempt("network", "knock_side_by_side", (wanted, KNOCK_S))


def start_stand_ins(engine: CliEngine, image: str, *, name: str, labels: Mapping[str, str]) -> StandIns:
    """Start them; whatever carries `labels` is the caller's to remove, also when this raises EngineError."""

    def neighbour() -> tuple[str, Target]:
        engine.create_network(f"{name}-private", labels=labels)
        return _serving(engine, image, f"{name}-private", labels, kind="neighbour")

    with Parallel(Trace()) as steps:
        private = steps.run("neighbour", neighbour)
        host, port = _serve(engine, image, AS_HOST, labels)
        places = places_of(engine, host)
        link_local = _link_local(engine, image, places, name=name, labels=labels)
        private_id, private_target = private.result()
    addresses = places_of(engine, host)["ipv4"]  # with the bridges of both
    own = tuple(Target("host", one, port) for one in _private(addresses) if not one.startswith("169.254."))
    aims = (*own[:_MOST_OF_A_KIND], private_target, *link_local(port, addresses))
    return StandIns(engine, host, private_id, port, aims)


def _serving(
    engine: CliEngine, image: str, network: str, labels: Mapping[str, str], *, kind: str
) -> tuple[str, Target]:
    container, port = _serve(engine, image, network, labels)
    address = next(iter(addresses_of(engine, container).values()), "")
    if not address:
        raise EngineError(f"a container in network {network} has no address")
    return container, Target(kind, address, port)


def _serve(engine: CliEngine, image: str, network: str, labels: Mapping[str, str]) -> tuple[str, int]:
    argv = attack_argv("standin", "serve", (_LIFETIME_S,))
    plain = Plain(image=image, argv=argv, labels=labels, network=network, user=AGENT_USER, walled=True)
    container = run_plain(engine, plain)
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        for line in engine.logs(container).splitlines():
            if line.startswith(b'{"port"'):
                return container, int(json.loads(line)["port"])
        time.sleep(_POLL_S)
    raise EngineError(
        "a container to aim at does not answer",
        details=engine.logs(container)[-500:].decode("utf-8", "replace"),
    )


def places_of(engine: CliEngine, host: str) -> dict[str, list[str]]:
    """The addresses and routes of the network in which a stand-in stands; empty when it does not say."""
    found = attempt(engine, host, Attempt("standin", "places"))
    value: Any = found.value or {"ipv4": [], "ipv6": [], "routes": []}
    return {key: list(map(str, value[key])) for key in ("ipv4", "ipv6", "routes")}


def _link_local(
    engine: CliEngine, image: str, places: Mapping[str, list[str]], *, name: str, labels: Mapping[str, str]
) -> Any:
    """Start one in a range of 169.254.0.0/16 that no route knows; gives what makes targets of it."""
    subnet = free_link_local(places["routes"])
    if subnet is None:
        return lambda _port, _addresses: ()
    create_subnet(engine, f"{name}-local", subnet=subnet, labels=labels)
    _, target = _serving(engine, image, f"{name}-local", labels, kind="link-local")
    prefix = subnet.rpartition(".")[0] + "."

    def targets(port: int, addresses: list[str]) -> tuple[Target, ...]:
        bridge = tuple(Target("link-local", one, port) for one in addresses if one.startswith(prefix))
        return (*bridge, target)

    return targets


def free_link_local(routes: list[str]) -> str | None:
    """A range in 169.254.0.0/16 that overlaps no route (but the default one), and never that of a metadata service."""
    known = [_network(one.split()[0]) for one in routes]
    for third in range(17, 250):
        wanted = ipaddress.ip_network(f"169.254.{third}.0/24")
        if third not in _METADATA and not any(one.prefixlen > 0 and one.overlaps(wanted) for one in known):
            return str(wanted)
    return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def _private(addresses: list[str]) -> list[str]:
    """Those that no router of the internet knows, without loopback: a public address of the host's is no secret."""
    every = (ipaddress.ip_address(one) for one in addresses)
    return [str(one) for one in every if one.is_private and not one.is_loopback]


def knocked(
    found: Mapping[str, Found], reached: Mapping[str, set[str]], targets: tuple[Target, ...]
) -> Evidence:
    """Evidence "knock PROTOCOL KIND" of answers by protocol, of those targets that somebody else reaches."""
    evidence: dict[str, Found] = {}
    for protocol, one in found.items():
        for kind in {target.kind for target in targets}:
            names = {f"{protocol} {t.address} {t.port}" for t in targets if t.kind == kind}
            if one.error or not isinstance(one.value, dict):
                evidence[f"knock {protocol} {kind}"] = Found(error=one.error or "no answer", ms=one.ms)
                continue
            told = {
                name: answer
                for name, answer in one.value.items()
                if name in names
                and (name in reached[protocol] or answer[0] == "open" or answer[2] in _NO_WAY)
            }
            evidence[f"knock {protocol} {kind}"] = Found(told, ms=one.ms)
    return evidence
