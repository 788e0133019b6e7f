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
from coding_agents.model.session import Saved
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.protocol import Op

_GATE_TIMEOUT_S = 960.0  # a .NET preview download is part of the start sequence
_STOP_TIMEOUT_S = 30


def open_gate(session: SessionContext, *, started_at: str, undo: Undo, **measured: object) -> None:
    """Let the start begin that was measured. From then on nothing of `undo` is undone.

    Raises what the supervisor says. Interrupted, or without its answer, the start is ended and its work saved; only
    one that has done none is undone.
    """
    undo_again = undo.hold()  # until it is known that nothing has run: an interrupt may come at any time
    before = session.record.saved
    try:
        session.supervisor().call(Op.OPEN_GATE, timeout_s=_GATE_TIMEOUT_S, started_at=started_at, **measured)
    except SupervisorGoneError as error:  # it has settled the start that we measured, and left
        undo_again()
        raise SessionStateError(
            "the container ended while it was measured; its gate stays closed",
            details=error.details,
            hint="Run the command again; `coding-agents logs` shows what the container said.",
        ) from error
    except GuestError:  # the guest says so itself: nothing of the agent's has run
        undo_again()
        raise
    except BaseException as error:
        if _has_not_begun(session, error) or _has_done_nothing(session, error, before):
            undo_again()
        raise


def _has_not_begun(session: SessionContext, error: BaseException) -> bool:
    """Whether the guest was not let go. Only of a supervisor that has answered can that be known: it does no more."""
    if not isinstance(error, CodingAgentsError) or isinstance(error, AnswerLostError):
        return False
    try:
        return session.reload().phase == "starting"
    except CodingAgentsError:
        return False


def _has_done_nothing(session: SessionContext, error: BaseException, before: Saved) -> bool:
    """End what may have begun; whether it is known to have left nothing that was not there `before`.

    Else `error` tells where its work is.
    """
    name = session.record.name
    try:
        ended = stop(session, timeout_s=_STOP_TIMEOUT_S)
    except BaseException:  # noqa: BLE001 - a second Ctrl-C, too: `error` is raised either way
        error.add_note(
            f"the agent may have begun: session {name} is kept; `coding-agents stop {name}` saves its work"
        )
        return False
    saved = ended.saved
    unread = [path for path in saved.left_out if path.endswith(("/", "/.git"))]  # repositories inside
    is_old = saved.relay_tip in ("", session.record.base, before.relay_tip) and saved.where != "volume"
    if is_old and saved.nested == before.nested and not (unread or saved.note):
        return True
    became = "removed" if ended.removed else "stopped"
    place = saved.integrated or "its volume"
    error.add_note(f"the agent may have begun: session {name} is {became}, its work is in {place}")
    return False
