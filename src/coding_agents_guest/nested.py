"""Saving the repositories inside the work tree: submodules that changed, and what the agent made or cloned there.

Their commits and files are in no tree of the session's branch, so each goes to a ref of its own in the relay, its
uncommitted work as one commit on top. Neither their index nor their HEAD is touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.deny import DenyList
from coding_agents_guest.events import GuestConfig
from coding_agents_guest.gitwork import Git, GitFailedError
from coding_agents_guest.nestedref import nested_ref
from coding_agents_guest.records import dataclass, replace
from coding_agents_guest.snapshot import commit_snapshot, dated, newest_change, take_snapshot

# Each costs some processes of git and a ref of the host; deeper ones are rather a trap than work.
MAX_NESTED = 100
MAX_NESTED_DEPTH = 8
NESTED_MESSAGE = "Uncommitted work (coding-agents)"


@dataclass(frozen=True)
class NestedWork:
    """`tips` are what the relay has now by path; `left_out` paths that it lacks, `failures` why."""

    tips: Mapping[str, str] = {}
    left_out: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


def save_nested(
    git: Git, nested: Sequence[str], config: GuestConfig, relay: str, known: Mapping[str, str] = {}
) -> NestedWork:
    """Push the repositories at the paths `nested` of the work tree of `git`, and those inside of them. Never raises.

    `known` are the tips that the relay has already.
    """
    config_inside = replace(config, base="", launch_tree="", message=NESTED_MESSAGE)
    saving = _Saving(git, config_inside, relay, known, {}, [], [])
    for path in nested:
        with suppress(GitFailedError):
            if config.base and saving.is_unchanged(path, config.base):
                continue
        saving.save((path,))
    return NestedWork(saving.tips, tuple(saving.left_out), tuple(saving.failures))


@dataclass(frozen=True)
class _Saving:
    git: Git
    config: GuestConfig
    relay: str
    known: Mapping[str, str]
    tips: dict[str, str]
    left_out: list[str]
    failures: list[str]

    def is_unchanged(self, path: str, base: str) -> bool:
        """Whether the submodule at `path` is, file by file, what `base` records. Raises GitFailedError."""
        entry = self.git.text("ls-tree", "-z", base, "--", path).split()
        inner = self._inside((path,))
        return (
            entry[:2] == ["160000", "commit"]
            and inner.answer("rev-parse", "--verify", "--quiet", "HEAD") == entry[2]
            and not inner.run("status", "--porcelain", "--untracked-files=normal")
        )

    def save(self, places: tuple[str, ...]) -> None:
        where = "/".join(places)
        if not os.path.lexists(Path(self.git.directory, where, ".git")):
            return  # a submodule that was never filled
        if len(self.tips) >= MAX_NESTED or len(places) > MAX_NESTED_DEPTH:
            self.failures.append(f"too many repositories are inside: {where} was not saved")
            return
        try:
            inner_nested = self._save(places, where)
        except (GitFailedError, OSError) as error:
            self.failures.append(f"the repository {where} was not saved: {error}")
            return
        for path in inner_nested:
            self.save((*places, path))

    def _save(self, places: tuple[str, ...], where: str) -> tuple[str, ...]:
        """Push one; returns the repositories inside of it."""
        git = self._inside(places)
        git_dir = Path(git.text("rev-parse", "--absolute-git-dir"))
        head = git.answer("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        index = git_dir / f"coding-agents-{os.getpid()}.index"
        try:
            with suppress(FileNotFoundError):
                shutil.copy2(git_dir / "index", index)
            mine = git.within(GIT_INDEX_FILE=str(index))
            snapshot = take_snapshot(mine, head=head, deny=DenyList(self.config.deny))
            date = newest_change(mine, snapshot.tree, head, git.directory)
            commit = commit_snapshot(
                dated(mine, date), snapshot, self.config, parent=head, message=self.config.message
            )
        finally:
            for leftover in (index, index.with_name(index.name + ".lock")):
                with suppress(FileNotFoundError):
                    leftover.unlink()
        if tip := commit or head:
            if self.known.get(where) != tip:
                git.run("push", "--quiet", "--no-verify", self.relay, f"+{tip}:{nested_ref(places)}")
            self.tips[where] = tip
        self.left_out.extend(f"{where}/{path}" for path in snapshot.left_out)
        return snapshot.nested

    def _inside(self, places: tuple[str, ...]) -> Git:
        """git in the repository at `places`, and in none above it should that be none."""
        directory = Path(self.git.directory, *places)
        return replace(self.git, directory=directory).within(GIT_CEILING_DIRECTORIES=str(directory.parent))
