"""The relay's archive: tips that a push has left behind, and what salvages brought and is home."""

from __future__ import annotations

from collections.abc import Sequence

from coding_agents.gitsync.relay_repo import ARCHIVE, ARCHIVING, Relay
from coding_agents.model.refs import Oid

_LIST_S = 600.0


def bundle_archive(relay: Relay, *, without: Sequence[Oid]) -> Oid | None:
    """One commit that contains all of the archive that the commits `without` do not; None when there is nothing.

    It is what is archived itself when that is one commit, else a commit of ours, without files and the same each time,
    whose parents they are. A history that is cut off, as of a submodule, is left where it is. Raises GitError.
    """
    store = relay.store
    unlike = [option for commit in without for option in ("--no-merged", commit)]
    listed = store.git(
        "for-each-ref",
        "--format=%(objectname) %(committerdate:unix)",
        *unlike,
        f"{ARCHIVE}/",
        ARCHIVING,  # of a push that broke off
        timeout_s=_LIST_S,
    )
    dates = dict(line.split() for line in listed.text().splitlines())
    tips = sorted(oid for oid in map(Oid.parse, dates) if not _is_cut_off(relay, oid, without))
    if len(tips) < 2:
        return tips[0] if tips else None
    tree = store.git("mktree", stdin=b"").text().strip()
    person = f"coding-agents <> {max(int(dates[tip]) for tip in tips)} +0000"
    lines = [f"tree {tree}", *(f"parent {tip}" for tip in tips), f"author {person}", f"committer {person}"]
    text = "\n".join((*lines, "", f"{len(tips)} states that the agent left behind, one a parent", ""))
    made = store.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=text.encode())
    return Oid.parse(made.text().strip())


def _is_cut_off(relay: Relay, tip: Oid, without: Sequence[Oid]) -> bool:
    """Whether the history of `tip` ends before its beginning, beyond the base and `without`."""
    try:
        ends = set((relay.git_dir / "shallow").read_text("ascii").split())
    except FileNotFoundError:
        return False
    known = [*without, *([relay.base] if relay.base is not None else [])]
    return not ends.isdisjoint(
        relay.store.git("rev-list", tip, "--not", *known, timeout_s=_LIST_S).text().split()
    )
