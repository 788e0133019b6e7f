"""Committing what is uncommitted and pushing it to the relay, in whatever state the repository is.

A convenience, not the guarantee: the host decides what is saved and salvages what is not. So this module
always answers, changes as little as it can, and never concludes a merge or rebase for the agent.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coding_agents_guest.deny import DenyList
from coding_agents_guest.events import MAX_ITEMS, GuestConfig, Saved
from coding_agents_guest.further import left_to_salvage
from coding_agents_guest.gitwork import Git, GitFailedError, identity_environment
from coding_agents_guest.lfs import Sent, send_large_files
from coding_agents_guest.nested import save_nested
from coding_agents_guest.place import Place
from coding_agents_guest.records import dataclass
from coding_agents_guest.snapshot import commit_snapshot, take_snapshot
from coding_agents_guest.unblock import unblocked

DEFAULT_MESSAGE = "Save uncommitted work (coding-agents)"
_UNDER_WAY = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
}


@dataclass(frozen=True)
class _Head:
    """HEAD's commit ("" when unborn) and branch ("" when detached), and what is under way ("" if nothing)."""

    git_dir: Path
    commit: str
    ref: str
    under_way: str


@dataclass(frozen=True)
class _Work:
    """The commit that holds the work ("" for none), whether we made it, what it lacks, and what lies inside.

    `trouble` is what the host is to look at itself.
    """

    commit: str
    committed: bool = False
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    trouble: tuple[str, ...] = ()


def save(config: GuestConfig, place: Place, *, deadline: float) -> Saved:
    """Commit and push now that the agent has ended. `deadline` is of time.monotonic.

    Never raises: what went wrong is in the message, and the host knows from it that it must salvage.
    """
    git = Git(place.workspace, {**place.environment(), **identity_environment(config.identity)}, deadline)
    head = _Head(Path(), "", "", "")
    try:
        with unblocked(place.workspace):
            head = _read_head(git)
            return _save(git, head, config, place.relay)
    except Exception as error:  # noqa: BLE001 - whatever state it is in, the answer must come
        return Saved(head.commit, pushed=False, committed=False, message=f"not saved: {error}")


def _save(git: Git, head: _Head, config: GuestConfig, relay: str) -> Saved:
    """HEAD moves last: what the relay does not take would be in the way of every later push."""
    with _index_of_ours(head) as index:
        work = _commit_work(git, head, config, index)
        large = _send_large(git, head, work, config, relay)
        pushed, refused, note = _push_work(git, head, work, config, relay)
        if work.committed and not refused:
            _move_head(git, head, work.commit, index)
    notes = [*work.notes, *([note] if note else [])]
    left_out = work.left_out
    if config.push:
        nested = save_nested(git, work.nested, config, relay)
        left_out += nested.left_out
        failures = (*work.trouble, *nested.failures)
        notes += failures
        notes += [large.told()] if large.why else []
        # Or else the host would not look into the volume.
        pushed = pushed and not failures and not large.why
        if pushed:
            left = left_to_salvage(git, {"": (work.commit, config.base), **nested.known})
            notes += [f"not looked at: what {where or 'the repository'} has beside HEAD" for where in left]
            pushed = not left
    if len(left_out) > MAX_ITEMS:
        notes.append(f"{len(left_out)} files were left out")
    if refused:
        return Saved(head.commit, pushed=False, committed=False, left_out=left_out, message="; ".join(notes))
    return Saved(work.commit, pushed, work.committed, left_out, "; ".join(notes))


def _read_head(git: Git) -> _Head:
    git_dir = Path(git.text("rev-parse", "--absolute-git-dir"))
    under_way = [name for file, name in _UNDER_WAY.items() if (git_dir / file).exists()]
    return _Head(
        git_dir=git_dir,
        commit=git.answer("rev-parse", "--verify", "--quiet", "HEAD^{commit}"),
        ref=git.answer("symbolic-ref", "--quiet", "HEAD"),
        under_way=under_way[0] if under_way else "",
    )


