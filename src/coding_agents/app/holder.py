"""The holder of a session's network namespace: made, started, and its guard read back from the kernel.

The agent's container joins that namespace while the guard is still being set up: nothing but our own program
runs in it then, which waits at a gate that stays closed until the guard has been read back.
"""

from __future__ import annotations

import time

from coding_agents.engine.api import Engine
from coding_agents.engine.drift import drift
from coding_agents.errors import EnforcementError
from coding_agents.network.guard import READ_BACK_USER, verify_guard
from coding_agents.sandbox.plan import NamedObject, SessionPlan
from coding_agents.sandbox.spec import HolderSpec

_HOLDER_READY_S = 60.0  # as the supervisor; one that ends is noticed at once
_READY = b"ready"  # the line of coding_agents_guest.holder
_HOLDER_POLL_S = 0.03


def make_holder(engine: Engine, plan: SessionPlan) -> str:
    """Make the session's network and the holder of its namespace, which does not run yet; returns its id."""
    network, holder = _holder_of(plan)
    engine.create_network(network.name, labels=dict(network.labels))
    return engine.create(holder)


def require_holder(engine: Engine, container: str, plan: SessionPlan) -> None:
    """Raise EnforcementError when the started holder, whose guard `guard_problems` waits for, is not as planned."""
    _, holder = _holder_of(plan)
    state = engine.inspect(container)
    if state is None or (differences := drift(holder, state, ignored=engine.info.ignored_limits)):
        details = "\n".join(differences) if state is not None else "it is gone"
        raise EnforcementError("the network holder is not what was planned", details=details)


def guard_problems(
    engine: Engine,
    holder: str,
    *,
    network: str,
    dns: tuple[str, ...],
    private: tuple[str, ...],
    earlier: int = 0,
    rate: int = 0,
    uid: int = 0,
) -> list[str]:
    """What is wrong with the rules that the kernel holds, once the holder has reported its guard.

    `earlier` is how often it had reported before this start (`times_ready`). Raises EnforcementError when it
    does not report.
    """
    _await_ready(engine, holder, earlier)
    return verify_guard(
        lambda argv: engine.exec(holder, argv, user=READ_BACK_USER),
        dns=dns,
        allow=private,
        subnets=engine.network_subnets(network),
        rate=rate,
        uid=uid,
    )


def times_ready(output: bytes) -> int:
    """How often a holder with this output has put its guard up: once at each of its starts."""
    return output.splitlines().count(_READY)


def _await_ready(engine: Engine, holder: str, earlier: int) -> None:
    deadline = time.monotonic() + _HOLDER_READY_S
    while times_ready(output := engine.logs(holder)) <= earlier:
        state = engine.inspect(holder)
        if state is None or not state.running or time.monotonic() > deadline:
            raise EnforcementError(
                "the network guard could not be set up", details=output[-2000:].decode("utf-8", "replace")
            )
        time.sleep(_HOLDER_POLL_S)


def _holder_of(plan: SessionPlan) -> tuple[NamedObject, HolderSpec]:
    if plan.holder is None or plan.network is None:
        raise AssertionError("only a session with a network has a holder")
    return plan.network, plan.holder
