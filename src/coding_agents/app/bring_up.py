"""Steps 7 to 9 of a launch and of `start`: from a container that runs to an agent that runs behind walls.

The order is the protection: the guest waits at its gate until the host has measured this very start.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from coding_agents.app.demands import Demands
from coding_agents.app.gate import open_gate
from coding_agents.app.holder import guard_problems
from coding_agents.app.steps import Parallel, Trace, Undo
from coding_agents.engine.api import ContainerState
from coding_agents.engine.drift import drift
from coding_agents.engine.hostcgroup import read_limits
from coding_agents.errors import (
    CodingAgentsError,
    EnforcementError,
    EngineError,
)
from coding_agents.network.guard import holder_options
from coding_agents.quota.window import is_direct, loops_of
from coding_agents.sandbox.guest import NOT_OURS
from coding_agents.sandbox.plan import SessionPlan
from coding_agents.sandbox.protections import Enforced, Evidence, judge
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.disk import image_of
from coding_agents.supervisor.guest_config import to_plain
from coding_agents.supervisor.protocol import Op
from coding_agents.supervisor.room import disk_of, require_room
from coding_agents_guest.events import GuestConfig


class Guarding(msgspec.Struct, frozen=True):
    """What the session's network guard must allow, and nothing else.

    `earlier` is how often the holder had reported its guard before this start, `rate` the bytes a second that may pass,
    `uid` the user of the proxy, who alone may open connections (0: there is none).
    """

    dns: tuple[str, ...]
    private: tuple[str, ...]
    earlier: int = 0
    rate: int = 0
    uid: int = 0

    @property
    def options(self) -> tuple[str, ...]:
        """Of the holder's command."""
        return holder_options(dns=self.dns, allow=self.private, rate=self.rate, uid=self.uid)


def bring_up(
    session: SessionContext,
    plan: SessionPlan,
    guest: GuestConfig,
    trace: Trace,
    *,
    guarding: Guarding,
    demands: Demands,
    undo: Undo,
    fill: Callable[[], None] | None = None,
    on_gate: Callable[[SessionContext], None] | None = None,
) -> Enforced:
    """Measure the container that was just started, and open its gate. Raises EnforcementError before it opens.

    `fill` puts into its volumes what they must hold by then; `on_gate` is called just before it opens. From then on
    nothing of `undo` is undone (`open_gate`): the agent works, and what it does is in the volumes alone.
    """
    require_room(session)
    supervisor = session.supervisor()
    try:
        with Parallel(trace) as steps:  # all of it after this very start
            guard = steps.run("guard", lambda: _guard_problems(session, plan, guarding))
            if fill is not None:
                steps.run("copy", fill)
            with trace.step("channel"):
                facts = supervisor.ask(Op.ATTACH)["facts"]
            with trace.step("state"):  # after the channel is open: see Supervisor's `OPEN_GATE`
                state = require_state(session)
    except CodingAgentsError as error:
        _explain(session, error)
        raise
    with trace.step("measure"):
        enforced = _measure(session, plan, facts, state, guard=guard.result(), demands=demands)
    with trace.step("gate"):
        if on_gate is not None:
            on_gate(session)
        open_gate(
            session,
            started_at=state.started_at,
            undo=undo,
            config=to_plain(guest),
            enforced=dict(enforced.layers),
            network={
                "dns": " ".join(guarding.dns),
                "private": " ".join(guarding.private),
                "rate": str(guarding.rate),
            },
        )
    session.reload()
    return enforced


def _explain(session: SessionContext, error: CodingAgentsError) -> None:
    """Raise what stands behind a failure when that is a guest program that was changed."""
    try:
        said = session.engine.logs(session.record.container_id, tail=1)
    except CodingAgentsError:
        return  # the first error is the one to be told
    record = session.record
    if said.startswith(NOT_OURS.encode()):
        raise EnforcementError(
            f"the guest program in the volume {record.guest_volume} is not ours",
            details=said.decode("utf-8", "replace").strip(),
            hint=f"Somebody changed it: find out who. `{record.engine} volume rm {record.guest_volume}-ready` "
            "lets the next launch of this version write it anew.",
        ) from error


def require_state(session: SessionContext) -> ContainerState:
    """The running container's state. Raises EngineError when it is gone or has ended."""
    state = session.container_state()
    if state is None or not state.running:
        output = session.engine.logs(session.record.container_id, tail=20) if state is not None else b""
        raise EngineError(
            f"the container {session.record.container} ended before its gate was opened",
            details=output.decode("utf-8", "replace"),
        )
    return state


def _guard_problems(session: SessionContext, plan: SessionPlan, guarding: Guarding) -> list[str] | None:
    """What is wrong with the network guard; None for a session without a network."""
    if plan.holder is None or plan.network is None:
        return None
    return guard_problems(
        session.engine,
        session.record.holder_id,
        network=plan.network.name,
        dns=guarding.dns,
        private=guarding.private,
        earlier=guarding.earlier,
        rate=guarding.rate,
        uid=guarding.uid,
    )


def _measure(
    session: SessionContext,
    plan: SessionPlan,
    facts: dict[str, object],
    state: ContainerState,
    *,
    guard: list[str] | None,
    demands: Demands,
) -> Enforced:
    """Compare what the engine made and what the kernel enforces with the plan."""
    spec = plan.placed(session.record.holder_id)
    info = session.engine.info
    differences = drift(spec, state, ignored=info.ignored_limits)
    if spec.gvisor:
        facts = {**facts, "cgroup": read_limits(info, state)}
    image = image_of(session)
    loops = loops_of(image) if image is not None else ()
    evidence = Evidence(
        facts,
        spec,
        guard=guard,
        userns=info.user_namespace,
        disk_watched=bool(disk_of(session)),
        kernel=info.machine[1],
        loops=loops,
        direct=all(map(is_direct, loops)),
    )
    enforced = judge(evidence, asked=demands.asked, best_effort=demands.best_effort)
    problems = [*differences, *enforced.violations]
    if problems:
        raise EnforcementError(
            "the container is not what was planned; its gate stayed closed",
            details="\n".join(problems),
            hint="Run `coding-agents doctor`; what you asked for yourself may be missing with --best-effort NAME.",
        )
    return enforced
