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
from functools import cache
from pathlib import Path

from coding_agents_guest.deny import DenyList
from coding_agents_guest.events import GuestConfig
from coding_agents_guest.gitlinks import gitlinks_in, listed
from coding_agents_guest.gitwork import Git, GitFailedError
from coding_agents_guest.nestedref import GIVEN_HEADS, GIVEN_TREES, NESTED, NESTED_MESSAGE, nested_ref
from coding_agents_guest.pushing import Pushed, Pusher
from coding_agents_guest.records import dataclass, replace
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


@dataclass(frozen=True)
class NestedWork:
    """`pushed` is what the relay has now by path; `left_out` paths that it lacks, `failures` why.

    `known` are commits that the relay has of each repository that was looked at.
    """

    pushed: Mapping[str, Pushed] = {}
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


def emptied(git: Git, snapshot: Snapshot, ref: str, relay: str) -> str:
    """A commit without files for a repository without commits whose files, as we saved them to `ref`, are gone.

    "" when that cannot be told for certain. Raises GitFailedError.
    """
    if snapshot.left_out or snapshot.tree != git.text("mktree"):
        return ""
    saved, _, _ = git.text("ls-remote", "--quiet", relay, ref).partition("\t")
    header, _, message = git.answer("cat-file", "commit", saved).partition("\n\n") if saved else ("", "", "")
    if message.strip() != NESTED_MESSAGE or "\nparent " in header:
        return ""
    return dated(git, "@1 +0000").text("commit-tree", snapshot.tree, "-m", NESTED_MESSAGE)


def save_nested(
    git: Git,
    nested: Sequence[str],
    config: GuestConfig,
    relay: str,
    before: Mapping[str, Pushed] | None = None,
) -> NestedWork:
    """Push the repositories at the paths `nested` of the work tree of `git`, and those inside of them. Never raises.

    `before` is what the last automatic save pushed. Without it nothing is left out of what the relay refuses.
    """
    there = [path for path in nested if os.path.lexists(Path(git.directory, path, ".git"))]
    given: dict[str, Start] = {}
    if there:
        with suppress(GitFailedError):  # without the answer all of them are pushed, and lost is nothing
            given = read_given(git, relay)
    saving = _Saving(git, config, relay, before, given, {}, {}, [], [])
    for path in there:
        saving.save((path,))
    return NestedWork(saving.pushed, tuple(saving.left_out), tuple(saving.failures), saving.seen)


@dataclass(frozen=True)
class _Saving:
    git: Git
    config: GuestConfig
    relay: str
    before: Mapping[str, Pushed] | None
    given: Mapping[str, Start]
    pushed: dict[str, Pushed]
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
            elif len(self.pushed) >= MAX_NESTED or len(places) > MAX_NESTED_DEPTH:
                self.failures.append(f"too many repositories are inside: {where} was not saved")
                return
            else:
                inner_nested = self._save(places, where, start)
        except Exception as error:  # noqa: BLE001 - an odd one must cost no other
            self.failures.append(f"the repository {where} was not saved: {error}")
            return
        pushed = self.pushed.get(where, Pushed())
        self.seen[where] = tuple(filter(None, (pushed.commit, start.commit)))
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
            mine = dated(mine, newest_change(mine, snapshot.tree, head, git.directory))
            self._push(mine, git_dir, snapshot, head, places, config)
        finally:
            for leftover in (index, index.with_name(index.name + ".lock")):
                with suppress(FileNotFoundError):
                    leftover.unlink()
        self.left_out.extend(f"{where}/{path}" for path in snapshot.left_out)
        return snapshot.nested

    def _push(
        self,
        git: Git,
        git_dir: Path,
        snapshot: Snapshot,
        head: str,
        places: tuple[str, ...],
        config: GuestConfig,
    ) -> None:
        """Push what stands unless it is as `config` says that it went in. Raises GitFailedError."""
        where, ref = "/".join(places), nested_ref(places)

        @cache
        def make(upon: str) -> str:
            commit = commit_snapshot(git, snapshot, config, parent=upon, message=config.message) or upon
            if commit or git.text("for-each-ref", "--count=1"):
                return commit
            return emptied(git, snapshot, ref, self.relay)

        if make(head) in ("", config.base):
            return
        before = (self.before or {}).get(where, Pushed())
        self.pushed[where] = before
        pusher = Pusher(git, git_dir, self.relay, ref, config.base, make)
        self.pushed[where] = pushed = pusher.push(snapshot.tree, head, before, whole=self.before is None)
        self.failures.extend(f"in {where}, {text}" for text in pushed.missing)

    def _inside(self, places: tuple[str, ...]) -> Git:
        """git in the repository at `places`, and in none above it should that be none."""
        directory = Path(self.git.directory, *places)
        return replace(self.git, directory=directory).within(GIT_CEILING_DIRECTORIES=str(directory.parent))
