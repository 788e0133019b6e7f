"""Getting the work out of a volume whose session ended without a save: the one-shot container's program.

The volume is hostile and mounted read-only. It is read with a git directory of our own, so its
configuration, hooks and filters do not count; its commits and files are taken as data, and the relay checks
what we push like any push of an agent. What the volume holds beyond the relay ends in these refs
there: `head` (its HEAD), `worktree` (its files, on top of it), `heads/…` (branches that HEAD lacks); repositories
inside of it go to refs of their own (nestedref). A history
that cannot be read costs nobody the files: they are then taken without it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from coding_agents_guest import volume_history as history
from coding_agents_guest.deny import DenyList
from coding_agents_guest.events import (
    Failed,
    GuestConfig,
    Salvaged,
)
from coding_agents_guest.gitwork import Git, GitFailedError, identity_environment
from coding_agents_guest.lfs import Sent, has_lfs, send_large_files
from coding_agents_guest.lfsclean import with_pointers
from coding_agents_guest.nested import (
    MAX_NESTED,
    MAX_NESTED_DEPTH,
    NESTED_MESSAGE,
    Start,
    read_given,
    start_of,
)
from coding_agents_guest.nestedref import nested_ref
from coding_agents_guest.place import Place
from coding_agents_guest.records import replace
from coding_agents_guest.regular import open_regular
from coding_agents_guest.snapshot import Snapshot, commit_snapshot, dated, newest_change, take_snapshot
from coding_agents_guest.volume import (
    UnreadableVolumeError,
    Volume,
    borrow,
    feed_nothing,
    pipes_in_the_way,
    read_volume,
)

REFS = "refs/coding-agents/salvage"
DEFAULT_MESSAGE = "Uncommitted work, salvaged (coding-agents)"

_MAX_BRANCHES = 20
_MAX_INDEX_BYTES = 512 << 20
_SHARED_INDEX = re.compile(r"sharedindex\.[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MAX_RULES_BYTES = 1 << 20
# What decides how files become blobs and which are ignored. Everything else in the volume's configuration,
# above all what names a program, has no say; LFS files get their pointers from us (lfsclean).
_TAKEN_SETTINGS = re.compile(
    r"core\.(?:autocrlf|checkstat|eol|filemode|ignorecase|precomposeunicode|symlinks|trustctime)"
    r"\n[A-Za-z]{1,12}"
)
_NO_FILTERS = ("filter.lfs.clean=", "filter.lfs.smudge=", "filter.lfs.process=", "filter.lfs.required=false")
# What speeds git up is the volume's to plant, too; and git would look for refs beside objects that it borrows.
_NO_SHORTCUTS = (
    "core.alternateRefsCommand=true",
    "core.commitGraph=false",
    "core.multiPackIndex=false",
    "pack.useBitmaps=false",
)
_MAX_SEEN = 1000  # repositories inside, of which most are submodules as they went in


def salvage(config: GuestConfig, place: Place, deadline: float) -> Salvaged | Failed:
    """Push what the volume at `place.workspace` holds. `deadline` is of time.monotonic.

    Never raises. Salvaged means that HEAD and all files but those left out are in the relay: `head` is the
    volume's HEAD, "" when it is unborn or broken; what else is to be known is in the notes. Everything
    less is Failed, so that nobody takes the volume for saved.
    """
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="salvage-") as scratch:
        try:
            try:
                git = _fresh_git(config, place, Path(scratch, "whole"), deadline)
                return _Salvage(config, place, git, _Found(place.workspace, notes)).run()
            except _BrokenHistoryError as error:
                notes[:] = [f"the volume's own history cannot be read: {error}"]
                git = _fresh_git(config, place, Path(scratch, "files"), deadline)
                return _Salvage(config, place, git, _Found(place.workspace, notes)).without_history()
        except Exception as error:  # noqa: BLE001 - whatever a hostile volume causes, the answer must come
            return Failed("salvage", "; ".join((*notes, str(error))))


def _fresh_git(config: GuestConfig, place: Place, scratch: Path, deadline: float) -> Git:
    """git with a git directory of our own, made here, and the volume as its work tree."""
    variables = {
        **place.environment(),
        **identity_environment(config.identity),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ALLOW_PROTOCOL": "git:file",
    }
    scratch.mkdir()
    git = Git(scratch, variables, deadline, settings=(*_NO_FILTERS, *_NO_SHORTCUTS))
    object_format = "sha256" if len(config.base) == 64 else "sha1"
    git_dir = scratch / "salvage.git"
    git.run("init", "--quiet", "--bare", f"--object-format={object_format}", str(git_dir))
    return git.within(
        GIT_DIR=str(git_dir), GIT_WORK_TREE=str(place.workspace), GIT_INDEX_FILE=str(scratch / "index")
    )


class _BrokenHistoryError(Exception):
    """Objects of the volume cannot be read; its files still can."""


class _Found:
    """What a salvage and those of the repositories inside of its work tree have found together.

    `top` is the volume; `seen` are the repositories that were looked at, `inside` those that are no submodule as it
    went in, and `given` how submodules went in (None: the relay is still to be asked). `kept` says what is in the
    volume alone, and `sending` whose large files are still to be sent.
    """

    def __init__(self, top: Path, notes: list[str]) -> None:
        self.top = top
        self.notes = notes
        self.seen: list[str] = []
        self.inside: list[str] = []
        self.given: Mapping[str, Start] | None = None
        self.kept: list[str] = []
        self.sending: list[tuple[_Salvage, Volume]] = []


class _Salvage:
    """One salvage under way. `git` works on a git directory of our own with the volume as its work tree.

    `found` is shared with the salvages of repositories inside of it. `pushed` are the commits that are in the volume
    alone no more, `large` says where large files of the work tree are by SHA-256.
    """

    def __init__(self, config: GuestConfig, place: Place, git: Git, found: _Found) -> None:
        self.config = config
        self.place = place
        self.git = git
        self.found = found
        self.pushed: list[str] = []
        self.large: dict[str, Path] = {}

    def run(self) -> Salvaged:
        """Raises GitFailedError, UnreadableVolumeError and OSError."""
        volume = read_volume(self.place.workspace)
        feed_nothing(pipes_in_the_way(self.place.workspace))
        relay_tip = self._relay_tip()
        self._prepare(volume)
        head = self._read_head(volume, relay_tip)
        if head and head != relay_tip:
            self._push(head, f"{REFS}/head")
        worktree, snapshot = self._commit_worktree(volume, head or relay_tip)
        if worktree:
            self._push(worktree, f"{REFS}/worktree")
        self._push_branches(volume, head or relay_tip)
        self.found.sending.append((self, volume))
        left_out = (*snapshot.left_out, *self._push_nested(snapshot.nested))
        # Last, as it may take all the time that is left.
        for salvage_of, its_volume in self.found.sending:
            salvage_of._send_large(its_volume)
        return Salvaged(
            head, worktree, not worktree, left_out, tuple(self.found.notes), "; ".join(self.found.kept[:10])
        )

    def without_history(self) -> Salvaged:
        """The files alone, on top of what the relay has. Raises as `run`."""
        relay_tip = self._relay_tip()
        self._prepare(Volume(None))
        self._fetch_relay()
        worktree, snapshot = self._commit_worktree(Volume(None), relay_tip)
        if worktree:
            self._push(worktree, f"{REFS}/worktree")
        left_out = (*snapshot.left_out, *self._push_nested(snapshot.nested))
        for salvage_of, its_volume in self.found.sending:
            salvage_of._send_large(its_volume)
        return Salvaged(
            "", worktree, not worktree, left_out, tuple(self.found.notes), "; ".join(self.found.kept[:10])
        )

    def _send_large(self, volume: Volume) -> None:
        """Push the content of large files that the pushed commits name, and HEAD, which the relay may have had."""
        if volume.git_dir is None or not (self.large or has_lfs(volume.git_dir)):
            return
        try:
            tips = history.commits(self.git, [tip for tip in (*self.pushed, volume.head) if tip])
            known = history.commits(self.git, [self.config.base]) if self.config.base else set()
            sent = send_large_files(
                self._to_relay(),
                volume.git_dir,
                tips=history.whole(self.git, sorted(tips), sorted(known)),
                known=sorted(known),
                relay=self.place.relay,
                scratch=Path(self.git.environment["GIT_DIR"]),
                others=self.large,
            )
        except GitFailedError as error:
            sent = Sent(why=str(error))
        if sent.why:
            self.found.kept.append(sent.told())

    def _push_nested(self, nested: Sequence[str], outer: tuple[str, ...] = ()) -> list[str]:
        """Push the repositories `nested` in that at `outer`, and those in them. Returns what they lack.

        None of them may cost us what is outside: one that cannot be read is named among what is lacking.
        """
        lacking = []
        for path in nested:
            places = (*outer, path)
            where = "/".join(places)
            if _is_empty(self.found.top / where):
                continue  # a submodule that was never filled
            full = len(self.found.inside) >= MAX_NESTED or len(self.found.seen) >= _MAX_SEEN
            if full or len(places) > MAX_NESTED_DEPTH:
                self.found.notes.append(f"too many repositories are inside: {where} was not read")
                lacking.append(f"{where}/")
                continue
            self.found.seen.append(where)
            try:
                inner, snapshot = self._salvage_nested(places)
            except (GitFailedError, UnreadableVolumeError, _BrokenHistoryError, OSError) as error:
                self.found.notes.append(f"the repository {where} cannot be read: {error}")
                lacking.append(f"{where}/")
                continue
            lacking += [f"{where}/{lost}" for lost in snapshot.left_out]
            lacking += inner._push_nested(snapshot.nested, places)
        return lacking

    def _salvage_nested(self, places: tuple[str, ...]) -> tuple[_Salvage, Snapshot]:
        """Push the one at `places`, its commits or without them its files."""
        where = "/".join(places)
        scratch = self.git.directory / f"nested-{len(self.found.seen)}"
        place = replace(self.place, workspace=self.found.top / where)
        if self.found.given is None:
            self.found.given = {}
            with suppress(GitFailedError):  # without the answer all of them are pushed, and lost is nothing
                self.found.given = read_given(self._to_relay(), self.place.relay)
        start = start_of(self.git, places, self.found.given, self.config.base)
        config = replace(self.config, base=start.commit, launch_tree=start.tree, message=NESTED_MESSAGE)
        git = _fresh_git(self.config, place, scratch, self.git.deadline)
        inner = _Salvage(config, place, git, self.found)
        volume = read_volume(self.found.top, inside=where)
        inner._prepare(volume)
        head = volume.head if volume.head and history.commits(inner.git, [volume.head]) else ""
        whole = head and history.is_whole(inner.git, [head], ())
        if (
            head and not whole and volume.shallow
        ):  # only now: a planted one would cut off history that is there
            Path(git.environment["GIT_DIR"], "shallow").write_bytes(volume.shallow)
            whole = history.is_whole(inner.git, [head], ())
        if head and not whole:
            self.found.notes.append(f"the history of the repository {where} cannot be read")
            head = ""
        commit, snapshot = inner._commit_worktree(volume if head else Volume(None), head)
        tip = commit or head
        if tip and tip != start.commit:
            self.found.inside.append(where)
            inner._push(tip, nested_ref(places))
            self.found.sending.append((inner, volume))
        return inner, snapshot

    def _prepare(self, volume: Volume) -> None:
        """Let our git directory borrow the volume's objects and take over its rules for files."""
        git_dir = Path(self.git.environment["GIT_DIR"])
        self.git.run("config", "core.bare", "false")
        if volume.git_dir is None:
            return
        borrow(volume.objects, git_dir / "objects")
        for rules in ("info/exclude", "info/attributes"):
            _take_file(volume.git_dir / rules, git_dir / rules, _MAX_RULES_BYTES)
        if volume.git_dir.name != ".git":
            # Elsewhere in the volume, where git takes it for files.
            top = os.path.realpath(self.place.workspace)
            with (git_dir / "info/exclude").open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"\n/{os.path.relpath(volume.git_dir, top)}/\n")
        settings = git_dir / "volume-config"
        _take_file(volume.git_dir / "config", settings, _MAX_RULES_BYTES)
        listed = self.git.answer("config", "--file", str(settings), "--no-includes", "--null", "--list")
        for setting in listed.split("\0"):
            if _TAKEN_SETTINGS.fullmatch(setting):
                self.git.run("config", *setting.split("\n"))

    def _relay_tip(self) -> str:
        """The commit that the relay has for the session's branch; its history is fetched only when needed."""
        listed = self._to_relay().text("ls-remote", self.place.relay, f"refs/heads/{self.config.branch}")
        return listed.split("\t")[0]

    def _to_relay(self) -> Git:
        """git for talking to the relay: in a work tree of its own, for what it starts looks for a repository here."""
        return self.git.within(GIT_WORK_TREE=str(self.git.directory))

    def _fetch_relay(self) -> None:
        options = (
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--update-shallow",
            "--no-auto-maintenance",
        )
        self._to_relay().agrees(
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

    def _push_branches(self, volume: Volume, head: str) -> None:
        """Push the volume's branches that `head` does not contain. Raises GitFailedError when one stays behind."""
        there = history.commits(self.git, sorted(set(volume.branches.values())))
        beyond = history.beyond(self.git, sorted(there), head) if there else set()
        whole = set(history.whole(self.git, sorted(beyond), [head] if head else []))
        left = {name: oid for name, oid in sorted(volume.branches.items()) if oid in whole}
        broken = [name for name, oid in volume.branches.items() if oid not in there or oid in beyond - whole]
        if broken:
            self.found.notes.append(
                f"{len(broken)} branches cannot be read: {', '.join(sorted(broken)[:10])}"
            )
        for name in [name for name in left if history.can_be_pushed(name, left)][:_MAX_BRANCHES]:
            self._push(left.pop(name), f"{REFS}/heads/{name}")
            self.found.notes.append(f"branch {name} is not part of HEAD: it is kept in {REFS}/heads/{name}")
        if left:
            self._push(history.bundled(self.git, left), f"{REFS}/heads/{history.BUNDLE}")
            self.found.notes.append(
                f"{len(left)} more branches are the parents of {REFS}/heads/{history.BUNDLE}"
            )

    def _commit_worktree(self, volume: Volume, parent: str) -> tuple[str, Snapshot]:
        """Commit the files on top of `parent`. Returns the commit ("" if not needed) and what was taken."""
        index = Path(self.git.environment["GIT_INDEX_FILE"])
        deny = DenyList(self.config.deny)
        try:
            if volume.git_dir is not None:
                self._take_index(volume.git_dir, index)
            snapshot = take_snapshot(self.git, head=parent, deny=deny)
        except GitFailedError:
            self.found.notes.append("the volume's index cannot be used")
            for leftover in (index, index.with_name("index.lock")):
                with suppress(FileNotFoundError):
                    leftover.unlink()
            if parent:
                self.git.run("read-tree", parent)
            snapshot = take_snapshot(self.git, head=parent, deny=deny)
        if volume.git_dir is not None and has_lfs(volume.git_dir):
            scratch = Path(self.git.environment["GIT_DIR"])
            snapshot, self.large = with_pointers(
                self.git, snapshot, parent=parent, top=self.place.workspace, scratch=scratch
            )
        message = self.config.message.strip() or DEFAULT_MESSAGE
        git = dated(self.git, newest_change(self.git, snapshot.tree, parent, self.place.workspace))
        commit = commit_snapshot(git, snapshot, self.config, parent=parent, message=message)
        return commit, snapshot

    def _take_index(self, git_dir: Path, index: Path) -> None:
        """Copy the index, and what it shares with others when it is split (gitformat-index(5), "link")."""
        _take_file(git_dir / "index", index, _MAX_INDEX_BYTES)
        shared = [path for path in git_dir.glob("sharedindex.*") if _SHARED_INDEX.fullmatch(path.name)]
        content = index.read_bytes() if shared and index.exists() else b""
        for path in shared:
            if bytes.fromhex(path.suffix[1:]) in content:
                _take_file(path, Path(self.git.environment["GIT_DIR"], path.name), _MAX_INDEX_BYTES)

    def _push(self, what: str, ref: str) -> None:
        """Raises GitFailedError, or _BrokenHistoryError when it is not the relay that does not take it."""
        try:
            self._to_relay().run("push", "--quiet", "--no-verify", self.place.relay, f"+{what}:{ref}")
        except GitFailedError as error:
            packed = ("pack-objects", "--revs", "--stdout", "-q", "--all-progress-implied")
            if self.git.status_and_output(*packed, stdin=f"{what}\n".encode(), discard=True)[0]:
                raise _BrokenHistoryError(str(error)) from error
            raise
        self.pushed.append(what)


def _is_empty(place: Path) -> bool:
    """Whether `place` is a directory without an entry, or nothing."""
    try:
        with os.scandir(place) as entries:
            return not any(entries)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _take_file(source: Path, target: Path, limit: int) -> None:
    """Copy a regular file of at most `limit` bytes, if there is one."""
    with suppress(OSError), open_regular(source) as file:
        if file is not None and file.seek(0, os.SEEK_END) <= limit:
            file.seek(0)
            target.parent.mkdir(exist_ok=True)
            with target.open("wb") as copy:
                shutil.copyfileobj(file, copy)
            # An index younger than it was would hide what changed in the second of its last writing.
            times = os.fstat(file.fileno())
            os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
