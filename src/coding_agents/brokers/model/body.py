"""A request's body between its bytes and its judgement: what is sent on is what was read, written anew.

So no two readers of the same bytes can find different things in them: a key given twice, another encoding, a comment.
Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from coding_agents.brokers.model.apis import Protocol
from coding_agents.brokers.model.shapes import Finding, Kind, TooLargeError, judge
from coding_agents.policy.matrix import Operation

_LISTABLE = (Operation.MODEL_SERVER_TOOL, Operation.MODEL_UNKNOWN)


class MalformedBodyError(Exception):
    """A body that is not read; the message says why."""


def read_body(data: bytes) -> dict[str, Any]:
    """The object in `data`. Raises MalformedBodyError."""
    try:
        body = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedBodyError(f"the body is not JSON: {str(error)[:200]}") from error
    if not isinstance(body, dict):
        raise MalformedBodyError("the body is not an object")
    return body


def write_body(body: dict[str, Any]) -> bytes:
    """The same in bytes: of ASCII, as a model's text may hold halves of characters that UTF-8 cannot.

    Raises MalformedBodyError for a number that JSON cannot say.
    """
    try:
        return json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (ValueError, RecursionError) as error:
        raise MalformedBodyError(f"the body cannot be written: {str(error)[:200]}") from error


def findings(
    body: dict[str, Any], shape: Kind, protocol: Protocol, *, allowed: Iterable[str]
) -> tuple[Finding, ...]:
    """What `body` asks for besides an answer, less the server tools that the user allows, by the name they begin with.

    Raises MalformedBodyError.
    """
    listed = tuple(allowed)
    try:
        found = tuple(judge(body, shape, protocol.families))
    except TooLargeError:
        raise MalformedBodyError("the body has more values than are looked at") from None
    return tuple(
        one for one in found if not (one.operation in _LISTABLE and listed and one.what.startswith(listed))
    )


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
