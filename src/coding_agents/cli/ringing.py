"""Notices on the terminal of a verb that is not attached: at the end of what it stayed for."""

from __future__ import annotations

from coding_agents.app.stop import Ended
from coding_agents.cli.context import AppContext
from coding_agents.errors import CodingAgentsError
from coding_agents.model.notice import Shown, ended
from coding_agents.supervisor.context import SessionContext
from coding_agents.terminal.notice import notice_sequence


def notices_shown(app: AppContext) -> Shown:
    """How the user's terminals tell of notices. Settings that cannot be read are no reason to stay away."""
    try:
        return app.settings().notify_terminal
    except CodingAgentsError:
        return "off"


def ring_end(app: AppContext, session: SessionContext, end: Ended) -> None:
    """Tell the terminal on standard error how a session ended."""
    record = session.record
    notice = ended(record.name, status=end.exit_status, where=end.saved.where, branch=record.branch)
    app.output.ring(notice_sequence(notices_shown(app), record.name, notice))
