"""Opening the gate of a measured start, and what becomes of that start when the answer does not come.

From the moment that the gate was asked for, the agent may be at work: nothing it did may be unmade unseen.
"""

from __future__ import annotations

from coding_agents.app.steps import Undo
from coding_agents.app.stop import stop
from coding_agents.errors import (
    AnswerLostError,
    CodingAgentsError,
    GuestError,
    SessionStateError,
    SupervisorGoneError,
)
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.protocol import Op

_GATE_TIMEOUT_S = 960.0  # a .NET preview download is part of the start sequence
_STOP_TIMEOUT_S = 30


def open_gate(session: SessionContext, *, started_at: str, undo: Undo, **measured: object) -> None:
    """Let the start begin that was measured. From then on nothing of `undo` is undone.

    Raises what the supervisor says. Interrupted, or without its answer, the start is ended and its work saved; only
    one that has done none is undone.
    """
    try:
        session.supervisor().call(Op.OPEN_GATE, timeout_s=_GATE_TIMEOUT_S, started_at=started_at, **measured)
    except SupervisorGoneError as error:  # it has settled the start that we measured, and left
        raise SessionStateError(
            "the container ended while it was measured; its gate stays closed",
            details=error.details,
            hint="Run the command again; `coding-agents logs` shows what the container said.",
        ) from error
    except GuestError:  # the guest says so itself: nothing of the agent's has run
        raise
    except BaseException as error:
        if _may_have_begun(session, error, started_at):
            _end(session, error, undo)
        raise
    undo.keep()


def _may_have_begun(session: SessionContext, error: BaseException, started_at: str) -> bool:
    """Whether the guest may have been let go. A supervisor that has answered does nothing more."""
    if not isinstance(error, CodingAgentsError) or isinstance(error, AnswerLostError):
        return True
    try:
        return session.reload().started_at == started_at
    except CodingAgentsError:
        return True


def _end(session: SessionContext, error: BaseException, undo: Undo) -> None:
    """End what may have begun, and keep all of it unless it is known to have done nothing."""
    name = session.record.name
    try:
        ended = stop(session, timeout_s=_STOP_TIMEOUT_S)
    except BaseException:  # noqa: BLE001 - a second Ctrl-C, too: `error` is raised either way
        undo.keep()
        error.add_note(
            f"the agent may have begun: session {name} is kept; `coding-agents stop {name}` saves its work"
        )
        return
    saved = ended.saved
    if saved.where != "none" or saved.nested or saved.note:
        undo.keep()
        became = "removed" if ended.removed else "stopped"
        place = saved.integrated or "its volume"
        error.add_note(f"the agent had begun: session {name} is {became}, its work is in {place}")
