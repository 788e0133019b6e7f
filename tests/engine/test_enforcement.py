"""A planned session on a real engine: as asked, enforced by the kernel, its guard there after restarts."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from coding_agents.engine.drift import drift
from coding_agents.network.guard import READ_BACK_USER, holder_options, verify_guard
from coding_agents.proc.runner import Outcome
from coding_agents.sandbox.guest import PYTHON, guest_argv
from coding_agents.sandbox.invariants import check_spec
from coding_agents.sandbox.plan import PlanInput, SessionPlan, plan_session
from coding_agents.sandbox.protections import Enforced, Evidence, judge
from coding_agents.sandbox.spec import BRIDGE_USER, Network, SandboxSpec
from support.engines import EngineUnderTest
from support.guestbox import GUEST_DIGEST
from support.guestbox import guest_volume as filled_volume
from support.specs import identity

_DNS = ("192.0.2.53",)
_LIMITS = ("memory", "swap", "cpus", "pids")


@dataclass
class Session:
    """The started containers of one plan."""

    under_test: EngineUnderTest
    plan: SessionPlan
    sandbox: SandboxSpec
    container: str
    holder: str = ""

    def guard(self) -> list[str] | None:
        if self.plan.network is None:
            return None

        def read(argv: Sequence[str]) -> Outcome:
            return self.under_test.api.exec(self.holder, argv, user=READ_BACK_USER)

        subnets = self.under_test.api.network_subnets(self.plan.network.name)
        return verify_guard(read, dns=_DNS, allow=(), subnets=subnets)

    def measure(self) -> Enforced:
        outcome = self.under_test.api.exec(
            self.container, guest_argv(GUEST_DIGEST, "probe"), user=BRIDGE_USER
        )
        assert outcome.ok, outcome.describe()
        evidence = Evidence(json.loads(outcome.stdout), self.sandbox, guard=self.guard(), userns=False)
        return judge(evidence, asked=_LIMITS)

    def python(self, code: str) -> Outcome:
        """Run `code` as the agent."""
        return self.under_test.api.exec(self.container, (PYTHON, "-c", code), user="1000:1000", timeout_s=30)


@pytest.fixture(scope="session")
def guest_volume(engine: EngineUnderTest) -> str:
    """A volume with the guest's program, filled as a launch fills it."""
    return filled_volume(engine)


@pytest.fixture(scope="session", params=[Network.ALLOW_ALL, Network.RESTRICTED], ids=lambda mode: mode.value)
def session(request: pytest.FixtureRequest, engine: EngineUnderTest, guest_volume: str) -> Iterator[Session]:
    """A session whose gate stays shut: the entry point waits, so this is what the agent would have."""
    facts = PlanInput(
        identity=identity(network=request.param, name=engine.fresh_name()),
        image=engine.image,
        base_image=engine.image,
        guest_volume=guest_volume,
        guest_digest=GUEST_DIGEST,
        host_cpus=engine.api.info.cpus,
        resolvers=_DNS,
        holder_options=holder_options(dns=_DNS, allow=()),
        extra_labels=tuple(engine.labels.items()),
    )
    plan = plan_session(facts)
    for spec in plan.containers:
        check_spec(spec)
    for volume in (plan.workspace, plan.home):
        engine.api.create_volume(volume.name, labels=dict(volume.labels))
    holder, sandbox = "", plan.sandbox
    if plan.holder is not None and plan.network is not None:
        engine.api.create_network(plan.network.name, labels=dict(plan.network.labels))
        holder = engine.api.create(plan.holder)
        assert drift(plan.holder, _state(engine, holder)) == []
        engine.api.start(holder)
        _wait_ready(engine, holder, times=1)
        sandbox = sandbox.joined_to(holder)
    container = engine.api.create(sandbox)
    assert drift(sandbox, _state(engine, container)) == []
    engine.api.start(container)
    yield Session(engine, plan, sandbox, container, holder)
    for made in (container, holder):
        if made:
            engine.api.remove(made, force=True)


def _state(engine: EngineUnderTest, container: str):  # type: ignore[no-untyped-def]
    state = engine.api.inspect(container)
    assert state is not None
    return state


def _wait_ready(engine: EngineUnderTest, holder: str, *, times: int) -> None:
    end = time.monotonic() + 30
    while engine.api.logs(holder).split().count(b"ready") < times:
        assert time.monotonic() < end, engine.api.logs(holder)
        assert _state(engine, holder).running, engine.api.logs(holder)
        time.sleep(0.05)


def test_every_required_protection_is_measured_on(session: Session) -> None:
    verdict = session.measure()
    assert verdict.violations == ()
    assert verdict.layers["network"] == ("guarded" if session.holder else "none")
    assert verdict.layers["memory"] == "8g"
    assert verdict.layers["pids"] == "4096"


def test_the_engine_still_says_what_was_asked_while_it_runs(session: Session) -> None:
    assert drift(session.sandbox, _state(session.under_test, session.container)) == []


def test_a_container_without_a_wall_is_found_out(session: Session) -> None:
    """The measurement can fail: a spec that promises other limits than the container has is a violation."""
    stricter = replace(
        session.sandbox, limits=replace(session.sandbox.limits, pids=100, memory_bytes=1 << 30)
    )
    stricter_session = dataclasses.replace(session, sandbox=stricter)
    verdict = stricter_session.measure()
    assert {line.split()[0] for line in verdict.violations} == {"memory", "swap", "pids"}


def test_the_agent_cannot_write_the_root_or_the_guest(session: Session) -> None:
    code = (
        "import errno, os\n"
        "guest = '/opt/coding-agents/'\n"
        "for path in ('/x', '/etc/x', '/usr/bin/x', guest + 'x', guest + 'guest.pyz'):\n"
        "    try:\n"
        "        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))\n"
        "    except OSError as error:\n"
        "        assert error.errno in (errno.EROFS, errno.EACCES, errno.EPERM), error\n"
        "    else:\n"
        "        raise SystemExit(path)\n"
    )
    outcome = session.python(code)
    assert outcome.ok, outcome.describe()


def test_a_restarted_holder_has_its_guard_again(session: Session) -> None:
    if not session.holder:
        assert session.guard() is None
        return
    api = session.under_test.api
    before = api.logs(session.holder).split().count(b"ready")
    api.stop(session.container, timeout_s=1)
    api.stop(session.holder, timeout_s=5)
    api.start(session.holder)
    _wait_ready(session.under_test, session.holder, times=before + 1)
    api.start(session.container)
    assert session.guard() == []
    assert session.measure().violations == ()


def test_a_holder_without_its_rules_is_noticed(session: Session) -> None:
    """The host's check can fail: rules that the guard did not ask for are reported."""
    if not session.holder or session.plan.network is None:
        assert session.guard() is None
        return

    def read(argv: Sequence[str]) -> Outcome:
        return session.under_test.api.exec(session.holder, argv, user=READ_BACK_USER)

    problems = verify_guard(read, dns=("198.51.100.1",), allow=())
    assert any("192.0.2.53" in problem for problem in problems)
    assert any("198.51.100.1" in problem for problem in problems)
