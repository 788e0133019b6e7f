"""Saving the repositories inside the work tree: submodules that changed, and what the agent made or cloned there.

Their commits and files are in no tree of the session's branch, so each goes to a ref of its own in the relay, its
uncommitted work as one commit on top. Neither their index nor their HEAD is touched. A submodule that stands as it
went in, or as the session's first commit records it, is no work of the agent's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.deny import DenyList
from coding_agents_guest.events import GuestConfig
from coding_agents_guest.gitlinks import gitlinks_in, listed
from coding_agents_guest.gitwork import Git, GitFailedError
from coding_agents_guest.lfs import send_large_files
from coding_agents_guest.nestedref import GIVEN_HEADS, GIVEN_TREES, NESTED, nested_ref
from coding_agents_guest.records import dataclass, replace
from coding_agents_guest.refused import push_taken
from coding_agents_guest.snapshot import (
    Snapshot,
    commit_snapshot,
    dated,
    newest_change,
    take_snapshot,
)

# Each costs some processes of git and a ref of the host; deeper ones are rather a trap than work.
MAX_NESTED = 100
MAX_NESTED_DEPTH = 8
NESTED_MESSAGE = "Uncommitted work (coding-agents)"


@dataclass(frozen=True)
class NestedWork:
    """`tips` are what the relay has now by path; `left_out` paths that it lacks, `failures` why.

    `known` are commits that the relay has of each repository that was looked at.
    """

    tips: Mapping[str, str] = {}
    left_out: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    known: Mapping[str, tuple[str, ...]] = {}


@dataclass(frozen=True)
class Start:
    """How a submodule stood when the session began: on `commit`, "" for none, with the files of `tree`, "" for its."""

    commit: str = ""
    tree: str = ""


def read_given(git: Git, relay: str) -> dict[str, Start]:
    """What the host gave of submodules, by their names in nestedref. Raises GitFailedError."""
    listed = git.text("ls-remote", "--quiet", relay, f"{GIVEN_HEADS}*", f"{GIVEN_TREES}*")
    refs = {ref: oid for oid, _, ref in (line.partition("\t") for line in listed.splitlines())}
    names = [ref[len(GIVEN_HEADS) :] for ref in refs if ref.startswith(GIVEN_HEADS)]
    return {name: Start(refs[GIVEN_HEADS + name], refs.get(GIVEN_TREES + name, "")) for name in names}


def start_of(git: Git, places: tuple[str, ...], given: Mapping[str, Start], base: str) -> Start:
    """How the repository at `places` stood: as given or, for one that did not go in, as `base` records it."""
    found = given.get(nested_ref(places)[len(NESTED) :])
    if found is not None or not base or len(places) > 1:
        return found or Start()
    entry = git.answer("ls-tree", "-z", base, "--", places[0]).split()
    return Start(entry[2]) if entry[:1] == ["160000"] else Start()


def emptied(git: Git, snapshot: Snapshot, places: tuple[str, ...], start: Start, relay: str) -> str:
    """A commit without files for an unborn HEAD at `places` that had some at its start, or at an earlier save.

    "" when there are none to take back. Raises GitFailedError.
    """
    if snapshot.tree != git.text("mktree"):
        return ""
    if not start.commit and not git.text("ls-remote", "--quiet", relay, nested_ref(places)):
        return ""
    return dated(git, "@1 +0000").text("commit-tree", snapshot.tree, "-m", NESTED_MESSAGE)


def save_nested(
    git: Git, nested: Sequence[str], config: GuestConfig, relay: str, known: Mapping[str, str] = {}
) -> NestedWork:
    """Push the repositories at the paths `nested` of the work tree of `git`, and those inside of them. Never raises.

    `known` are the tips that the relay has already.
    """
    there = [path for path in nested if os.path.lexists(Path(git.directory, path, ".git"))]
    given: dict[str, Start] = {}
    if there:
        with suppress(GitFailedError):  # without the answer all of them are pushed, and lost is nothing
            given = read_given(git, relay)
    saving = _Saving(git, config, relay, known, given, {}, {}, [], [])
    for path in there:
        saving.save((path,))
    return NestedWork(saving.tips, tuple(saving.left_out), tuple(saving.failures), saving.seen)


@dataclass(frozen=True)
class _Saving:
    git: Git
    config: GuestConfig
    relay: str
    known: Mapping[str, str]
    given: Mapping[str, Start]
    tips: dict[str, str]
    seen: dict[str, tuple[str, ...]]
    left_out: list[str]
    failures: list[str]

    def save(self, places: tuple[str, ...]) -> None:
        where = "/".join(places)
        if not os.path.lexists(Path(self.git.directory, where, ".git")):
            return  # a submodule that was never filled
        try:
            start = start_of(self.git, places, self.given, self.config.base)
            if self._is_unchanged(places, start):
                inner_nested = self._submodules(places)
            elif len(self.tips) >= MAX_NESTED or len(places) > MAX_NESTED_DEPTH:
                self.failures.append(f"too many repositories are inside: {where} was not saved")
                return
            else:
                inner_nested = self._save(places, where, start)
        except Exception as error:  # noqa: BLE001 - an odd one must cost no other
            self.failures.append(f"the repository {where} was not saved: {error}")
            return
        self.seen[where] = tuple(filter(None, (self.tips.get(where), start.commit)))
        for path in inner_nested:
            self.save((*places, path))

    def _is_unchanged(self, places: tuple[str, ...], start: Start) -> bool:
        """Whether the one at `places` is, file by file, as it was. What is inside of it is another question."""
        if not start.commit or start.tree:
            return False
        inner = self._inside(places)
        if inner.answer("rev-parse", "--verify", "--quiet", "HEAD") != start.commit:
            return False
        options = ("--porcelain", "--untracked-files=normal", "--ignore-submodules=dirty")
        try:
            return not inner.run("status", *options)
        except GitFailedError:  # for one inside of it that is odd; a snapshot copes with that
            return False

    def _submodules(self, places: tuple[str, ...]) -> Sequence[str]:
        """The submodules in the one at `places`."""
        has = os.path.lexists(Path(self.git.directory, *places, ".gitmodules"))
        return [link.path for link in gitlinks_in(listed(self._inside(places)))] if has else ()

    def _save(self, places: tuple[str, ...], where: str, start: Start) -> tuple[str, ...]:
        """Push one unless it is as it was; returns the repositories inside of it."""
        config = replace(self.config, base=start.commit, launch_tree=start.tree, message=NESTED_MESSAGE)
        git = self._inside(places)
        git_dir = Path(git.text("rev-parse", "--absolute-git-dir"))
        head = git.answer("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        index = git_dir / f"coding-agents-{os.getpid()}.index"
        try:
            with suppress(FileNotFoundError):
                shutil.copy2(git_dir / "index", index)
            mine = git.within(GIT_INDEX_FILE=str(index))
            snapshot = take_snapshot(mine, head=head, deny=DenyList(config.deny), ask=True)
            date = newest_change(mine, snapshot.tree, head, git.directory)
            commit = commit_snapshot(dated(mine, date), snapshot, config, parent=head, message=config.message)
        finally:
            for leftover in (index, index.with_name(index.name + ".lock")):
                with suppress(FileNotFoundError):
                    leftover.unlink()
        tip = commit or head or emptied(git, snapshot, places, start, self.relay)
        if tip and tip != start.commit:
            self.tips[where] = tip
            if self.known.get(where) != tip:
                known = [start.commit] if start.commit else []
                sent = send_large_files(
                    git, git_dir, tips=[tip], known=known, relay=self.relay, scratch=git_dir
                )
                self.failures.extend([f"in {where}, {sent.told()}"] if sent.why else [])
                push = ("push", "--quiet", "--no-verify", self.relay)
                taken = push_taken(
                    lambda oid: git.run(*push, f"+{oid}:{nested_ref(places)}"),
                    mine,
                    tip,
                    head if commit else "",
                )
                self.failures.extend([f"in {where}, {taken.why}"] if taken.why else [])
                self.tips[where] = taken.commit
        self.left_out.extend(f"{where}/{path}" for path in snapshot.left_out)
        return snapshot.nested

    def _inside(self, places: tuple[str, ...]) -> Git:
        """git in the repository at `places`, and in none above it should that be none."""
        directory = Path(self.git.directory, *places)
        return replace(self.git, directory=directory).within(GIT_CEILING_DIRECTORIES=str(directory.parent))
