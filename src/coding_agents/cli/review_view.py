"""A review as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from coding_agents.terminal.escape import escape
from coding_agents.terminal.table import render_table

if TYPE_CHECKING:
    from coding_agents.app.review import Review


def lines_of(found: Review) -> Iterator[str]:
    """What was looked at, the table of findings, and what then."""
    base = found.base[:12] if found.base else "nothing"
    yield f"branch   {escape(found.branch)}, from {base}: {found.commits} commit(s), {found.files} file(s)"
    for other in found.others:
        yield f"beside   {escape(other.ref)}"
    if not found.findings:
        yield "findings none"
        return
    yield render_table(*_table(found)).rstrip("\n")
    if said := [one for one in found.findings if one.id in found.accepted]:
        yield f"accepted {len(said)} of these: {', '.join(sorted({one.id for one in said}))}"
    if found.blocking:
        yield verdict(found)


def verdict(found: Review) -> str:
    """One line: whether a merge wants a word yet."""
    if not found.blocking:
        return "nothing is left that blocks a merge"
    what = "look at what is marked `block` before you merge, build or open the branch"
    return f"blocking ({len(found.blockers)}): {what}"


def _table(found: Review) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    # The branch as a whole has no path; an empty cell would make the next one look like one.
    rows = [
        (_severity(found, one.id, one.severity.value), one.id, one.rule, one.path or "-", one.detail)
        for one in found.findings
    ]
    if not any(one.ref for one in found.findings):
        return ("SEVERITY", "ID", "RULE", "PATH", "DETAIL"), [*rows]
    where = [one.ref or found.branch for one in found.findings]
    wider = [(*row[:3], place, *row[3:]) for row, place in zip(rows, where, strict=True)]
    return ("SEVERITY", "ID", "RULE", "WHERE", "PATH", "DETAIL"), [*wider]


def _severity(found: Review, finding: str, severity: str) -> str:
    return f"{severity}, accepted" if finding in found.accepted else severity
