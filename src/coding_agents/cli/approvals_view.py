"""What a person sees of a push that waits, and `approvals watch`. All of it is hostile text but ids and numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator

from coding_agents.app.approvals import Asked, asked_for, decide
from coding_agents.cli.context import AppContext
from coding_agents.cli.watch import age_text
from coding_agents.errors import CodingAgentsError
from coding_agents.model.approval import Approval
from coding_agents.terminal.escape import escape
from coding_agents.terminal.keys import Keys, single_keys
from coding_agents.terminal.table import render_table

_EVERY_S = 1.0
_COMMITS, _PATHS, _FINDINGS = 20, 20, 20
_SAY = "a approve · d deny · s skip · q leave"


def lines(asked: Asked) -> Iterator[str]:
    """A push for people, everything escaped."""
    approval, wanted, shown = asked.approval, asked.approval.wanted, asked.approval.shown
    yield f"push     {approval.id} of session {asked.name}: {_state(approval)}"
    yield f"to       {escape(wanted.url)}"
    there = f"{wanted.old[:12]} → {wanted.new[:12]}" if wanted.old else f"new, at {wanted.new[:12]}"
    yield f"branch   {escape(approval.branch)}: {there}"
    if wanted.force:
        yield "FORCE    it replaces commits that are there now"
    if wanted.merge_request:
        yield f"merge    a request is opened into {escape(wanted.target) or 'the default branch'}"
    since = f" since {shown.base[:12]}" if shown.base else ""
    changed = f"{shown.file_count} file(s), +{shown.insertions} -{shown.deletions}{since}"
    yield f"commits  {shown.commit_count}; {changed}"
    for oid, author, subject in shown.commits[:_COMMITS]:
        yield f"    {escape(oid)[:12]} {escape(author)}: {escape(subject)}"
    yield from _more(shown.commit_count, min(len(shown.commits), _COMMITS), "commit(s)")
    for path in shown.paths[:_PATHS]:
        yield f"    {escape(path)}"
    yield from _more(shown.file_count, min(len(shown.paths), _PATHS), "file(s)")
    yield (
        f"findings {shown.finding_count}, {shown.blocking} blocking"
        if shown.finding_count
        else "findings none"
    )
    if shown.findings:
        yield render_table(("SEVERITY", "RULE", "PATH", "DETAIL"), [
            (severity, rule, path or "-", detail) for severity, rule, path, detail in shown.findings[:_FINDINGS]
        ]).rstrip("\n")  # fmt: skip
    yield from _more(shown.finding_count, min(len(shown.findings), _FINDINGS), "finding(s)")
    if approval.reason:
        yield f"reason   {escape(approval.reason)}"
    for line in approval.said.splitlines():
        yield f"origin:  {escape(line)}"


def watch_approvals(app: AppContext) -> None:
    """Show one after the other and take a key for each, until `q` or Ctrl-C."""
    skipped: set[str] = set()
    with single_keys(0) as keys:
        while True:
            waiting = [one for one in asked_for(app.env, app.store) if one.approval.id not in skipped]
            if not waiting:
                app.output.progress("no push waits for you; q leaves")
                if keys.get(_EVERY_S) == "q":
                    app.output.clear_progress()
                    return
                continue
            asked = waiting[0]
            app.output.result("\n".join((*lines(asked), _SAY)))
            keys.discard()  # what was typed before it was shown is no answer to it
            match _answer(app, asked, keys):
                case "a":
                    _decide(app, asked, grant=True)
                case "d":
                    _decide(app, asked, grant=False)
                case "s":
                    skipped.add(asked.approval.id)
                case "q":
                    return
                case _:
                    app.output.say(f"push {asked.approval.id} waits no longer")


def _answer(app: AppContext, asked: Asked, keys: Keys) -> str:
    """One of the keys; "" when it waits no longer."""
    while any(one.approval == asked.approval for one in asked_for(app.env, app.store)):
        if (pressed := keys.get(_EVERY_S)) in ("a", "d", "s", "q"):
            return pressed
    return ""


def _decide(app: AppContext, asked: Asked, *, grant: bool) -> None:
    app.output.progress("pushing" if grant else "denying")
    try:
        done = decide(asked, grant=grant)
    except CodingAgentsError as error:
        app.output.fail(error, as_json=False)
        return
    for line in done.said.splitlines():
        app.output.say(f"origin: {line}")
    app.output.say(f"{done.state}{f': {done.reason}' if done.reason else ''}")


def _state(approval: Approval) -> str:
    if approval.state != "pending":
        return approval.state
    now = time.time()
    waited, left = now - approval.created_ms / 1000, approval.expires_ms / 1000 - now
    return f"waits since {age_text(waited)}, for {age_text(left)} more"


def _more(total: int, shown: int, what: str) -> Iterator[str]:
    if total > shown:
        yield f"    and {total - shown} more {what}"
