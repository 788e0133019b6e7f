"""A hostile agent attacks the network guard: machines in namespaces of this test's own are what it must not reach.

Every refusal is compared with the same attempt without the guard, which reaches its target: so it is the
guard that refuses, and not a missing route.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coding_agents.attacks import network
from coding_agents.network.guard import holder_options
from coding_agents.sandbox.plan import plan_session
from coding_agents.sandbox.spec import AGENT_USER, Network
from support import netlab
from support.engines import EngineUnderTest
from support.escape import Captive, attack_argv, capture, fresh_repo
from support.guestbox import guest_volume, make_volumes, plan
from support.netlab import NAME_PORTS, NAME_SERVER, RESOLVER, Lab
from support.product import Product, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.escape]

PORT, OTHER_PORT = 18080, 18081
LISTED = "10.77.0.2"  # the user opens one port of it
SOON_S, PATIENCE_S = 2.0, 4.0
# What a program is told: by the guard's answer, or when it sends a datagram that the guard drops.
REFUSALS = ("ECONNREFUSED", "EPERM")
TABLE = ("inet", "coding_agents_guard")

Knocks = dict[str, list[object]]
Attack = Callable[..., Any]


@pytest.fixture(scope="module")
def world(engine: EngineUnderTest) -> Iterator[Lab]:
    yield from netlab.find_lab(dict(os.environ), port=PORT)


@pytest.fixture(scope="module")
def captive(owner: Product, world: Lab) -> Iterator[Captive]:
    """A session with the default guard, to look at only."""
    yield from session_of(owner)


@pytest.fixture
def victim(owner: Product, world: Lab) -> Iterator[Captive]:
    yield from session_of(owner)


def session_of(owner: Product, settings: str = "", script: str = "sleep 3000") -> Iterator[Captive]:
    config = owner.home / ".config/coding-agents/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(settings)
    session = capture(owner, fresh_repo(owner), "--network-proxy", "allow-all", script=script)
    config.unlink()
    yield session
    owner.run("remove", "--force", session.name, status=None)


def forbidden(world: Lab, session: Captive) -> list[list[object]]:
    """One attempt of each protocol at all that must not be reached: the engine's own, and names told by others."""
    addresses = (*world.private, *world.host)
    assert gateway(session) in addresses
    tried: list[list[object]] = [["tcp", address, PORT] for address in addresses]
    tried += [
        [kind, address, PORT] for kind in ("udp", "icmp") for address in ("10.77.0.2", gateway(session))
    ]
    tried += other_name_servers(world)
    return tried


def other_name_servers(world: Lab) -> list[list[object]]:
    """DNS, and DNS over TLS and QUIC, at public addresses that are not the resolvers."""
    return [
        [kind, address, port] for kind in ("tcp", "udp") for address in world.public for port in NAME_PORTS
    ]


def gateway(session: Captive) -> str:
    (found,) = session.inspect(session.holder)["NetworkSettings"]["Networks"].values()
    return str(found["Gateway"])


def address_of(session: Captive) -> str:
    (found,) = session.inspect(session.holder)["NetworkSettings"]["Networks"].values()
    return str(found["IPAddress"])


def knock(session: Captive, targets: Sequence[Sequence[object]]) -> Knocks:
    """By the engine's own exec, so that it works while the gate is closed, too."""
    # Not every engine lets the agent send pings at all; here it may, so that the guard has to refuse them.
    netlab.run("sh", "-c", "echo 0 65535 > /proc/sys/net/ipv4/ping_group_range", netns=inside_of(session))
    return session.attack_behind_the_gate(network.knock, [list(one) for one in targets], PATIENCE_S)


def inside_of(session: Captive) -> Path:
    """The network namespace that the session's containers share, seen from the host."""
    return Path(f"/proc/{session.inspect(session.holder)['State']['Pid']}/ns/net")


def not_refused_at_once(knocks: Knocks) -> Knocks:
    """The attempts that were let through, or left without an answer, or answered late, or by somebody else."""
    return {
        name: found
        for name, found in knocks.items()
        if found[2] not in REFUSALS or float(str(found[1])) >= SOON_S
    }


def opened(knocks: Knocks) -> set[str]:
    return {name for name, found in knocks.items() if found[0] == network.OPEN}


def flush(session: Captive) -> None:
    session.as_root("nft", "delete", "table", *TABLE, container=session.holder)


# --- allow-all -----------------------------------------------------------------------------------------------


def test_hosts_that_are_not_public_are_refused_at_once(captive: Captive, world: Lab) -> None:
    targets = forbidden(world, captive)
    assert len(targets) >= len(world.private) + 3 + 4 * len(world.public)
    assert not_refused_at_once(knock(captive, targets)) == {}


