"""Ask for a merge of a branch that was just pushed to origin: by push options where the server knows them, else by gh.

GitLab takes `merge_request.create` with the push itself. GitHub does not; its own program `gh` on the host does it, as
the user, when it is installed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from coding_agents.errors import ProgramNotFoundError
from coding_agents.model.approval import Approval, Wanted
from coding_agents.proc.bounded import run_bounded_aside
from coding_agents.proc.runner import Command
from coding_agents.terminal.escape import escape

_GH_S = 60.0
_MOST = 1 << 16
_GITHUB = "github."
_PLACE = re.compile(
    r"(?:https?://|ssh://(?:[^@/]+@)?|(?:[^@/:]+@)?)([A-Za-z0-9.-]+)[:/]/?([\w.-]+)/([\w.-]+?)(?:\.git)?/?"
)
_PASSED = ("PATH", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "GH_TOKEN",
           "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN", "GH_HOST", "GH_CONFIG_DIR", "http_proxy", "https_proxy",
           "HTTPS_PROXY", "no_proxy", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "HOME")  # fmt: skip


def push_options(wanted: Wanted) -> tuple[str, ...]:
    """The options of the push that asks for a merge, none where that is not asked for, or gh is to do it."""
    place = _PLACE.fullmatch(wanted.url)
    if not wanted.merge_request or (place is not None and place[1].lower().startswith(_GITHUB)):
        return ()
    target = (f"merge_request.target={wanted.target}",) if wanted.target else ()
    return ("merge_request.create", *target)


def gh_command(approval: Approval, session: str, *, env: Mapping[str, str]) -> Command | None:
    """`gh pr create` for the branch, or None when its address is no repository of a GitHub. Every value is one word."""
    place = _PLACE.fullmatch(approval.wanted.url)
    if place is None or not place[1].lower().startswith(_GITHUB):
        return None
    subject = approval.shown.commits[0][2] if len(approval.shown.commits) == 1 else approval.branch
    target = (f"--base={approval.wanted.target}",) if approval.wanted.target else ()
    argv = (
        "gh", "pr", "create", f"--repo={place[1]}/{place[2]}/{place[3]}", f"--head={approval.branch}", *target,
        f"--title={escape(subject)[:200]}",
        f"--body=Pushed from session {session} of coding-agents, approved as {approval.id}.",
    )  # fmt: skip
    kept = {name: env[name] for name in _PASSED if name in env}
    quiet = {"GH_PROMPT_DISABLED": "1", "NO_COLOR": "1", "GH_NO_UPDATE_NOTIFIER": "1", "LC_ALL": "C.UTF-8"}
    return Command(argv, {**kept, **quiet}, cwd=Path("/"), timeout_s=_GH_S)


async def create_merge_request(
    approval: Approval, session: str, *, env: Mapping[str, str]
) -> tuple[str, ...]:
    """Ask for it by gh; lines that tell how that went."""
    by_hand = ("no merge request was opened: origin takes none with a push; open it there",)
    command = gh_command(approval, session, env=env)
    if command is None:
        return by_hand
    try:
        outcome = await run_bounded_aside(command, most=_MOST)
    except ProgramNotFoundError:
        return ("no merge request was opened: gh is not installed on the host",)
    said = (outcome.stdout if outcome.ok else outcome.stderr).decode("utf-8", "backslashreplace")
    lines = tuple(line[:300] for line in said.splitlines() if line.strip())[:5]
    return ("merge request:" if outcome.ok else "gh did not open a merge request:", *lines)