@contextmanager
def _index_of_ours(head: _Head) -> Iterator[Path]:
    """A copy of the agent's index to work on."""
    ours = head.git_dir / f"coding-agents-{os.getpid()}.index"
    try:
        with suppress(FileNotFoundError):
            shutil.copy2(head.git_dir / "index", ours)
        yield ours
    finally:
        for leftover in (ours, ours.with_name(ours.name + ".lock")):
            with suppress(FileNotFoundError):
                leftover.unlink()


def _commit_work(git: Git, head: _Head, config: GuestConfig, index: Path) -> _Work:
    """Commit what is uncommitted, moving nothing. Raises GitFailedError and OSError."""
    inner = git.within(GIT_INDEX_FILE=str(index))
    snapshot = take_snapshot(inner, head=head.commit, deny=DenyList(config.deny), ask=True)
    message = _message(config.message, head.under_way)
    commit = commit_snapshot(inner, snapshot, config, parent=head.commit, message=message)
    notes = snapshot.notes
    if commit and head.under_way:
        notes = (f"a {head.under_way} is under way and was left so", *notes)
    return _Work(
        commit or head.commit, bool(commit), snapshot.left_out, notes, snapshot.nested, snapshot.trouble
    )


def _move_head(git: Git, head: _Head, commit: str, index: Path) -> None:
    """Let HEAD and the agent's index be at `commit`, unless that would conclude what is under way."""
    if head.under_way:
        return
    theirs = head.git_dir / "index"
    # Of a git that was killed: whoever could hold it alive has ended.
    with suppress(FileNotFoundError):
        theirs.with_name("index.lock").unlink()
    # Only from where it was read.
    old = head.commit or "0" * len(commit)
    git.run("update-ref", "-m", "coding-agents: automatic commit", "HEAD", commit, old)
    index.replace(theirs)


def _send_large(git: Git, head: _Head, work: _Work, config: GuestConfig, relay: str) -> Sent:
    """Push the content of large files that the work names."""
    if not config.push or not work.commit:
        return Sent()
    known = [config.base] if config.base else []
    return send_large_files(
        git, head.git_dir, tips=[work.commit], known=known, relay=relay, scratch=head.git_dir
    )


def _push_work(git: Git, head: _Head, work: _Work, config: GuestConfig, relay: str) -> tuple[bool, bool, str]:
    """Push to the session's branch. Returns whether the relay now holds the work, whether it refused it, and why.

    Raises GitFailedError when the relay takes nothing at all.
    """
    if not config.push:
        return False, False, "push is off: the work stays in the session's volume"
    if not work.commit:
        return False, False, "there is no commit to push"
    branch = f"refs/heads/{config.branch}"
    if head.ref == branch:
        # A rewritten branch is the agent's right: the relay keeps the old tip.
        _push(git, relay, f"+{work.commit}:{branch}")
        return True, False, ""
    tip = git.answer("rev-parse", "--verify", "--quiet", f"{branch}^{{commit}}")
    refused = ""
    if not tip or git.agrees("merge-base", "--is-ancestor", tip, work.commit):
        try:
            _push(git, relay, f"{'+' if tip else ''}{work.commit}:{branch}")
        except GitFailedError as error:
            refused = f"not saved: {error}"
        else:
            return True, False, ""
    if tip:
        _push(git, relay, f"+{tip}:{branch}")
    where = head.ref[len("refs/heads/") :] or "no branch"
    elsewhere = f"HEAD is on {where}, which does not continue {config.branch}: its work was not pushed"
    return False, bool(refused), refused or elsewhere


def _push(git: Git, relay: str, refspec: str) -> None:
    git.run("push", "--quiet", "--no-verify", relay, refspec)


def _message(message: str, under_way: str) -> str:
    message = message.strip() or DEFAULT_MESSAGE
    if not under_way:
        return message
    first, blank, rest = message.partition("\n\n")  # what stands at the end belongs there
    return f"{first}\n\nTaken while a {under_way} was under way.{blank}{rest}"
