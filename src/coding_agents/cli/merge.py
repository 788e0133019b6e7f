"""`coding-agents merge`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import examples, json_option
from coding_agents.cli.session_arg import find_session, session_argument

if TYPE_CHECKING:
    from coding_agents.app.merge import Merged

_SHOWN = 10


@click.command(
    "merge",
    epilog=examples(
        "merge demo-shop-session-1 --dry-run",
        "merge demo-shop-session-1",
        'merge demo-shop-session-1 --into next --squash --message "Add greetings"',
    ),
)
@session_argument()
@click.option(
    "--into", metavar="BRANCH", default="", help="Another branch than the one that the session started from."
)
@click.option("--squash", is_flag=True, help="Make one commit of all changes.")
@click.option("--ff-only", is_flag=True, help="Only move the branch forward, or refuse.")
@click.option(
    "--no-ff", is_flag=True, help="Make a merge commit also where the branch could be moved forward."
)
@click.option("--message", metavar="TEXT", default="", help="What the commit says.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done, with findings and conflicts.")
@json_option("Print one object.")
@click.pass_obj
def command(
    app: AppContext,
    name: str,
    into: str,
    squash: bool,
    ff_only: bool,
    no_ff: bool,
    message: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Merge a session's commits into a branch of yours, after a look at them.

    It refuses while findings block that you have not accepted (see `review`), and when both sides changed the same. The
    result is made of objects; where the branch is checked out, its files follow, if nothing there is uncommitted. No
    hook, filter, driver or other program runs.
    """
    from coding_agents.app.merge import Options, merge
    from coding_agents.app.merge_commit import Style
    from coding_agents.errors import UsageError

    chosen = [style for style, given in
              ((Style.SQUASH, squash), (Style.FF_ONLY, ff_only), (Style.NO_FF, no_ff)) if given]  # fmt: skip
    if len(chosen) > 1:
        raise UsageError("--squash, --ff-only and --no-ff exclude each other", hint="Choose one.")
    session = find_session(app, name)
    options = Options(into, chosen[0] if chosen else Style.AUTO, message, dry_run)
    merged = merge(session, options)
    if as_json:
        app.output.result_json(_public(session.record.id, merged))
        return
    app.output.result("\n".join(_lines(merged)))


def _public(session: str, merged: Merged) -> dict[str, object]:
    return {
        "session": session,
        "branch": merged.branch,
        "into": merged.into,
        "how": merged.how,
        "dry_run": merged.dry_run,
        "old": merged.old or "",
        "commit": merged.commit or "",
        "commits": merged.commits,
        "files": merged.files,
        "insertions": merged.insertions,
        "deletions": merged.deletions,
        "work_tree": merged.work_tree,
        "unfiltered": list(merged.unfiltered),
        "signed": merged.signed,
        "conflicts": [{"path": one.path, "why": one.why} for one in merged.conflicts],
        "blocking": [one.id for one in merged.blockers],
        "left_out": merged.left_out,
    }


def _lines(merged: Merged) -> Iterator[str]:
    from coding_agents.terminal.escape import escape

    would = "would be " if merged.dry_run else ""
    if merged.how == "nothing":
        yield f"{merged.into} has all of {merged.branch} already"
        return
    yield (
        f"{merged.branch} {would}merged into {merged.into} ({merged.how}): {merged.commits} commit(s), "
        f"{merged.files} file(s), +{merged.insertions} -{merged.deletions}"
    )
    if merged.commit is not None:
        yield f"{merged.into}: {merged.old[:12] if merged.old else 'nothing'} → {merged.commit[:12]}"
    yield from _about_files(merged)
    for conflict in merged.conflicts:
        yield f"conflict {escape(conflict.path)}: {escape(conflict.why)}"
    for one in merged.blockers:
        yield f"blocks   {one.id}  {one.rule}  {escape(one.path) or '(the branch)'}"
    if merged.left_out:
        yield f"note     {merged.left_out}"
    if not merged.dry_run and merged.old and merged.work_tree:
        yield f"to undo it: git reset --keep {merged.old[:12]}"


def _about_files(merged: Merged) -> Iterator[str]:
    from coding_agents.terminal.escape import escape

    if merged.signed:
        yield "signed   by you"
    if merged.work_tree:
        yield f"files    {escape(merged.work_tree)}"
    for path in merged.unfiltered[:_SHOWN]:
        yield f"as it is stored, no filter ran: {escape(path)}"
    if len(merged.unfiltered) > _SHOWN:
        yield f"and {len(merged.unfiltered) - _SHOWN} more"
    if merged.unfiltered:
        yield "for large files (Git LFS): git lfs pull"
