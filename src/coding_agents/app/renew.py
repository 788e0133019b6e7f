"""New containers for a stopped session, where its old ones cannot or must not be started again.

Nothing is lost with a container but what the engine has logged: its root file system is read-only, and what was in its
tmpfs went with the stop. Killed in between, the session has no container; `recover` reads its volumes.
"""

from __future__ import annotations

from coding_agents.sandbox.plan import SessionPlan
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.guest_program import GuestProgram, ensure_guest_volume


def take_this_versions_guest(session: SessionContext) -> None:
    """From now on the session runs the guest's program of this version, which measures what this version asks."""
    record = session.record
    program = GuestProgram.of_this_version(session.env.data_dir)
    ensure_guest_volume(session.engine, program, record.image_id, suffix=record.id)
    session.update(guest_volume=program.volume, guest_digest=program.digest)


def make_anew(session: SessionContext, plan: SessionPlan) -> None:
    """Replace the containers by new ones of `plan`, which are not started."""
    engine, record = session.engine, session.record
    for container in filter(None, (record.container_id, record.holder_id)):
        engine.remove(container)
    holder = engine.create(plan.holder) if plan.holder is not None else ""
    session.update(container_id=engine.create(plan.placed(holder)), holder_id=holder)