def test_the_public_internet_is_open(captive: Captive, world: Lab) -> None:
    targets = [[kind, address, PORT] for kind in ("tcp", "udp", "icmp") for address in world.public]
    assert len(opened(knock(captive, targets))) == len(targets)


def test_without_the_guard_everything_would_be_reached(victim: Captive, world: Lab) -> None:
    """The proof that the other tests can fail; a stop and start put the guard up again."""
    targets = forbidden(world, victim)
    flush(victim)
    reached = opened(knock(victim, targets))
    still = {*world.private, *world.public, *world.host}  # networks of sessions beside this one come and go
    assert gateway(victim) in still
    assert reached >= {f"{kind} {address} {port}" for kind, address, port in targets if address in still}
    victim.product.run("stop", victim.name)
    victim.product.run("start", victim.name)
    assert not_refused_at_once(knock(victim, forbidden(world, victim))) == {}


def test_a_flushed_guard_stops_the_next_start_of_the_gate(victim: Captive) -> None:
    """Only `start` opens a gate, and it begins from a fresh holder: a lost guard never goes unnoticed."""
    flush(victim)
    victim.product.engine_run("restart", victim.name)
    assert "gate is closed" in victim.product.exec(victim.name, "true", status=125).err
    victim.product.run("start", victim.name)
    victim.as_root("nft", "list", "table", *TABLE, container=victim.holder)


def test_another_session_is_refused(captive: Captive, victim: Captive) -> None:
    serve = f"nohup python3 -m http.server {PORT} --bind 0.0.0.0 > /dev/null 2>&1 & sleep 0.5"
    victim.product.exec(victim.name, serve)
    assert opened(knock(victim, [["icmp", "127.0.0.1", 0]])) == {"icmp 127.0.0.1 0"}
    targets = [
        ["tcp", address_of(victim), PORT],
        ["icmp", address_of(victim), 0],
        ["udp", address_of(victim), PORT],
    ]
    assert not_refused_at_once(knock(captive, targets)) == {}


def test_nothing_gets_in_from_the_engines_machine(captive: Captive, world: Lab) -> None:
    """The agent listens; the host at the bridge's other end finds nobody."""
    serve = f"nohup python3 -m http.server {OTHER_PORT} --bind 0.0.0.0 > /dev/null 2>&1 & sleep 0.5"
    captive.product.exec(captive.name, serve)
    code = (
        "import socket, sys\ns = socket.socket()\ns.settimeout(1)\n"
        f"sys.exit(0 if s.connect_ex(('{address_of(captive)}', {OTHER_PORT})) == 0 else 7)\n"
    )
    local = captive.product.exec(
        captive.name, f"curl -sf -o /dev/null http://127.0.0.1:{OTHER_PORT}/; echo $?"
    )
    assert local.out == "0\n"
    reached = netlab.run("sh", "-c", f'python3 -c "{code}"; echo $?', netns=world.netns)
    assert reached == "7\n"


def test_ipv6_that_is_not_public_is_refused(victim: Captive, world: Lab) -> None:
    """Bridges have none by default, so addresses are given by hand: to the engine's end and to the agent's."""
    inside = inside_of(victim)
    bridge = json.loads(netlab.run("ip", "-j", "route", "get", address_of(victim), netns=world.netns))[0][
        "dev"
    ]
    local, unique, public = "fe80::77", "fd77::1", "2a00:77::1"
    for netns, device, ends in ((world.netns, bridge, "1"), (inside, "eth0", "2")):
        if netns == inside:
            switch_on = "for file in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 0 > $file; done"
            netlab.run("sh", "-c", switch_on, netns=netns)
        for prefix in ("fd77::", "2a00:77::"):
            netlab.run("ip", "address", "add", f"{prefix}{ends}/64", "dev", device, "nodad", netns=netns)
    netlab.run("ip", "address", "add", f"{local}/64", "dev", bridge, "nodad", netns=world.netns)
    assert opened(knock(victim, [["tcp", public, PORT]])) == {f"tcp {public} {PORT}"}
    kinds = ("tcp", "udp", "icmp")
    targets = [[kind, address, PORT] for kind in kinds for address in (unique, f"{local}%eth0")]
    knocks = knock(victim, targets)
    # The kernel's own refusal of TCP does not find back to a link-local address: there the attempt times out.
    assert set(not_refused_at_once(knocks)) <= {f"tcp {local}%eth0 {PORT}"}
    assert opened(knocks) == set()
    flush(victim)
    assert len(opened(knock(victim, targets))) == len(targets)


