"""Committing what is uncommitted and pushing it to the relay, in whatever state the repository is.

A convenience, not the guarantee: the host decides what is saved and salvages what is not. So this module
always answers, changes as little as it can, and never concludes a merge or rebase for the agent.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
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
    """The commit that holds the work ("" for none), whether we made it, what it lacks, and what lies inside."""

    commit: str
    committed: bool = False
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()


def save(config: GuestConfig, place: Place, *, deadline: float) -> Saved:
    """Commit and push now that the agent has ended. `deadline` is of time.monotonic.

    Never raises: what went wrong is in the message, and the host knows from it that it must salvage.
    """
    git = Git(place.workspace, {**place.environment(), **identity_environment(config.identity)}, deadline)
    head = _Head(Path(), "", "", "")
    try:
        head = _read_head(git)
        work = _commit_work(git, head, config)
        large = _send_large(git, head, work, config, place.relay)
        pushed, note = _push_work(git, head, work, config, place.relay)
    except Exception as error:  # noqa: BLE001 - whatever state it is in, the answer must come
        return Saved(head.commit, pushed=False, committed=False, message=f"not saved: {error}")
    notes = [*work.notes, *([note] if note else [])]
    left_out = work.left_out
    if config.push:
        nested = save_nested(git, work.nested, config, place.relay)
        left_out += nested.left_out
        notes += nested.failures
        notes += [large.told()] if large.why else []
        # Or else the host would not look into the volume.
        pushed = pushed and not nested.failures and not large.why
        if pushed:
            left = left_to_salvage(git, {"": (work.commit, config.base), **nested.known})
            notes += [f"not looked at: what {where or 'the repository'} has beside HEAD" for where in left]
            pushed = not left
    if len(left_out) > MAX_ITEMS:
        notes.append(f"{len(left_out)} files were left out")
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


def _commit_work(git: Git, head: _Head, config: GuestConfig) -> _Work:
    """Commit what is uncommitted. Raises GitFailedError and OSError."""
    index = head.git_dir / "index"
    ours = head.git_dir / f"coding-agents-{os.getpid()}.index"
    try:
        with suppress(FileNotFoundError):
            shutil.copy2(index, ours)
        inner = git.within(GIT_INDEX_FILE=str(ours))
        snapshot = take_snapshot(inner, head=head.commit, deny=DenyList(config.deny))
        message = _message(config.message, head.under_way)
        commit = commit_snapshot(inner, snapshot, config, parent=head.commit, message=message)
        if not commit:
            return _Work(head.commit, left_out=snapshot.left_out, nested=snapshot.nested)
        if head.under_way:
            note = f"a {head.under_way} is under way and was left so"
            return _Work(commit, True, snapshot.left_out, (note,), snapshot.nested)
        # Of a git that was killed: whoever could hold it alive has ended.
        with suppress(FileNotFoundError):
            index.with_name("index.lock").unlink()
        # Only from where it was read.
        old = head.commit or "0" * len(commit)
        git.run("update-ref", "-m", "coding-agents: automatic commit", "HEAD", commit, old)
        ours.replace(index)
        return _Work(commit, True, snapshot.left_out, nested=snapshot.nested)
    finally:
        for leftover in (ours, ours.with_name(ours.name + ".lock")):
            with suppress(FileNotFoundError):
                leftover.unlink()


def _send_large(git: Git, head: _Head, work: _Work, config: GuestConfig, relay: str) -> Sent:
    """Push the content of large files that the work names."""
    if not config.push or not work.commit:
        return Sent()
    known = [config.base] if config.base else []
    return send_large_files(
        git, head.git_dir, tips=[work.commit], known=known, relay=relay, scratch=head.git_dir
    )


def _push_work(git: Git, head: _Head, work: _Work, config: GuestConfig, relay: str) -> tuple[bool, str]:
    """Push to the session's branch. Returns whether the relay now holds the work, and what to say."""
    if not config.push:
        return False, "push is off: the work stays in the session's volume"
    if not work.commit:
        return False, "there is no commit to push"
    branch = f"refs/heads/{config.branch}"
    if head.ref == branch:
        # A rewritten branch is the agent's right: the relay keeps the old tip.
        _push(git, relay, f"+{work.commit}:{branch}")
        return True, ""
    tip = git.answer("rev-parse", "--verify", "--quiet", f"{branch}^{{commit}}")
    if not tip or git.agrees("merge-base", "--is-ancestor", tip, work.commit):
        with suppress(GitFailedError):
            _push(git, relay, f"{work.commit}:{branch}")
            return True, ""
    if tip:
        _push(git, relay, f"+{tip}:{branch}")
    where = head.ref[len("refs/heads/") :] or "no branch"
    return False, f"HEAD is on {where}, which does not continue {config.branch}: its work was not pushed"


def _push(git: Git, relay: str, refspec: str) -> None:
    git.run("push", "--quiet", "--no-verify", relay, refspec)


def _message(message: str, under_way: str) -> str:
    message = message.strip() or DEFAULT_MESSAGE
    return f"{message}\n\nTaken while a {under_way} was under way." if under_way else message
