"""The holder on a real engine: the namespace that it guards, seen from inside by a hostile neighbour."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from coding_agents.network.guard import READ_BACK, READ_BACK_USER, holder_options, verify_guard
from coding_agents.sandbox.plan import plan_session
from coding_agents.sandbox.spec import PYTHON, JoinContainer, Network
from coding_agents_guest.privileges import remaining_privileges
from support.engines import EngineUnderTest
from support.guestbox import guest_volume, plan

RESOLVER, SERVICE = "192.0.2.53", "192.0.2.80:8080"
# What the agent could try, by what it must get. The gateway is the engine's own machine.
_TRY = """
import json, socket, sys
result = {}
for address, port in json.loads(sys.argv[1]):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as s:
        s.settimeout(3)
        try:
            s.connect((address, port))
            result[address] = "open"
        except OSError as error:
            result[address] = type(error).__name__
print(json.dumps(result))
"""
_TAMPER = """
import ctypes, json, socket, subprocess
def tries(*argv):
    return subprocess.run(argv, capture_output=True).returncode
def opens(*arguments):
    try:
        socket.socket(*arguments).close()
    except PermissionError:
        return 1
    return 0
print(json.dumps([
    tries("nft", "flush", "ruleset"), tries("nft", "delete", "table", "inet", "coding_agents_guard"),
    tries("ip", "link", "add", "dummy0", "type", "dummy"), tries("ip", "route", "del", "default"),
    opens(socket.AF_PACKET, socket.SOCK_RAW), opens(socket.AF_INET, socket.SOCK_RAW, 1),
]))
"""


@dataclass
class Holder:
    engine: EngineUnderTest
    id: str
    network: str
    subnets: tuple[str, ...]

    def problems(self) -> list[str]:
        def read(argv: object) -> object:
            return self.engine.api.exec(self.id, argv, user=READ_BACK_USER)  # type: ignore[arg-type]

        return verify_guard(read, dns=[RESOLVER], allow=[SERVICE], subnets=self.subnets)  # type: ignore[arg-type]

    def neighbour(self, code: str, *arguments: str) -> str:
        """What `code` prints when the agent runs it in the holder's namespace."""
        spec = self.engine.python(code, *arguments, network=JoinContainer(self.id))
        container = self.engine.api.create(spec)
        self.engine.api.start(container)
        end = time.monotonic() + 60
        while (state := self.engine.api.inspect(container)) is not None and state.running:
            assert time.monotonic() < end
            time.sleep(0.05)
        printed = self.engine.api.logs(container).decode()
        self.engine.api.remove(container, force=True)
        return printed

    def wait_ready(self, times: int) -> None:
        end = time.monotonic() + 30
        while self.engine.api.logs(self.id).split().count(b"ready") < times:
            assert time.monotonic() < end, self.engine.api.logs(self.id)
            time.sleep(0.02)


@pytest.fixture(scope="module")
def holder(engine: EngineUnderTest) -> Iterator[Holder]:
    options = holder_options(dns=[RESOLVER], allow=[SERVICE])
    session = plan_session(plan(engine, guest_volume(engine), network=Network.ALLOW_ALL, options=options))
    assert session.holder is not None
    assert session.network is not None
    engine.api.create_network(session.network.name, labels=dict(session.network.labels))
    container = engine.api.create(session.holder)
    engine.api.start(container)
    made = Holder(engine, container, session.network.name, engine.api.network_subnets(session.network.name))
    made.wait_ready(1)
    yield made
    engine.api.remove(container, force=True)
    engine.api.remove_network(session.network.name)


def test_the_guard_stands_and_nothing_private_answers(holder: Holder) -> None:
    assert holder.problems() == []
    gateway = holder.subnets[0].rsplit(".", 1)[0] + ".1"
    forbidden = [
        gateway,
        "10.0.0.1",
        "192.168.0.1",
        "172.17.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "168.63.129.16",
    ]
    addresses = [[address, port] for address in forbidden for port in (80,)]
    result = json.loads(holder.neighbour(_TRY, json.dumps(addresses)))
    assert set(result.values()) == {"ConnectionRefusedError"}


def test_the_refusals_are_the_guards_own(holder: Holder) -> None:
    """The counters of its rules went up, so it was not just that nobody listened."""
    before = _refused(holder)
    holder.neighbour(_TRY, json.dumps([["10.0.0.1", 80], ["192.168.0.1", 80]]))
    assert _refused(holder) >= before + 2


def test_a_neighbour_without_capabilities_cannot_change_it(holder: Holder) -> None:
    outcomes = json.loads(holder.neighbour(_TAMPER))
    assert all(outcomes)
    assert holder.problems() == []


def test_the_holder_itself_can_do_nothing_more(holder: Holder) -> None:
    status = holder.engine.api.exec(holder.id, ("cat", "/proc/1/status"), user="65534:65534")
    assert remaining_privileges(status.text(), uid=65534, gid=65534) == []


def test_a_changed_guard_is_found_out_and_a_restart_puts_it_up_again(holder: Holder) -> None:
    def nft(*words: str) -> None:
        assert holder.engine.api.exec(holder.id, ("nft", *words), user=READ_BACK_USER).ok

    nft("insert", "rule", "inet", "coding_agents_guard", "output", "ip", "daddr", "10.1.1.1", "accept")
    assert holder.problems() == [
        f"{protocol} to 10.1.1.1 port {port} is open"
        for protocol in ("tcp", "udp", "other")
        for port in _ports(holder.problems())
    ]
    nft("flush", "ruleset")
    assert holder.problems() == ["table 'coding_agents_guard' is missing"]

    began = time.monotonic()
    holder.engine.api.stop(holder.id, timeout_s=10)
    assert time.monotonic() - began < 8, "it did not end on SIGTERM"
    holder.engine.api.start(holder.id)
    holder.wait_ready(2)
    assert holder.problems() == []


def _ports(problems: list[str]) -> list[int]:
    return sorted({int(problem.split(" port ")[1].split()[0]) for problem in problems})


def _refused(holder: Holder) -> int:
    listed = json.loads(holder.engine.api.exec(holder.id, READ_BACK, user=READ_BACK_USER).stdout)
    rules = [entry["rule"]["expr"] for entry in listed["nftables"] if "rule" in entry]
    return sum(
        one["counter"]["packets"]
        for rule in rules
        if any("reject" in one for one in rule)
        for one in rule
        if "counter" in one
    )
