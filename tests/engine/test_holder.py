"""The holder on a real engine: the namespace that it guards, seen from inside by a hostile neighbour."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from coding_agents.errors import EngineError
from coding_agents.network.guard import READ_BACK, READ_BACK_USER, holder_options, verify_guard
from coding_agents.proc.runner import Outcome
from coding_agents.sandbox.guest import PYTHON
from coding_agents.sandbox.plan import plan_session
from coding_agents.sandbox.spec import AGENT_USER, Network
from coding_agents_guest.privileges import remaining_privileges
from support.engines import EngineUnderTest
from support.guestbox import guest_volume, make_volumes, plan

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
    except OSError:
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
    neighbour_id: str
    subnets: tuple[str, ...]

    def problems(self) -> list[str]:
        def read(argv: Sequence[str]) -> Outcome:
            return self.engine.api.exec(self.id, argv, user=READ_BACK_USER)

        return verify_guard(read, dns=[RESOLVER], allow=[SERVICE], subnets=self.subnets)

    def neighbour(self, code: str, *arguments: str) -> str:
        """What `code` prints when the agent runs it in the holder's namespace."""
        argv = (PYTHON, "-IS", "-c", code, *arguments)
        outcome = self.engine.api.exec(self.neighbour_id, argv, user=AGENT_USER)
        assert outcome.ok, outcome.describe()
        return outcome.text()

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
    make_volumes(engine, session)
    container = engine.api.create(session.holder)
    engine.api.start(container)
    agent = engine.api.create(session.sandbox.joined_to(container))
    engine.api.start(agent)  # its entry point waits at the gate
    made = Holder(engine, container, agent, engine.api.network_subnets(session.network.name))
    made.wait_ready(1)
    yield made
    engine.api.remove(agent, force=True)
    engine.api.remove(container, force=True)
    engine.api.remove_network(session.network.name)


def test_the_guard_stands_and_nothing_private_answers(holder: Holder) -> None:
    assert holder.problems() == []
    gateway = holder.subnets[0].rsplit(".", 1)[0] + ".1"
    private = ("10.0.0.1", "192.168.0.1", "172.17.0.1", "100.64.0.1")
    metadata = ("169.254.169.254", "168.63.129.16")
    addresses = [[address, 80] for address in (gateway, *private, *metadata)]
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
    assert "tcp to 10.1.1.1 port 1 is open" in holder.problems()
    assert all(" to 10.1.1.1 port " in problem for problem in holder.problems())
    nft("flush", "ruleset")
    with pytest.raises(EngineError):
        holder.problems()

    began = time.monotonic()
    holder.engine.api.stop(holder.id, timeout_s=10)
    assert time.monotonic() - began < 8, "it did not end on SIGTERM"
    holder.engine.api.start(holder.id)
    holder.wait_ready(2)
    assert holder.problems() == []


def _refused(holder: Holder) -> int:
    listed = json.loads(holder.engine.api.exec(holder.id, READ_BACK, user=READ_BACK_USER).stdout)
    rules = [entry["rule"]["expr"] for entry in listed["nftables"] if "rule" in entry]
    refusing = [rule for rule in rules if any("reject" in one for one in rule)]
    return sum(one["counter"]["packets"] for rule in refusing for one in rule if "counter" in one)
