"""Give the agent of a running session its next prompt, as if its user had typed it on its terminal."""

from __future__ import annotations

import time

from coding_agents.app.sessions import require_open_gate
from coding_agents.errors import EngineError, SessionStateError, UsageError
from coding_agents.model.audit import RecordType
from coding_agents.sandbox.spec import AGENT_USER
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.protocol import Op

_MOST = 100_000  # characters
_BUFFER = "coding-agents"
# An Enter that an agent reads together with what was pasted would be a part of the text: it is pressed when the paste
# is on the screen. A screen that does not change (an agent that echoes nothing) is waited for no longer than this.
_ECHO_S = 5.0
_PAUSE_S = 0.3


def tell(session: SessionContext, text: str) -> None:
    """Paste `text` and press Enter. Raises UsageError, SessionStateError, EngineError."""
    text = text.rstrip("\n").replace("\r\n", "\n")
    if not text.strip():
        raise UsageError("there is nothing to tell", hint="Say what the agent is to do.")
    odd = next((char for char in text if not (char.isprintable() or char in "\n\t")), None)
    if odd is not None:  # an escape could end the paste and be typed as keys
        raise UsageError(f"the text holds the control character {odd!r}", hint="Send plain text.")
    if len(text) > _MOST:
        raise UsageError(
            f"the text has {len(text)} characters; {_MOST} are taken", hint="Put it into a file."
        )
    require_open_gate(session)
    if session.record.mode != "tmux":
        raise SessionStateError(
            f"session {session.record.name} runs a command and has no terminal",
            hint="Tell it something by launching it without -p and COMMAND.",
        )
    detail = {"characters": str(len(text))}
    session.supervisor().ask(Op.RECORD, type=RecordType.TOLD.value, subject="tell", detail=detail)
    _tmux(session, "load-buffer", "-b", _BUFFER, "-", stdin=text.encode())
    before = _screen(session)
    _tmux(session, "paste-buffer", "-p", "-r", "-d", "-b", _BUFFER, "-t", "agent")
    deadline = time.monotonic() + _ECHO_S
    while _screen(session) == before and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    time.sleep(_PAUSE_S)
    _tmux(session, "send-keys", "-t", "agent", "Enter")


def _screen(session: SessionContext) -> bytes:
    return _tmux(session, "capture-pane", "-p", "-t", "agent")


def _tmux(session: SessionContext, *words: str, stdin: bytes = b"") -> bytes:
    done = session.engine.exec(session.record.container_id, ("tmux", *words), user=AGENT_USER, stdin=stdin)
    if not done.ok:
        raise EngineError(
            f"the session's terminal did not take it: tmux {words[0]} failed", details=done.describe()
        )
    return done.stdout