def test_an_interface_that_others_plug_in_is_guarded_too(victim: Captive, world: Lab) -> None:
    """By the engine's `network connect`, and by root: a cable to a machine with private and public addresses."""
    product, private, public = victim.product, "10.99.0.2", "11.99.0.2"
    network_name = f"{victim.name}-other"
    product.engine_run("network", "create", network_name)
    inside = inside_of(victim)
    try:
        product.engine_run("network", "connect", network_name, victim.holder)
        plug_in(world, inside, (private, public))
        found = victim.attack(network.interfaces)
        assert {"eth0", "eth1", "plugged"} <= set(found["interfaces"])
        (shown,) = json.loads(netlab.run("ip", "-j", "-4", "address", "show", "dev", "eth1", netns=inside))
        new_gateway = shown["addr_info"][0]["local"].rpartition(".")[0] + ".1"
        targets = [[kind, private, PORT] for kind in ("tcp", "udp", "icmp")] + [["tcp", new_gateway, PORT]]
        assert opened(knock(victim, [["tcp", public, PORT]])) == {f"tcp {public} {PORT}"}
        assert not_refused_at_once(knock(victim, targets)) == {}
        serve = f"nohup python3 -m http.server {OTHER_PORT} --bind 0.0.0.0 > /dev/null 2>&1 & sleep 0.5"
        product.exec(victim.name, serve)
        comes_in = ("timeout", "1", "bash", "-c", f"echo > /dev/tcp/10.99.0.1/{OTHER_PORT}")
        there = Path("/run/netns") / world.name
        assert subprocess.run(("nsenter", f"--net={there}", *comes_in), check=False).returncode != 0
        flush(victim)
        assert len(opened(knock(victim, targets))) == len(targets)
        assert subprocess.run(("nsenter", f"--net={there}", *comes_in), check=False).returncode == 0
    finally:
        product.engine_run("network", "disconnect", "--force", network_name, victim.holder, check=False)
        product.engine_run("network", "rm", network_name, check=False)


def plug_in(world: Lab, inside: Path, addresses: Sequence[str]) -> None:
    """A cable between the lab and a session; there it has the address .1 of each network."""
    netlab.run("ip", "link", "add", "plugged", "type", "veth", "peer", "name", "cable", netns=inside)
    netlab.run("ip", "link", "set", "cable", "netns", world.name, netns=inside)
    for netns, device, last in ((inside, "plugged", "1"), (Path("/run/netns") / world.name, "cable", "2")):
        for address in addresses:
            own = address.rpartition(".")[0] + f".{last}/24"
            netlab.run("ip", "address", "add", own, "dev", device, netns=netns)
        netlab.run("ip", "link", "set", device, "up", netns=netns)


def test_the_agent_cannot_change_the_network(captive: Captive, world: Lab) -> None:
    before = captive.as_root("nft", "list", "table", *TABLE, container=captive.holder)
    answers = captive.attack(network.change_the_network)
    assert all(answers.values()), answers
    assert "coding_agents_guard" in before
    assert [line for line in before.splitlines() if "counter" not in line] == [
        line
        for line in captive.as_root("nft", "list", "table", *TABLE, container=captive.holder).splitlines()
        if "counter" not in line
    ]
    assert not_refused_at_once(knock(captive, [["tcp", "10.77.0.2", PORT]])) == {}


def test_a_listed_address_is_open_at_its_port_alone(owner: Product, world: Lab) -> None:
    settings = f'[network]\nprivate = ["{LISTED}:{PORT}"]\n'
    for session in session_of(owner, settings):
        targets = [*forbidden(world, session), ["tcp", LISTED, 53], ["tcp", LISTED, OTHER_PORT]]
        knocks = knock(session, targets)
        assert opened(knocks) == {f"tcp {LISTED} {PORT}"}
        assert set(not_refused_at_once(knocks)) == {f"tcp {LISTED} {PORT}"}
        assert f"open: {LISTED}:{PORT}" in session.launched.err


@contextmanager
def agent_with_resolver(engine: EngineUnderTest, resolver: str) -> Iterator[Attack]:
    """The product's own parts without `launch`, which takes the resolvers of this machine."""
    options = holder_options(dns=[resolver], allow=[])
    facts = plan(engine, guest_volume(engine), network=Network.ALLOW_ALL, options=options)
    session = plan_session(replace(facts, resolvers=(resolver,)))
    assert session.holder is not None
    assert session.network is not None
    api = engine.api
    api.create_network(session.network.name, labels=dict(session.network.labels))
    make_volumes(engine, session)
    holder = api.create(session.holder)
    api.start(holder)
    agent = api.create(session.sandbox.joined_to(holder))
    api.start(agent)
    wait_for(lambda: b"ready" in api.logs(holder), "the holder")

    def attack(function: Callable[..., object], *arguments: object) -> Any:
        outcome = api.exec(agent, attack_argv(function, *arguments), user=AGENT_USER)
        assert outcome.ok, outcome.describe()
        return json.loads(outcome.text())

    try:
        yield attack
    finally:
        api.remove(agent, force=True)
        api.remove(holder, force=True)
        api.remove_network(session.network.name)


