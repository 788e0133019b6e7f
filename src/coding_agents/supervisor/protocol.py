"""The control socket's messages between our verbs and a session's supervisor.

One request and one answer a connection, each a JSON line of at most 1 MiB. The socket lies in a directory
that only the launching user can enter, so a request is that user's. Answers: `{"ok": true, …}` or
`{"ok": false, "code", "message", "details", "hint"}`.
"""

from __future__ import annotations

import json
import traceback
from enum import Enum
from typing import Any

import msgspec

from coding_agents import errors
from coding_agents.errors import CodingAgentsError, SupervisorError
from coding_agents.model.notice import Notice

MAX_LINE = 1 << 20

_MAX_REASON = 300
_MAX_TRACE = 4000


class Op(Enum):
    """What a verb can ask of a supervisor."""

    STATUS = "status"  # → {"phase", "gate_open"}
    ATTACH = "attach"  # open the channel to the started container → {"facts": probe facts}
    OPEN_GATE = "open-gate"  # {"started_at", "config"}: let this start's guest begin → {}
    # {"type", "subject", "outcome", "detail", "required"}: write one audit record of a verb → {}; a required one
    # that cannot be written is an error
    RECORD = "record"
    AUTOSAVE = "autosave"  # {"branch"}: save without moving anything → {"commit", "pushed", "message"}
    STOP = "stop"  # {"stop_timeout_s"}: save, stop, settle → {"saved": …}
    WAIT = "wait"  # answer when the session has ended and its work is settled → {"exit_status", "saved": …}
    SALVAGE = "salvage"  # bring the volume's work into the relay and the repository → {"saved": …}
    NOTICES = (
        "notices"  # {"after": number or null}: the notices from there on, when there are any → `read_notices`
    )
    DECIDE = "decide"  # {"id", "binding", "grant", "reason", "env"}: of a push → {"state", "reason", "said"}
    QUIT = "quit"  # leave (a launch that is being undone)


def encode(message: dict[str, Any]) -> bytes:
    """The line of one message."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The message that `line` holds. Raises SupervisorError."""
    try:
        message = json.loads(line)
    except ValueError as error:
        raise SupervisorError("malformed message on the control socket") from error
    if not isinstance(message, dict):
        raise SupervisorError("malformed message on the control socket")
    return message


def read_notices(answer: dict[str, Any]) -> tuple[tuple[Notice, ...], int]:
    """The notices of an answer, and the number to ask from next time. Raises SupervisorError."""
    try:
        return msgspec.convert((answer["notices"], answer["number"]), tuple[tuple[Notice, ...], int])
    except (KeyError, msgspec.ValidationError) as error:
        raise SupervisorError("malformed notices on the control socket") from error


def failure(error: CodingAgentsError) -> dict[str, Any]:
    """The answer that carries `error` to the other side."""
    return {
        "ok": False,
        "code": error.code,
        "message": error.message,
        "details": error.details,
        "hint": error.hint,
    }


def told(error: Exception) -> CodingAgentsError:
    """`error` as one that can be told and recorded: what is none of ours is a mistake in the program."""
    if isinstance(error, CodingAgentsError):
        return error
    text = str(error).encode("utf-8", "backslashreplace").decode("utf-8")[:_MAX_REASON]
    return SupervisorError(
        f"the supervisor failed: {type(error).__name__}: {text}",
        details="".join(traceback.format_exception(error))[-_MAX_TRACE:]
        .encode("ascii", "backslashreplace")
        .decode(),
    )


def raise_failure(answer: dict[str, Any]) -> dict[str, Any]:
    """Give back an answer that is ok; raise the error that it carries otherwise."""
    if answer.get("ok") is True:
        return answer
    kind = _BY_CODE.get(str(answer.get("code")), SupervisorError)
    raise kind(
        str(answer.get("message", "the supervisor failed")),
        details=str(answer.get("details", "")),
        hint=str(answer.get("hint", "")),
    )


_BY_CODE: dict[str, type[CodingAgentsError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, CodingAgentsError)
}
