"""Tell git in a session what becomes of its push to origin, and keep it waiting for a person a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from coding_agents.gitsync.pktline import PushCommands, keepalive, progress, report
from coding_agents.gitsync.splice import ByteStream, finish_reading
from coding_agents.model.approval import Approval

_BREATH_S = 5.0
Decided = Callable[[Approval, float], Awaitable[Approval]]
"""Waits until a person has decided, or for some seconds; gives what is known by then."""


async def answer(
    stream: ByteStream, commands: PushCommands, approval: Approval, decided: Decided, *, wait_s: float
) -> None:
    """Wait for the decision, at most `wait_s`, and tell how it came out. Raises OSError when the guest is gone.

    What of the approval is shown here, its `said` and `reason`, is safe to show.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    if approval.state in ("pending", "approved"):
        await stream.write(progress(commands, _waiting(approval)))
    while approval.state in ("pending", "approved") and (left := deadline - loop.time()) > 0:
        approval = await decided(approval, min(_BREATH_S, left))
        await stream.write(keepalive(commands))
    if approval.said:
        lines = "".join(f"origin: {line}\n" for line in approval.said.splitlines())
        await stream.write(progress(commands, lines))
    await send_off(stream, commands, [reason_of(approval)], most=1 << 20)


async def send_off(stream: ByteStream, commands: PushCommands, reasons: Sequence[str], *, most: int) -> None:
    """Report on each update why it was not done, "" for one that was. Raises OSError."""
    await stream.write(report(commands, reasons))
    await finish_reading(stream, most=most)


def reason_of(approval: Approval) -> str:
    """Why a push is not at origin, as git in the session shows it; "" when it is."""
    match approval.state:
        case "pushed":
            return ""
        case "pending":
            return f"waiting for approval {approval.id}; push again after"
        case "approved":
            return f"approved as {approval.id}, and under way; push again to see"
        case "denied":
            return f"denied: {approval.reason}" if approval.reason else "denied by a person"
        case "superseded":
            return "a later push of this branch took its place"
        case "failed" | "expired":
            return approval.reason or approval.state


def _waiting(approval: Approval) -> str:
    forced = " (it replaces commits there)" if approval.wanted.force else ""
    return (
        f"This push to origin{forced} waits for a person. On the host:\n"
        f"    coding-agents approvals show {approval.id}\n"
        f"    coding-agents approvals approve {approval.id}\n"
    )
