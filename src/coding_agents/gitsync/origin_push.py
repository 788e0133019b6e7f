"""Carry out one push to origin as the user: exactly one commit to exactly one branch of exactly one address."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec

from coding_agents.gitsync.origin_address import Address
from coding_agents.gitsync.origin_store import unreachable
from coding_agents.model.approval import Wanted
from coding_agents.proc.bounded import run_bounded_aside
from coding_agents.proc.git_user import user_command
from coding_agents.proc.limits import ProcessLimits

_PUSH_S = 600.0
_MOST = 1 << 20
_LINES, _LINE = 40, 300
_LIMITS = ProcessLimits(cpu_s=600, memory_bytes=4 << 30, file_bytes=1 << 30, open_files=1024)
_OPTIONS_UNKNOWN = "the receiving end does not support push options"


class Pushed(msgspec.Struct, frozen=True):
    """How it went: `reason` is why not, "" when it was pushed; `said` are lines of the server's, hostile text.

    `options_unknown` tells that origin takes no push options, so that nothing was pushed.
    """

    reason: str
    said: tuple[str, ...]
    options_unknown: bool = False


async def push_out(
    git_dir: Path, wanted: Wanted, address: Address, *, env: Mapping[str, str], options: tuple[str, ...] = ()
) -> Pushed:
    """Push what `wanted` says from the repository of ours at `git_dir`; `env` is the user's environment.

    The lease makes origin refuse it when the branch has moved since it was looked at. Raises nothing of git's.
    """
    lease = f"--force-with-lease={wanted.ref}:{wanted.old}"
    args = (
        "push", "--porcelain", "--no-verify", "--no-follow-tags", "--no-signed", "--recurse-submodules=no",
        "--no-progress", lease, *(f"--push-option={option}" for option in options),
        "--", address.remote, f"{wanted.new}:{wanted.ref}",
    )  # fmt: skip
    command = await asyncio.to_thread(
        lambda: user_command(
            args, env=env, git_dir=git_dir, settings=address.settings, limits=_LIMITS, timeout_s=_PUSH_S
        )
    )
    outcome = await run_bounded_aside(command, most=_MOST)
    stderr = address.without_secret(outcome.stderr.decode("utf-8", "backslashreplace"))
    said = tuple(_server_lines(stderr))
    if _OPTIONS_UNKNOWN in stderr:
        return Pushed("origin takes no push options", said, options_unknown=True)
    if (line := _status_line(outcome.text(), wanted)) is None:
        return Pushed(unreachable(address, outcome, "pushed to").message, said)
    flag, why = line
    if outcome.ok and flag in (" ", "*", "+", "="):
        return Pushed("", said)
    return Pushed(f"origin refused it: {why[:_LINE] or 'it does not say why'}", said)


def _status_line(stdout: str, wanted: Wanted) -> tuple[str, str] | None:
    """Flag and text of the one ref's line (git-push(1), "OUTPUT"): FLAG TAB FROM:TO TAB TEXT."""
    for line in stdout.splitlines():
        parts = line.split("\t")
        if len(parts) == 3 and parts[1] == f"{wanted.new}:{wanted.ref}":
            return parts[0][:1], parts[2]
    return None


def _server_lines(stderr: str) -> list[str]:
    """What origin's hooks have said, of which git shows each line after `remote: `."""
    lines = [
        line.removeprefix("remote:").strip() for line in stderr.splitlines() if line.startswith("remote:")
    ]
    kept = [line[:_LINE] for line in lines if line]
    return kept[:_LINES] + ([f"({len(kept) - _LINES} more lines)"] if len(kept) > _LINES else [])
