"""The three lines at the end of a session: commits, diffstat, files to look at; and where the work is."""

from __future__ import annotations

from coding_agents.app.review import to_look_at
from coding_agents.app.stop import Ended
from coding_agents.app.work import summary_of
from coding_agents.cli.context import AppContext
from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.findings.model import Finding
from coding_agents.gitsync.summary import Summary
from coding_agents.model.session import Saved
from coding_agents.model.spending import Spent
from coding_agents.supervisor.context import SessionContext
from coding_agents.terminal.escape import escape
from coding_agents_guest.nestedref import NESTED, nested_path

_NAMED = 6
_DETAIL = 80


def show_end(app: AppContext, session: SessionContext, ended: Ended) -> None:
    """Tell where the work of an ended session is, and what to look at before using it."""
    saved, record = ended.saved, session.record
    summary, look_at = _looked_at(session, saved)
    where = {
        "branch": f"branch {record.branch}",
        "incoming": f"{saved.integrated} ({saved.note})",
        "volume": "still in the session's volume",
        "none": "no commits",
    }[saved.where]
    if summary is None:
        app.output.say(
            f"work     {where}" + (f": {saved.note}" if saved.note and saved.where != "incoming" else "")
        )
    else:
        app.output.say(f"work     {summary.commits} commit(s) on {where}")
        app.output.say(
            f"changes  {summary.files} file(s), {summary.insertions} insertion(s), {summary.deletions} deletion(s)"
        )
    if look_at and saved.where != "volume":
        app.output.say(f"look at  {look_at}")
    if summary is not None and saved.note and saved.where == "branch":
        app.output.say(f"note     {saved.note}")
    if saved.nested:
        paths = tuple(nested_path(ref.removeprefix(f"{NESTED}{record.id}/")) for ref in saved.nested)
        app.output.say(f"inside   {name_few(paths)}: `coding-agents nested {record.name}`")
    if saved.left_out:
        app.output.say(f"left out {name_few(saved.left_out)}")
    if ended.spent.requests:
        app.output.say(f"model    {spent_text(ended.spent)}")


def spent_text(spent: Spent) -> str:
    """What a session has used of its model, in a line."""
    cached = f" ({spent.cached:,} of them cached)" if spent.cached else ""
    cost = f", ${spent.cost / 1e6:,.2f}" if spent.cost else ""
    return (
        f"{spent.requests:,} request(s), {spent.read:,} tokens read{cached}, {spent.written:,} written{cost}"
    )


def _looked_at(session: SessionContext, saved: Saved) -> tuple[Summary | None, str]:
    """What came back in numbers, and what to look at of it; where that cannot be found out, the reason."""
    try:
        summary, findings = summary_of(session, saved), to_look_at(session, saved)
    except CodingAgentsError as error:
        return None, f"all of it before you use it, it could not be read: {escape(error.message)}"
    return summary, _look_at(findings, session.record.id) if summary is not None or findings else ""


def name_few(paths: tuple[str, ...]) -> str:
    """The first of `paths`, and how many more there are."""
    return ", ".join(map(escape, paths[:_NAMED])) + _more(len(paths))


def _look_at(findings: tuple[Finding, ...], session: str) -> str:
    """One mention for each path, with the gravest that was found there."""
    first: dict[str, str] = {}
    for finding in findings:
        first.setdefault(_place(finding, session), finding.detail[:_DETAIL])
    if not first:
        return "nothing that runs on the host by itself"
    shown = [f"{escape(path)} ({escape(detail)})" for path, detail in list(first.items())[:_NAMED]]
    return ", ".join(shown) + _more(len(first))


def _place(finding: Finding, session: str) -> str:
    """The path in the session's work tree; of another branch with its ref."""
    inside = f"{NESTED}{session}/"
    if finding.ref.startswith(inside):
        path = nested_path(finding.ref.removeprefix(inside))
        return f"{path}/{finding.path}" if finding.path else path
    if finding.ref:
        return f"{finding.ref}:{finding.path}" if finding.path else finding.ref
    return finding.path or "the branch"


def _more(count: int) -> str:
    return f" and {count - _NAMED} more" if count > _NAMED else ""
