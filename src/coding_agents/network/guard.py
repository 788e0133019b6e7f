"""Asks for the guard of a holder's network namespace and reads back what the kernel holds.

The rules themselves, and their check, are the guest's (`coding_agents_guest.guard`): the holder applies
them at its own start, the host verifies by the same code and from its own knowledge what must be shut.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from coding_agents.errors import EngineError, UsageError
from coding_agents.model.limits import NO_RATE
from coding_agents.proc.runner import Outcome
from coding_agents_guest.guard import TABLE, Address, Endpoint, Guard, verify_ruleset
from coding_agents_guest.nftmodel import Packet, UnknownRulesetError, parse_chains

READ_BACK = ("/usr/sbin/nft", "-j", "list", "table", "inet", TABLE)
READ_BACK_USER = "0:0"
# Where the host has no resolver that a container can reach, engines give it these (moby and podman alike).
ENGINES_OWN_DNS = ("8.8.8.8", "8.8.4.4")

Exec = Callable[[Sequence[str]], Outcome]


def parse_private(text: str) -> str:
    """The `address:port` of an entry of `[network] private`, in its one spelling. Raises UsageError.

    >>> parse_private("10.1.2.3:443")
    '10.1.2.3:443'
    """
    try:
        endpoint = Endpoint.parse(text.rpartition("=")[2].strip())
    except ValueError as error:
        raise UsageError(
            f"not an address and port: {text!r}", hint="Write it like 10.1.2.3:443 or [fd00::1]:443."
        ) from error
    if endpoint.address.is_loopback or endpoint.address.is_multicast or endpoint.address.is_link_local:
        raise UsageError(
            f"{endpoint.address} cannot be opened: it is loopback, link-local or multicast",
            hint="Name an address of your private network, such as 10.1.2.3:443.",
        )
    return endpoint_text(endpoint)


def guard_rate(limit: int) -> int:
    """The guard's limit of bytes a second for one of the settings, 0 for none."""
    return limit if limit < NO_RATE else 0


def holder_options(
    *, dns: Sequence[str], allow: Iterable[str], rate: int = 0, uid: int = 0
) -> tuple[str, ...]:
    """The options of the holder's command for these resolvers, user-listed `address:port` pairs, bytes a second, user.

    Without resolvers those are open that an engine takes by itself.
    """
    return (
        *(("--rate", str(rate)) if rate else ()),
        *(("--uid", str(uid)) if uid else ()),
        *(word for address in dns or ENGINES_OWN_DNS for word in ("--dns", address)),
        *(word for endpoint in allow for word in ("--allow", endpoint)),
    )


def verify_guard(
    read_back: Exec,
    *,
    dns: Sequence[str],
    allow: Iterable[str],
    subnets: Iterable[str] = (),
    rate: int = 0,
    uid: int = 0,
) -> list[str]:
    """What is wrong with the rules that the kernel holds for the holder's namespace; empty when nothing is.

    `read_back` runs a command in the holder as root, `subnets` are the engine's ranges of its network.
    Raises EngineError when the rules cannot be read, which must stop a launch like any problem.
    """
    outcome = read_back(READ_BACK)
    if not outcome.ok:
        raise EngineError("cannot read the guard's rules back", details=outcome.describe())
    try:
        document = json.loads(outcome.stdout)
    except ValueError as error:
        raise EngineError("the guard's rules are not JSON", details=str(error)) from error
    if not isinstance(document, dict):
        raise EngineError("the guard's rules are not a JSON object")
    guard = Guard.parse(dns=dns or ENGINES_OWN_DNS, allow=allow, own=subnets, rate=rate, uid=uid)
    return verify_ruleset(document, guard)


def accepted(read_back: Exec, packets: Iterable[tuple[Address, str, int]]) -> list[bool]:
    """Whether the kernel's rules would let each new packet (address, tcp or udp, port) out. None of them is sent.

    Raises EngineError when the rules cannot be read or judged.
    """
    outcome = read_back(READ_BACK)
    try:
        output = parse_chains(json.loads(outcome.stdout), family="inet", table=TABLE)["output"]
    except (ValueError, KeyError, UnknownRulesetError) as error:
        if not outcome.ok and b"No such file" in outcome.stderr:
            return [True for _ in packets]  # there is no table: nothing is refused
        raise EngineError(
            "cannot read the guard's rules back", details=f"{outcome.describe()}\n{error}"
        ) from error
    return [output.accepts(Packet(address, protocol, port)) for address, protocol, port in packets]


def counted(document: Mapping[str, Any]) -> tuple[int, int]:
    """Bytes that went out past the limit of the rate, whatever became of them, and bytes that the limit dropped.

    `document` is what `nft -j list` gave. Known flows, which no rule counts, are in neither. Raises ValueError.
    """
    passed = dropped = 0
    try:
        rules = [entry["rule"] for entry in document["nftables"] if "rule" in entry]
        for rule in rules:
            parts = {kind: body for one in rule["expr"] for kind, body in one.items()}
            if (rule["table"], rule["chain"]) == (TABLE, "output") and "counter" in parts:
                size = int(parts["counter"]["bytes"])
                passed, dropped = (passed, dropped + size) if "limit" in parts else (passed + size, dropped)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"not rules of nft: {error!r}") from None
    return passed, dropped


def endpoint_text(endpoint: Endpoint) -> str:
    """Its one spelling, that `Endpoint.parse` takes."""
    host = f"[{endpoint.address}]" if endpoint.address.version == 6 else str(endpoint.address)
    return f"{host}:{endpoint.port}"