def test_of_all_servers_of_names_only_the_configured_one_is_open(engine: EngineUnderTest, world: Lab) -> None:
    targets = [[kind, RESOLVER, port] for kind in ("tcp", "udp") for port in (*NAME_PORTS, PORT)]
    targets += [[kind, "10.77.0.2", 53] for kind in ("tcp", "udp")]
    with agent_with_resolver(engine, RESOLVER) as attack:
        knocks: Knocks = attack(network.knock, [*targets, *other_name_servers(world)], PATIENCE_S)
    assert opened(knocks) == {f"tcp {RESOLVER} 53", f"udp {RESOLVER} 53"}
    assert set(not_refused_at_once(knocks)) == opened(knocks)


def test_names_are_resolved_behind_the_guard(engine: EngineUnderTest, world: Lab) -> None:
    """Docker's own resolver at 127.0.0.11 asks from the agent's namespace, so through the guard."""
    with agent_with_resolver(engine, NAME_SERVER) as attack:
        assert attack(network.resolve, "anything.example") == list(world.public)


# --- bandwidth -----------------------------------------------------------------------------------------------


def test_what_passes_a_second_is_limited_each_way(owner: Product, world: Lab) -> None:
    """A megabyte at 250 kB a second, of which the first second passes at once, takes three."""
    with netlab.pump(Path("/run/netns") / world.name, OTHER_PORT):
        for limited in (True, False):
            for session in session_of(owner, '[limits]\nbandwidth = "2mbit"\n' if limited else ""):
                for way in ("d", "u"):
                    took = session.attack(network.pump, world.public[0], OTHER_PORT, way)
                    assert 2.0 <= took <= 8.0 if limited else took < 1.0, (way, limited, took)
                if limited:
                    (record,) = (
                        one for one in session.product.audit(session.name) if one["type"] == "network-applied"
                    )
                    assert record["detail"]["rate"] == "250000"


# --- restarts ------------------------------------------------------------------------------------------------


def test_after_restarts_by_others_the_guard_stands_and_the_gate_is_shut(victim: Captive, world: Lab) -> None:
    product = victim.product
    # The holder alone: the agent stays in the old namespace, which has lost its interface and keeps its rules.
    product.engine_run("restart", "--time", "5", victim.holder)
    targets = [*forbidden(world, victim), ["tcp", world.public[0], PORT]]
    assert opened(victim.attack(network.knock_side_by_side, targets, 1)) == set()
    product.engine_run("kill", victim.name)
    wait_for(lambda: product.state(victim.name) == "stopped", "the end of the session")
    product.run("wait", victim.name, status=None)  # until its supervisor has stopped the holder, too
    for container in (victim.holder, victim.name):
        product.engine_run("start", container)
        product.engine_run("restart", "--time", "5", container)
    victim.as_root("nft", "list", "table", *TABLE, container=victim.holder)
    assert not_refused_at_once(knock(victim, forbidden(world, victim))) == {}
    refused = product.exec(victim.name, "echo inside", status=125)
    assert "gate is closed" in refused.err
    assert refused.out == ""
    product.run("start", victim.name)
    assert product.exec(victim.name, "echo inside").out == "inside\n"
    assert not_refused_at_once(knock(victim, forbidden(world, victim))) == {}
    assert len(opened(knock(victim, [["tcp", world.public[0], PORT]]))) == 1


# --- restricted ----------------------------------------------------------------------------------------------


def test_restricted_has_no_interface_no_route_and_reaches_nothing(owner: Product, world: Lab) -> None:
    session = capture(owner, fresh_repo(owner))
    assert session.attack(network.interfaces) == {"interfaces": ["lo"], "routes": []}
    addresses = (*world.private, *world.public, *world.host, "fd77::1", "2a00:77::1")
    targets = [[kind, address, PORT] for kind in ("tcp", "udp") for address in addresses]
    knocks = session.attack(network.knock, targets, PATIENCE_S)
    assert {found[2] for found in knocks.values()} <= {"ENETUNREACH", "EADDRNOTAVAIL"}
    assert max(float(str(found[1])) for found in knocks.values()) < SOON_S
    owner.run("remove", "--force", session.name)
