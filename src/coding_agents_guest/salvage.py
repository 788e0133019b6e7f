"""Getting the work out of a volume whose session ended without a save: the one-shot container's program.

The volume is hostile and mounted read-only (salvage_repo says how it is read), and the relay checks what we push like
any push of an agent. What the volume holds beyond the relay ends in these refs there: `head` (its HEAD), `worktree`
(its files, on top of it), `heads/…` (what branches and other refs have that HEAD lacks); repositories inside have
refs of their own (salvage_nested). A history that cannot be read costs nobody the files: they come without it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from coding_agents_guest import volume_history as history
from coding_agents_guest.events import Failed, GuestConfig, Salvaged
from coding_agents_guest.further import find_further
from coding_agents_guest.gitwork import Git
from coding_agents_guest.place import Place
from coding_agents_guest.salvage_nested import push_inside
from coding_agents_guest.salvage_repo import BrokenHistoryError, Found, RefusedError, Repository, fresh_git
from coding_agents_guest.snapshot import Snapshot
from coding_agents_guest.volume import Volume, feed_nothing, pipes_in_the_way, read_volume

REFS = "refs/coding-agents/salvage"

_MAX_BRANCHES = 20


def salvage(config: GuestConfig, place: Place, deadline: float) -> Salvaged | Failed:
    """Push what the volume at `place.workspace` holds. `deadline` is of time.monotonic.

    Never raises. Salvaged means that HEAD and all files but those left out are in the relay: `head` is the
    volume's HEAD, "" when it is unborn or broken; what else is to be known is in the notes. Everything
    less is Failed, so that nobody takes the volume for saved.
    """
    notes: list[str] = []
    kept: list[str] = []
    with tempfile.TemporaryDirectory(prefix="salvage-") as scratch:
        try:
            try:
                git = fresh_git(config, place, Path(scratch, "whole"), deadline)
                return _Salvage(config, place, git, notes).run()
            except BrokenHistoryError as error:
                notes[:] = [f"the volume's own history cannot be read: {error}"]
            except RefusedError as error:
                notes.clear()
                kept.append(f"commits that are not taken ({error})")
            git = fresh_git(config, place, Path(scratch, "files"), deadline)
            return _Salvage(config, place, git, notes, kept).without_history()
        except Exception as error:  # noqa: BLE001 - whatever a hostile volume causes, the answer must come
            return Failed("salvage", "; ".join((*notes, str(error))))


class _Salvage:
    """The salvage of a volume's own repository under way, and of what is inside of that."""

    def __init__(
        self, config: GuestConfig, place: Place, git: Git, notes: list[str], kept: Sequence[str] = ()
    ) -> None:
        self.config = config
        self.place = place
        self.git = git
        self.found = Found(place.workspace, notes, len(config.base))
        self.found.kept += kept
        self.repo = Repository(config, place, git, self.found)

    def run(self) -> Salvaged:
        """Raises GitFailedError, UnreadableVolumeError, BrokenHistoryError and OSError."""
        volume = read_volume(self.place.workspace)
        feed_nothing(pipes_in_the_way(self.place.workspace))
        self._look_into(volume)
        relay_tip = self._relay_tip()
        self.repo.prepare(volume)
        head = self._read_head(volume, relay_tip)
        if head and head != relay_tip:
            self.repo.push(head, f"{REFS}/head")
        worktree, snapshot = self._push_worktree(volume, head or relay_tip)
        self._push_branches(volume, head, relay_tip)
        self.found.sending.append((self.repo, volume))
        return self._ended(head, worktree, snapshot)

    def without_history(self) -> Salvaged:
        """The files alone, on top of what the relay has. Raises as `run`."""
        self._look_into(read_volume(self.place.workspace))
        relay_tip = self._relay_tip()
        self.repo.prepare(Volume(None))
        self._fetch_relay()
        worktree, snapshot = self._push_worktree(Volume(None), relay_tip)
        return self._ended("", worktree, snapshot)

    def _look_into(self, volume: Volume) -> None:
        self.found.read(volume)
        if volume.common is not None:
            self.found.commons.add(volume.common)

    def _push_worktree(self, volume: Volume, parent: str) -> tuple[str, Snapshot]:
        worktree, snapshot = self.repo.commit_worktree(volume, parent)
        if worktree:
            worktree = self.repo.push_files(worktree, parent, f"{REFS}/worktree")
        return worktree, snapshot

    def _ended(self, head: str, worktree: str, snapshot: Snapshot) -> Salvaged:
        """Push what is inside, and the large files of all; the report."""
        left_out = (*snapshot.left_out, *push_inside(self.repo, snapshot.nested))
        # Last, as it may take all the time that is left.
        for repo, volume in self.found.sending:
            repo.send_large(volume)
        notes, kept = tuple(self.found.notes), "; ".join(self.found.kept[:10])
        return Salvaged(head, worktree, not worktree, left_out, notes, kept)

    def _relay_tip(self) -> str:
        """The commit that the relay has for the session's branch; its history is fetched only when needed."""
        listed = self.repo.to_relay().text("ls-remote", self.place.relay, f"refs/heads/{self.config.branch}")
        return listed.split("\t")[0]

    def _fetch_relay(self) -> None:
        options = (
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--update-shallow",
            "--no-auto-maintenance",
        )
        self.repo.to_relay().agrees(
            "fetch", *options, self.place.relay, f"+refs/heads/{self.config.branch}:refs/relay/tip"
        )

    def _read_head(self, volume: Volume, relay_tip: str) -> str:
        """The volume's HEAD, with its whole history at hand; "" when it is unborn or broken."""
        known = [tip for tip in (relay_tip, self.config.base) if tip and history.commits(self.git, [tip])]
        if volume.head and history.commits(self.git, [volume.head]):
            if history.is_whole(self.git, [volume.head], known):
                return volume.head
            if volume.shallow:  # only now: a planted one would cut off history that is there
                Path(self.git.environment["GIT_DIR"], "shallow").write_bytes(volume.shallow)
                if history.is_whole(self.git, [volume.head], known):
                    return volume.head
        if volume.git_dir is None:
            self.found.notes.append("the volume has no git directory")
        elif volume.head or self.config.base:
            self.found.notes.append("the volume's own history cannot be read")
        self._fetch_relay()
        return ""

    def _push_branches(self, volume: Volume, head: str, relay_tip: str) -> None:
        """Push what the volume's refs name that `head` does not contain; one that is not taken keeps no other."""
        # What the relay has of the session's branch comes home with that.
        known = [oid for oid in (head, relay_tip, self.config.base) if oid]
        further = find_further(self.git, volume.refs, known)
        if further.unread:
            names = ", ".join(sorted(further.unread)[:10])
            self.found.notes.append(f"{len(further.unread)} branches cannot be read: {names}")
        left = dict(further.tips)
        for name in [name for name in left if history.can_be_pushed(name, left)][:_MAX_BRANCHES]:
            self._push_branch(left.pop(name), name, f"branch {name} is not part of HEAD: it is kept in")
        if left:
            told = f"{len(left)} more branches are the parents of"
            self._push_branch(history.bundled(self.git, left), history.BUNDLE, told)

    def _push_branch(self, commit: str, name: str, told: str) -> None:
        ref = f"{REFS}/heads/{name}"
        try:
            self.repo.push(commit, ref)
            self.found.notes.append(f"{told} {ref}")
        except RefusedError as error:
            self.found.kept.append(f"branch {name} ({error})")
